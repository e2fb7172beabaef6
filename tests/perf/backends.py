"""Time and peak memory of a method against the library it stands in for.

Each run is a process of its own, so that its peak is its own; ours and the library's alternate,
so that a busy machine is busy for both. Not a test: the scripts beside this file call `main`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.method import Matrix, Target, Task

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = ("citeseq", "pbmc68k-reduced", "pbmc3k")


def main(methods: dict[str, str]) -> None:
    """Run the command line.

    Parameters
    ----------
    methods
        Method ids and the functions that do them, as ``"module:function"``; the first is the
        default.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--method", choices=methods, default=next(iter(methods)))
    parser.add_argument("--data", choices=("synthetic", *REAL), default="synthetic")
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="threads (ours), processes (theirs)")
    parser.add_argument("--binary", action="store_true", help="genes are 0 or 1")
    parser.add_argument("--sparse", action="store_true", help="synthetic data as CSR")
    parser.add_argument("--no-library", action="store_true", help="run ours alone")
    parser.add_argument("--child", choices=("panelbench", "library"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_run(methods[options.method], options)))
        return

    backends = ["panelbench"] if options.no_library else ["panelbench", "library"]
    runs: dict[str, list[dict[str, Any]]] = {backend: [] for backend in backends}
    for _ in range(options.repeat):
        for backend in backends:
            command = [sys.executable, *sys.argv, "--child", backend]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{options.method} ({backend}) failed with {done.returncode}")
            runs[backend].append(json.loads(done.stdout.splitlines()[-1]))
    _print(options, runs)


def _print(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    first = runs["panelbench"][0]
    print(f"{options.method} on {options.data}, {first['shape']}, K = {options.k}:", end=" ")
    print(f"{options.repeat} run(s) each, {options.jobs} job(s), {platform.processor()}")
    middle = {
        backend: {
            what: statistics.median(run[what] for run in some)
            for what in ("seconds", "cpu_seconds", "mb")
        }
        for backend, some in runs.items()
    }
    for backend, values in middle.items():
        each = ", ".join(f"{r['seconds']:.2f}" for r in runs[backend])
        print(f"  {backend:<11}{values['seconds']:9.2f} s", end=" ")
        print(f"{values['cpu_seconds']:9.2f} CPU s {values['mb']:8.0f} MB   (seconds: {each})")
    print("  held before the run starts (interpreter, libraries, matrix):", end=" ")
    print(f"{first['mb_before']:.0f} MB")
    if "library" in runs:
        ours, theirs = middle["panelbench"], middle["library"]
        mine, reference = first["ranking"], runs["library"][0]["ranking"]
        print(f"  time: {theirs['seconds'] / ours['seconds']:.1f} times less,", end=" ")
        print(f"CPU time: {theirs['cpu_seconds'] / ours['cpu_seconds']:.1f} times less,", end=" ")
        print(f"peak memory: {ours['mb'] / theirs['mb']:.2f} of the library's")
        same = sum(a == b for a, b in zip(mine, reference, strict=False))
        shared = len(set(mine) & set(reference))
        print(f"  same place: {same} of {options.k}, same set: {shared} of {options.k}")
    print("  " + ", ".join(f"{name} {version}" for name, version in first["versions"].items()))


def _run(where: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run in this process: what it took and what it chose."""
    module, function = where.split(":")
    declaring = importlib.import_module(module)
    for name in ("numpy", "scipy.sparse", "sklearn.ensemble", "pandas", "joblib"):
        importlib.import_module(name)
    X, codes = _matrix(options)
    classes = tuple(map(str, range(codes.max() + 1)))
    task = Task(
        X=X,
        genes=np.array([f"g{j}" for j in range(X.shape[1])]),
        targets={"type": Target("type", "classification", codes, classes)},
        k=options.k,
        seed=0,
        n_jobs=options.jobs,
    )
    before = _peak_mb()
    watch = _Children()
    start, start_cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selection = getattr(declaring, function)(task, declaring.Params(backend=options.child))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    watch.stop()
    libraries = ("numpy", "scipy", "scikit-learn", "mrmr-selection", "pyHSICLasso")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds + watch.cpu_seconds,
        "mb": _peak_mb() + watch.mb,
        "mb_before": before,
        "shape": f"{X.shape[0]:,} x {X.shape[1]:,}" + (" binary" if options.binary else ""),
        "ranking": list(selection.ranking),
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Children:
    """CPU time of child processes and the memory they hold alone (not shared), sampled."""

    def __init__(self) -> None:
        self.mb = self.cpu_seconds = 0.0
        self._cpu: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        import psutil

        while not self._done.wait(0.2):
            held = 0.0
            for child in psutil.Process().children(recursive=True):
                try:
                    held += child.memory_full_info().uss / 2**20
                    spent = child.cpu_times()
                except psutil.Error:
                    continue
                self._cpu[child.pid] = spent.user + spent.system
            self.mb = max(self.mb, held)
        self.cpu_seconds = sum(self._cpu.values())

    def stop(self) -> None:
        """Take no more samples."""
        self._done.set()
        self._thread.join()


def _matrix(options: argparse.Namespace) -> tuple[Matrix, np.ndarray]:
    """Log-normalised float32 matrix and class codes."""
    if options.data != "synthetic":
        X, codes = _real(options.data)
    else:
        X, codes = _synthetic(options.cells, options.genes, as_csr=options.sparse)
    if options.binary:
        values = X if isinstance(X, np.ndarray) else X.data
        np.greater(values, 0, out=values, casting="unsafe")
    return X, codes


def _synthetic(
    n_cells: int, n_genes: int, as_csr: bool = False, n_types: int = 20
) -> tuple[Matrix, np.ndarray]:
    """Poisson counts of types with ten raised genes each, as log(1 + count)."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    codes = rng.integers(n_types, size=n_cells)
    rate = rng.lognormal(-1, 1, n_genes)
    fold = np.ones((n_types, n_genes))
    for kind in range(n_types):
        fold[kind, rng.choice(n_genes, 10, replace=False)] = rng.uniform(2, 6, 10)
    depth = rng.lognormal(0, 0.4, n_cells)
    X = np.empty((0 if as_csr else n_cells, n_genes), dtype=np.float32)
    parts = []
    for start in range(0, n_cells, 256):
        some = slice(start, start + 256)
        values = np.log1p(rng.poisson(depth[some, None] * rate * fold[codes[some]]))
        if as_csr:
            parts.append(sparse.csr_matrix(values.astype(np.float32)))
        else:
            X[some] = values
    return sparse.vstack(parts, format="csr") if as_csr else X, codes


def _real(name: str) -> tuple[np.ndarray, np.ndarray]:
    import scanpy as sc
    from scipy.io import loadmat

    if name == "pbmc68k-reduced":
        data = sc.datasets.pbmc68k_reduced()
        X, labels = data.raw.X, data.obs["bulk_labels"]
        return np.ascontiguousarray(X.toarray(), dtype=np.float32), _codes(labels)
    if name == "citeseq":
        counts = loadmat(SHARED / "mirror" / "CITEseq.mat")["G"].T.astype(np.float32)
        file = loadmat(SHARED / "mirror" / "CITEseq-labels.mat")
        labels = next(value for key, value in file.items() if not key.startswith("__"))
        scaled = counts / counts.sum(axis=1, keepdims=True) * 10_000
        return np.ascontiguousarray(np.log1p(scaled)), _codes(labels.ravel())
    data = sc.read_h5ad(SHARED / "pbmc3k.h5ad")
    sc.pp.normalize_total(data, target_sum=10_000)
    sc.pp.log1p(data)
    sc.pp.highly_variable_genes(data, n_top_genes=2000)
    data = data[:, data.var.highly_variable]
    return np.ascontiguousarray(data.X.toarray()), _codes(data.obs["celltype"])


def _codes(labels: Any) -> np.ndarray:
    return np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1].astype(np.int64)
