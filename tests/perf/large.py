"""A file that is larger than it need be in memory: seconds and peak memory of each stage.

`make` writes synthetic counts below a folder, a block of cells at a time: classes of unequal size,
gene expression with a long tail, and for each class genes that are higher in it; 50,000 different
cells, each of which occurs many times, since to draw each anew takes long. `measure` prepares the
file, lets methods choose and scores panels, each by a command of its own, and prints a Markdown
table. Seconds and peak are those of the command with all its processes (the peak of the largest);
CPU seconds of the method alone are in brackets. With `:sample` a method gets --max-cells.

    python tests/perf/large.py make /data/large --cells 1000000 --genes 10000
    python tests/perf/large.py measure /data/large --method mrmr-f --method wilcoxon
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, MARKERS = 15, 40
BLOCK, POOL = 10_000, 50_000


def make(folder: Path, cells: int, genes: int, per_cell: int) -> None:
    """Write the file; only a block of cells is in memory."""
    import h5py
    import pandas as pd
    from anndata.io import write_elem
    from scipy import sparse

    from panelbench.data.blocks import Writer

    rng = np.random.default_rng(0)
    common = rng.gamma(0.35, 1.0, size=genes) + 0.02
    rates = np.tile(common, (CLASSES, 1))
    for row in rates:
        row[rng.choice(genes, MARKERS, replace=False)] *= rng.uniform(3, 10, MARKERS)
    ladders = np.cumsum(rates / rates.sum(axis=1, keepdims=True), axis=1)
    shares = rng.dirichlet(np.full(CLASSES, 2.0))
    pool = rng.choice(CLASSES, size=min(cells, POOL), p=shares)
    parts = range(0, len(pool), BLOCK)
    X = sparse.vstack([drawn(pool[i : i + BLOCK], ladders, per_cell, rng) for i in parts], "csr")
    cell = rng.permutation(np.arange(cells) % len(pool))
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "large.h5ad", "w") as file:
        writer = Writer(file, "X", genes)
        for start in range(0, cells, BLOCK):
            writer.append(X[cell[start : start + BLOCK]])
        writer.close()
        labels = pd.Categorical([f"type {code}" for code in pool[cell]])
        names = [f"c{index}" for index in range(cells)]
        write_elem(file, "obs", pd.DataFrame({"kind": labels}, index=names))
        write_elem(file, "var", pd.DataFrame(index=[f"GENE{index}" for index in range(genes)]))
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        values = file["X/data"].shape[0]
    size = (folder / "large.h5ad").stat().st_size / 2**30
    print(f"{cells:,} x {genes:,}, {values / cells / genes:.1%} not zero, {size:.1f} GB")


def drawn(kind: np.ndarray, ladders: np.ndarray, per_cell: int, rng: np.random.Generator) -> Any:
    """Counts of cells of these classes, CSR."""
    from scipy import sparse

    depth = rng.poisson(per_cell * rng.gamma(8.0, 1 / 8, size=len(kind))) + 1
    columns = np.empty(depth.sum(), dtype=np.int32)
    of = np.repeat(kind, depth)
    for code, ladder in enumerate(ladders):
        mine = of == code
        columns[mine] = np.searchsorted(ladder, rng.random(int(mine.sum())))
    np.minimum(columns, ladders.shape[1] - 1, out=columns)
    ends = np.concatenate([[0], np.cumsum(depth)])
    ones = np.ones(len(columns), dtype=np.float32)
    block = sparse.csr_matrix((ones, columns, ends), shape=(len(kind), ladders.shape[1]))
    block.sum_duplicates()
    return block


def command(folder: Path, *words: str) -> tuple[float, float, float, int, str]:
    """Seconds by the clock and of CPU, peak MB, exit code and output of a command."""
    argv = [sys.executable, "-m", "panelbench.cli", *words]
    argv += ["--data", "large.h5ad", "--label", "kind", "--results", "results", "--cache", "cache"]
    start = time.perf_counter()
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read()
    cpu = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, cpu, usage.ru_maxrss / 1024, process.returncode, text


def inside(folder: Path, stage: str, method: str) -> dict[str, float]:
    """Cost in the newest record of a stage, {} if there is none."""
    paths = folder.glob(f"results/runs/*/{method or 'none'}/*/*.json")
    mine = [r for r in map(json.loads, map(Path.read_text, paths)) if r["stage"] == stage]
    last = max(mine, key=lambda r: r["started"], default=None)
    return {} if last is None else dict(last["cost"])


def row(folder: Path, name: str, stage: str, method: str, words: list[str]) -> None:
    """Run a command and print its row."""
    seconds, cpu, peak, code, text = command(folder, stage, *words)
    cost = inside(folder, stage, method)
    own = f" ({cost['cpu_seconds']:.0f})" if cost else ""
    largest, load = max(peak, cost.get("peak_memory_mb", 0.0)) / 1024, os.getloadavg()[0]
    print(f"| {name} | {cpu:.0f}{own} | {seconds:.0f} | {largest:.1f} | {load:.0f} |", flush=True)
    if code:
        print(f"\nexit code {code}: {text[-1500:]}", flush=True)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Prepare, select with each method, score."""
    hvg = ["--hvg", str(options.hvg)] if options.hvg else []
    sample = ["--max-cells", str(options.max_cells)]
    limits = ["--time-limit", "2h", "--memory-limit", options.memory_limit, "--jobs", "1"]
    print("| | CPU s (of the method) | clock s | peak GB | load |", flush=True)
    print("| --- | --- | --- | --- | --- |", flush=True)
    row(folder, "preprocess", "preprocess", "", hvg)
    for item in options.method:
        name, _, sampled = item.partition(":")
        words = ["--method", name, "--k", "32", "--seed", "0", *limits, *hvg]
        words += sample if sampled else []
        title = f"{name}, {options.max_cells:,} cells" if sampled else name
        row(folder, title, "select", name, words)
        for evaluator in options.evaluator:
            scored = [*words, "--evaluator", evaluator]
            row(folder, f"evaluate {title} by {evaluator}", "evaluate", name, scored)


def main() -> None:
    """Make or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--per-cell", type=int, default=420, help="counts of a cell, about")
    parser.add_argument("--hvg", type=int, default=0)
    parser.add_argument("--max-cells", type=int, default=20_000)
    parser.add_argument("--memory-limit", default="9G")
    parser.add_argument("--method", action="append", default=[], help="ID, or ID:sample")
    parser.add_argument("--evaluator", action="append", default=[])
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.what == "make":
        make(folder, options.cells, options.genes, options.per_cell)
    else:
        measure(folder, options)


if __name__ == "__main__":
    main()
