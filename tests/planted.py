"""Classes that some genes are planted for, and the columns of a ranking's genes."""

from __future__ import annotations

import numpy as np

from panelbench.method import Selection, Target, Task


def task_of(X: np.ndarray, codes: np.ndarray, k: int = 10, seed: int = 0) -> Task:
    """A task of genes g000, g001 and so on, with one set of labels."""
    X = X.astype(np.float32)
    X.setflags(write=False)
    n = int(codes.max()) + 1
    names = tuple(f"T{i}" for i in range(n))
    return Task(
        X=X,
        genes=np.array([f"g{i:03d}" for i in range(X.shape[1])]),
        targets={"type": Target("type", "classification", codes.astype(np.int64), names)},
        k=k,
        seed=seed,
    )


def planted(shift: float = 1.0, n_cells: int = 800, n_genes: int = 500, seed: int = 0) -> Task:
    """Five classes; genes 2c and 2c + 1 are shifted in class c, the rest is noise."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(5, size=n_cells)
    X = rng.normal(size=(n_cells, n_genes))
    for c in range(5):
        X[codes == c, 2 * c : 2 * c + 2] += shift
    return task_of(X, codes)


def columns(found: Selection, k: int | None = None) -> list[int]:
    """Columns of the first k genes of a ranking."""
    return [int(gene[1:]) for gene in list(found.ranking)[:k]]
