"""Designs against each single selector, on cells that none of them saw.

::

    python tests/perf/design.py --data FOLDER --out FOLDER [--datasets pbmc3k:celltype ...]
        [--k 32] [--outer 0] [--folds 5] [--hvg 2000]

A quarter of the cells of each class is held away (the outer split, by seed). `design` gets the
others; its panel, and that of every selector from the same cells, are scored on the quarter by a
forest. Prints a Markdown table, and for each design its winner, the cross-validated scores and the
CPU seconds of its runs. Records stay in ``--out``: a call that was killed goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

import panelbench
from panelbench import api
from panelbench.design.selectors import SELECTORS
from panelbench.records.store import Store

DATASETS = ("pbmc3k:celltype", "mca_gut:cell_type_broad", "pancreas:clusters")
FEWEST = 5
"""Cells of a class, at least: rarer ones are dropped."""


def halves(source: Path, label: str, seed: int, folder: Path) -> tuple[Path, Path]:
    """All cells with a column ``outer``, and those of the design alone."""
    whole, inner = folder / "whole.h5ad", folder / "inner.h5ad"
    if whole.exists() and inner.exists():
        return whole, inner
    folder.mkdir(parents=True, exist_ok=True)
    adata = anndata.read_h5ad(source)
    labels = adata.obs[label].astype(str)
    counts = labels.value_counts()
    adata = adata[labels.isin(counts.index[counts >= FEWEST]).to_numpy() & (labels != "nan")].copy()
    labels = adata.obs[label].astype(str)
    rows = np.arange(adata.n_obs)
    known, held = train_test_split(rows, test_size=0.25, random_state=seed, stratify=labels)
    adata.obs = pd.DataFrame({label: labels, "outer": "design"}, index=adata.obs_names)
    adata.obs.iloc[held, 1] = "held"
    adata[np.sort(known)].copy().write_h5ad(inner)
    adata.write_h5ad(whole)
    return whole, inner


def one(source: Path, label: str, seed: int, args: argparse.Namespace) -> pd.Series:
    """Scores on the cells that were held away, by selector, and of the design."""
    folder = args.out / f"{source.stem}-{seed}"
    whole, inner = halves(source, label, seed, folder)
    options = {"hvg": args.hvg} if args.hvg else {}
    began = time.perf_counter()
    methods = args.methods or [item.method for item in SELECTORS]
    api.design(
        inner, label, k=args.k, out=folder / "design", folds=args.folds, jobs=args.jobs,
        method=methods, data_options=options, maps=args.maps,
    )  # fmt: skip
    took = time.perf_counter() - began
    scores = panelbench.run(
        data=whole, label=label, k=[args.k], seed=1, evaluator="rf", method=[*methods, "random"],
        panel=[folder / "design" / "panel.csv"], results=folder / "outer", jobs=args.jobs,
        data_options={**options, "group": "outer", "scheme": "leave-one-group-out"},
        stages=("preprocess", "select", "evaluate"),
    )  # fmt: skip
    cpu: dict[str, float] = {}
    for record in Store(folder / "design"):
        name = f"{record.stage} {record.address.method}" if record.stage == "select" else str(
            record.asked.get("evaluator"))  # fmt: skip
        cpu[name] = cpu.get(name, 0.0) + float(record.cost.get("cpu_seconds") or 0.0)
    told = ", ".join(
        f"{name} {value:.0f}" for name, value in sorted(cpu.items(), key=lambda i: -i[1])
    )
    print(f"<!-- {source.stem}, outer {seed}: {took:.0f} s on the clock, CPU s of runs "
          f"{sum(cpu.values()):.0f}: {told} -->", flush=True)  # fmt: skip
    bad = scores[scores.status != "ok"]
    for row in bad.itertuples():
        print(f"<!-- {row.method}: {row.status}: {row.reason} -->", flush=True)
    found = scores.set_index("method")["f1_macro"]
    return found.rename(lambda name: "design" if name.startswith("given") else name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--outer", nargs="+", type=int, default=[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--hvg", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--maps", action="store_true")
    args = parser.parse_args()
    head = None
    for name in args.datasets:
        stem, _, label = name.partition(":")
        for seed in args.outer:
            found = one(args.data / f"{stem}.h5ad", label, seed, args)
            if head is None:
                head = ["design", *(n for n in found.index if n != "design")]
                print(f"| data set, outer split | {' | '.join(head)} |")
                print("| --- |" + " ---: |" * len(head), flush=True)
            print(f"| {stem}, {seed} | " + " | ".join(f"{100 * found[n]:.1f}" for n in head) + " |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
