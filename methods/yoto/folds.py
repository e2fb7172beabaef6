"""Folds of the training cells: each network is judged on cells that it has not seen."""

from __future__ import annotations

import numpy as np

from .data import Labels


def assign_folds(
    labels: list[Labels], groups: np.ndarray | None, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Fold of each cell, int64: classes of the finest task spread evenly, groups kept whole."""
    n_cells = len(labels[0].values)
    order = rng.permutation(n_cells)
    if groups is not None and len(np.unique(groups)) > 1:
        _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        count = min(count, len(sizes))
        place, filled = np.zeros(len(sizes), np.int64), np.zeros(count)
        for group in np.argsort(-sizes, kind="stable"):
            place[group] = filled.argmin()
            filled[place[group]] += sizes[group]
        return place[member]
    finest = max(labels, key=lambda item: len(item.target.classes))
    if finest.target.kind == "classification":
        codes = finest.values.cpu().numpy()[order]
        order = order[np.argsort(codes, kind="stable")]
    fold = np.empty(n_cells, np.int64)
    fold[order] = np.arange(n_cells) % count
    return fold
