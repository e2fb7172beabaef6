"""The rank-sum tests against scanpy's, alternating in one process; medians of seconds.

python tests/perf/rank_sum.py --cells 5000 --genes 2000 --classes 50
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
from scipy import sparse

from panelbench.method import Target, Task, frozen_mapping
from panelbench.registry import discover


def scanpy_test(X: sparse.csr_matrix, codes: np.ndarray, ties: bool) -> None:
    """Run scanpy's test on the same cells."""
    import pandas as pd
    import scanpy as sc
    from anndata import AnnData

    data = AnnData(X.copy(), obs=pd.DataFrame({"c": pd.Categorical(codes.astype(str))}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(data, "c", use_raw=False, method="wilcoxon", tie_correct=ties)


def main() -> None:
    """Time both forms, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = sparse.random(
        options.cells, options.genes, 0.1, "csr", np.float32, rng, lambda n: rng.poisson(2, n) + 1.0
    )
    X.data = np.log1p(X.data)
    codes = rng.integers(options.classes, size=options.cells)
    classes = tuple(map(str, range(options.classes)))
    targets = frozen_mapping({"c": Target("c", "classification", codes, classes)})
    genes = np.array([f"g{i}" for i in range(options.genes)])
    task = Task(X=X, genes=genes, targets=targets, k=32, seed=0)
    methods = discover().methods
    print("| test | scanpy, s | ours, s | ratio |\n| --- | ---: | ---: | ---: |")
    for id, ties in (("wilcoxon", False), ("wilcoxon-tie", True)):
        seconds: dict[str, list[float]] = {"scanpy": [], "ours": []}
        # One unmeasured turn each: scanpy compiles on first use.
        for turn in range(options.repeats + 1):
            for name in seconds:
                start = time.perf_counter()
                if name == "scanpy":
                    scanpy_test(X, codes, ties)
                else:
                    methods[id].select(task, methods[id].params())
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        theirs, ours = (statistics.median(seconds[name]) for name in ("scanpy", "ours"))
        print(f"| {id} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main()
