"""What constraints cost: macro F1 with and without them, on real data.

::

    python tests/perf/constraints.py --data FOLDER [--datasets pbmc3k mca_gut] [--seeds 0 1 2]

The folder holds the files of the data sets (``--mirror`` of the suite). Prints one Markdown table:
differences to the panel of the same method, split and size without constraints.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

import panelbench

METHODS = ("mrmr-f", "wilcoxon", "rf-importance")
K = 32


def costs(path: Path, out: Path) -> None:
    """A price for each gene: one, and one more for each tenth of a count per cell, at most 10."""
    adata = anndata.read_h5ad(path)
    means = np.asarray(adata.X.mean(axis=0)).ravel()
    with out.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["gene", "cost"])
        table.writerows(zip(adata.var_names, np.minimum(1 + 10 * means, 10).round(2), strict=True))


def cases(folder: Path, prices: Path) -> dict[str, dict[str, Any]]:
    """Constraints by name."""
    return {
        "no mitochondrial, ribosomal, haemoglobin genes": {
            "exclude": ["mitochondrial", "ribosomal", "haemoglobin"]
        },
        "mean in the highest class at most 3 counts": {"class_mean": ":3"},
        "seen in at least 30% of the cells of a class": {"class_detection": "0.3:"},
        "1 marker of each class (AUROC above 0.7)": {"markers": 1, "marker_auroc": 0.7},
        f"budget of {3 * K} (1 and 1 per tenth of a count)": {"costs": prices, "budget": 3.0 * K},
        "all but the markers": {
            "exclude": ["mitochondrial", "ribosomal", "haemoglobin"],
            "class_mean": ":3", "class_detection": "0.3:", "costs": prices, "budget": 3.0 * K,
        },
    }  # fmt: skip


def scores(folder: Path, name: str, seeds: list[int], work: Path, **more: Any) -> pd.Series:
    """Macro F1 by method, task and seed."""
    frame = panelbench.run(
        dataset=name, method=list(METHODS), k=[K], seed=seeds, evaluator="rf", mirror=folder,
        results=work / "results", jobs=1, stages=("preprocess", "select", "evaluate"), **more,
    )  # fmt: skip
    for reason in sorted({str(r) for r in frame.loc[frame.status != "ok", "reason"]}):
        print(f"<!-- {name}, {more.get('constraints')}: {reason} -->", flush=True)
    return frame.set_index(["method", "task", "seed"])["f1_macro"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=["pbmc3k", "mca_gut"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    print(f"| constraint, k = {K} | data set | {' | '.join(METHODS)} |")
    print("| --- | --- |" + " ---: |" * len(METHODS))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for dataset in args.datasets:
            prices = work / f"{dataset}.csv"
            costs(args.data / f"{dataset}.h5ad", prices)
            free = scores(args.data, dataset, args.seeds, work)
            mean = free.groupby("method").mean()
            row = " | ".join(f"{mean[method]:.3f}" for method in METHODS)
            print(f"| none | {dataset} | {row} |", flush=True)
            for what, given in cases(args.data, prices).items():
                lost = scores(args.data, dataset, args.seeds, work, constraints=given) - free
                mean, n = lost.groupby("method").mean(), lost.groupby("method").count()
                row = " | ".join(
                    f"{mean[m]:+.3f}" + (f" ({n[m]} of {len(lost) // len(METHODS)})"
                                         if n[m] < len(lost) // len(METHODS) else "")
                    for m in METHODS
                )  # fmt: skip
                print(f"| {what} | {dataset} | {row} |", flush=True)


if __name__ == "__main__":
    main()
