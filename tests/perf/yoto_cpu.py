"""The published YOTO training on one core: where the time goes, alone and together.

    python tests/perf/yoto_cpu.py                          # 2,700 cells x 3,451 genes, 19 classes
    git archive b83c193 methods/yoto | tar -x -C OLD && python tests/perf/yoto_cpu.py --before OLD

Times are of the processor, in one thread. A step costs less as the panel shrinks, so steps are
timed at points of the schedule and integrated over it. With `--before` the steps of both alternate,
and their scores are compared after the first point and after the last, when chance has parted
them. "Together" are runs in one training (`batch`), which is what a GPU does; "one after the other"
is what a CPU does with a group. Memory is the peak of a process of its own, less what it was before
the cells were made.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panelbench.method import Target, Task, frozen_mapping

N_CELLS, N_GENES, N_CLASSES, K = 2700, 3451, 19, 32


def make_task(n_cells: int, n_genes: int, seed: int = 0) -> Task:
    """Logarithms of counts in which every class has 40 genes of its own."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(N_CLASSES), rng.integers(N_CLASSES, size=n_cells - N_CLASSES)]
    means = rng.gamma(1.0, 0.3, n_genes) * np.ones((N_CLASSES, n_genes))
    for code in range(N_CLASSES):
        means[code, rng.choice(n_genes, min(40, n_genes // 8), replace=False)] += 2
    names = tuple(map(str, range(N_CLASSES)))
    target = Target("type", "classification", codes.astype(np.int64), names)
    matrix = np.log1p(rng.poisson(means[codes])).astype(np.float32)
    genes = np.array([f"g{i}" for i in range(n_genes)])
    return Task(matrix, genes, frozen_mapping({"type": target}), k=K, seed=seed)


def package(folder: Path | None) -> Any:
    """The method's package, of this checkout or of another folder."""
    if folder is None:
        return importlib.import_module("panelbench.methods.yoto")
    home = folder / "methods" / "yoto"
    spec = importlib.util.spec_from_file_location(
        "yoto_before", home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["yoto_before"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Version:
    """A training of one version, whose parts are timed."""

    def __init__(self, folder: Path | None, task: Task) -> None:
        yoto = package(folder)
        name = yoto.__name__
        self.training = importlib.import_module(f"{name}.training")
        mask = importlib.import_module(f"{name}.mask")
        self.settings = yoto.settings(yoto.Params(preset="paper"))
        self.trainer = self.training.Trainer(task, self.settings)
        self.spent: dict[str, list[float]] = {}
        for owner, part, what in (
            (mask.TopK, "__init__", "order"),
            (mask.TopK, "gradient", "gradient of the mask"),
            (self.trainer.optimizer, "step", "Adam"),
            (self.trainer.cells, "batch", "gather"),
            (self.trainer, "losses", "forward"),
        ):
            setattr(owner, part, self._timed(getattr(owner, part), what))

    def _timed(self, function: Any, what: str) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            result = function(*args, **kwargs)
            self.spent.setdefault(what, []).append(time.thread_time() - start)
            return result

        return wrapper

    def step(self, batch: np.ndarray, fraction: float) -> float:
        """Seconds of one step at a fraction of the training."""
        s, trainer = self.settings, self.trainer
        k = self.training.panel_size(fraction, trainer.n_genes, trainer.k, s.anneal)
        tau = self.training.temperature(fraction, s.tau_start, s.tau_end)
        start = time.thread_time()
        trainer.step(batch, k, tau)
        return time.thread_time() - start


def parts(before: Path | None, points: int, steps: int) -> None:
    """Seconds of 1000 epochs by part, of one version or of two in turn."""
    task = make_task(N_CELLS, N_GENES)
    versions = [Version(folder, task) for folder in ([before] if before else []) + [None]]
    fractions = [*np.linspace(0, 0.6, points), 1.0]
    rng = np.random.default_rng(1)
    per_epoch = round(N_CELLS / 256)
    table: list[dict[str, list[float]]] = [{} for _ in versions]
    apart: list[float] = []
    for fraction in fractions:
        batches = [rng.choice(N_CELLS, N_CELLS // per_epoch, False) for _ in range(steps + 1)]
        seconds: list[list[float]] = [[] for _ in versions]
        for number, batch in enumerate(batches):
            for version, times in zip(versions, seconds, strict=True):
                if number == 1:
                    version.spent.clear()
                times.append(version.step(batch, fraction))
        apart.append(float((versions[0].trainer.scores - versions[-1].trainer.scores).abs().max()))
        for version, times, found in zip(versions, seconds, table, strict=True):
            found.setdefault("whole", []).append(float(np.median(times[1:])))
            for what, spent in version.spent.items():
                found.setdefault(what, []).append(float(np.median(spent)))
    print("| version | " + " | ".join(table[-1]) + " |\n" + "|---" * (len(table[-1]) + 1) + "|")
    for name, found in zip((["before"] if before else []) + ["now"], table, strict=True):
        # Panels shrink by a factor per point: what is between two is nearer the geometric mean.
        whole = [
            1000 * per_epoch * (0.6 * _mean(values[:-1]) + 0.4 * values[-1])
            for values in found.values()
        ]
        print(f"| {name} | " + " | ".join(f"{value:.0f} s" for value in whole) + " |", flush=True)
    if before:
        said = f"{apart[0]:.1e} at first, {apart[-1]:.1e} in the end"
        print(f"largest difference of the scores: {said}")


def _mean(values: list[float]) -> float:
    """Mean over points of an exponential between each two."""
    a, b = np.array(values[:-1]), np.array(values[1:])
    ratio = np.where(np.abs(a - b) < 1e-9 * a, 1.0, a / b)
    return float(np.mean(np.where(ratio == 1.0, a, (a - b) / np.log(ratio))))


def trained(n_cells: int, n_genes: int, count: int, how: str, epochs: int, queue: Any) -> None:
    """Seconds and peak MB of some runs, in this process."""
    from panelbench.methods import yoto
    from panelbench.methods.yoto import batch

    torch.set_num_threads(1)
    params = replace(yoto.Params(preset="paper"), epochs=epochs)
    yoto.select(make_task(300, 300), replace(params, epochs=1))  # what is loaded once
    before = _peak()
    tasks = [make_task(n_cells, n_genes, seed) for seed in range(count)]
    start = time.process_time()
    if how == "together":
        batch.train_together(tasks, [yoto.settings(params)] * count)
    else:
        yoto.select_many(tasks, [params] * count)
    spent = time.process_time() - start
    queue.put((spent, _peak() - before))


def _peak() -> float:
    """Peak MB of this process; `getrusage` would tell the peak of the process that began it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def groups(sizes: list[tuple[int, int]], count: int, epochs: int) -> None:
    """Groups of runs, together and one after the other, against one run alone."""
    print(
        "\n| cells x genes | runs | how | seconds per run | of alone | peak, MB |\n"
        + "|---" * 6
        + "|"
    )
    context = multiprocessing.get_context("spawn")
    for n_cells, n_genes in sizes:
        alone = 0.0
        for number, how in ((1, "alone"), (count, "one after the other"), (count, "together")):
            queue = context.Queue()
            given = (n_cells, n_genes, number, how, epochs, queue)
            child = context.Process(target=trained, args=given)
            child.start()
            seconds, memory = queue.get()
            child.join()
            alone = alone or seconds
            print(
                f"| {n_cells:,} x {n_genes:,} | {number} | {how} | {seconds / number:.2f} "
                f"| {seconds / number / alone:.2f} | {memory:.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="folder with methods/yoto of another version")
    parser.add_argument("--points", type=int, default=7, help="0: groups alone")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.points:
        parts(given.before, given.points, given.steps)
    groups([(500, 500), (N_CELLS, N_GENES)], given.runs, given.epochs)


if __name__ == "__main__":
    main()
