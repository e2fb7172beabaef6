"""What random panels of CITE-seq score under different normalisations of its counts.

    python tests/perf/citeseq_normalisation.py             # 20 draws of panel and split each
    python tests/perf/citeseq_normalisation.py --draws 60 --only median 10,000

Needs the folder with the data files (``../shared/data/mirror``, or --mirror). 50 random genes, 80
percent of the cells to train on: accuracy of 5 nearest neighbours, and mean squared and absolute
error of least squares from the panel to all genes, which are standardised.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def main() -> None:
    from scipy.io import loadmat
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import KNeighborsClassifier

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", type=Path, default=Path("../shared/data/mirror"))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    counts = loadmat(args.mirror / "CITEseq.mat")["G"].T.astype(float)
    labels = loadmat(args.mirror / "CITEseq-labels.mat")["labels"].ravel()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    median = float(np.median(counts.sum(1)))
    sizes = {"100": 1e2, "1,000": 1e3, "median": median, "10,000": 1e4, "1,000,000": 1e6}
    forms = {name: np.log1p(size * share) for name, size in sizes.items()} | {
        "not normalised": np.log1p(counts),
        "10,000, square root": np.sqrt(1e4 * share),
        "10,000, no logarithm": 1e4 * share,
    }
    for name in args.only or forms:
        X = (forms[name] - forms[name].mean(0)) / forms[name].std(0, ddof=1)
        scores = []
        for draw in range(args.draws):
            rng = np.random.default_rng(draw)
            order = rng.permutation(len(X))
            train, test = np.split(order, [int(0.8 * len(X))])
            panel = rng.permutation(X.shape[1])[:50]
            seen, new = X[train][:, panel], X[test][:, panel]
            neighbours = KNeighborsClassifier().fit(seen, labels[train])
            left = X[test] - LinearRegression().fit(seen, X[train]).predict(new)
            scores.append(
                (neighbours.score(new, labels[test]), np.square(left).mean(), np.abs(left).mean())
            )
        mean, sd = np.mean(scores, 0), np.std(scores, 0, ddof=1)
        print(
            f"{name}: accuracy {mean[0]:.3f} (sd {sd[0]:.3f}), squared error {mean[1]:.3f}, "
            f"absolute {mean[2]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
