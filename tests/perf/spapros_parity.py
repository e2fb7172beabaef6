"""Clusterings and neighbours beside those of spapros, where it is installed.

    python -m tests.perf.spapros_parity

Prints for some panels of planted cells what spapros' evaluation gives and what ours does. Its
neighbour graph of k holds the cell itself, so its overlap at k is ours at k - 1; it looks at genes
and not at components where a panel has at most 50, so panels here are larger. Its Leiden draws by
another generator: partitions, and with them NMI, differ a little.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np


def planted(n_cells: int = 600, n_genes: int = 200, n_types: int = 12) -> np.ndarray:
    """Log counts of cells of some types, each with genes of its own."""
    rng = np.random.default_rng(0)
    means = rng.gamma(2.0, 0.4, n_genes) + np.zeros((n_types, 1))
    for kind in range(n_types):
        means[kind, 8 * kind : 8 * kind + 8] *= 6
    types = np.arange(n_cells) % n_types
    return np.log1p(rng.poisson(means[types])).astype(np.float32)


def main() -> None:
    """Print both sides."""
    from anndata import AnnData
    from sklearn.metrics import normalized_mutual_info_score
    from spapros.evaluation import metrics as theirs

    from panelbench.scoring.clusterings import agreement, leiden, neighbour_graph, partitions
    from panelbench.scoring.neighbours import components, overlap

    warnings.simplefilter("ignore")
    X, sizes, ns = planted(), [5, 10, 15, 20, 25, 30], [5, 60]
    cells = AnnData(X.copy())
    cells.obs_names = [f"c{i}" for i in range(len(X))]
    whole = components(X, 50, 0)
    near = theirs.knns(cells, genes="all", ks=sizes, verbosity=0)
    groups = theirs.leiden_clusterings(cells, ns, verbosity=0)
    ours = partitions(partial(leiden, neighbour_graph(whole, 15), seed=0), *ns)
    for name, genes in {
        "markers": slice(0, 80),
        "half": slice(48, 148),
        "noise": slice(96, 196),
    }.items():
        panel = cells[:, genes].copy()
        kept = theirs.knns(panel, genes="all", ks=sizes, verbosity=0)
        knn = theirs.summary_knn_AUC(theirs.mean_overlaps(kept, near, sizes, verbosity=0))
        clusters = theirs.leiden_clusterings(panel, ns, verbosity=0)
        nmis = theirs.clustering_nmis(clusters, groups, ns, verbosity=0)
        nmi = theirs.summary_nmi_AUCs(nmis, [[5, 20], [21, 60]])
        reduced = components(X[:, genes], 50, 0)
        mine = partitions(partial(leiden, neighbour_graph(reduced, 15), seed=0), *ns)
        found = [agreement(ours, mine, a, b, measure=normalized_mutual_info_score)
                 for a, b in ((5, 20), (21, 60))]  # fmt: skip
        mine_knn = overlap(whole, reduced, [k - 1 for k in sizes])
        print(f"{name:8} knn_overlap {knn:.4f} {mine_knn:.4f}   nmi_5_20 {nmi['nmi_5_20']:.4f} "
              f"{found[0]:.4f}   nmi_21_60 {nmi['nmi_21_60']:.4f} {found[1]:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
