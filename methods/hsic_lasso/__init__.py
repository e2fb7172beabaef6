"""Block HSIC Lasso: genes whose kernels add up to the kernel of the labels.

The cells are shuffled and cut into small blocks; a gene is described by its Gram matrix in each
block, and a non-negative lasso picks genes that together explain the Gram matrices of the labels
and do not repeat each other (Yamada et al. 2014; Climente-González et al. 2019).

The result is pyHSICLasso's. Three facts make it small and fast: a centred symmetric B x B block
has B(B-1)/2 coordinates and not B²; the path needs Gram columns of the genes on it and no others;
and the kernels are so cheap to make that none is kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Target, Task, method
from panelbench.ranking import gene_variances, score_order

from .gram import BlockKernels, GramColumns
from .kernels import delta_coordinates, gaussian_coordinates, shuffles
from .lars import nonnegative_path


@dataclass(frozen=True)
class Params:
    """Parameters of Block HSIC Lasso.

    Attributes
    ----------
    block_size
        Cells per block (B).
    permutations
        Shuffles of the cells (M).
    path_genes
        Genes that the path is followed to before the panel, those of largest coefficient, is cut
        off; 0 (or fewer than k) means k.
    backend
        ``"panelbench"``, or ``"library"`` to run pyHSICLasso itself.
    """

    block_size: Annotated[int, Ge(2)] = 5
    permutations: Annotated[int, Ge(1)] = 3
    path_genes: Annotated[int, Ge(0)] = 0
    backend: Literal["panelbench", "library"] = "panelbench"


# Not nested: genes leave the path again, so the set for one k need not hold the set for a
# smaller one.
@method(
    "hsic-lasso",
    params=Params,
    label="Block HSIC Lasso",
    supervised=True,
    regression=True,
    nested=False,
    needs="prepared",
    memory_gb=12.0,
    libraries=("numpy", "scipy", "pyHSICLasso"),
    cite="Climente-González et al. 2019",
    doi="10.1093/bioinformatics/btz333",
)
def select(task: Task, params: Params) -> Selection:
    """Rank the genes on a non-negative lasso path over block kernels by their coefficients.

    The path ends when gene k + 1 (or `path_genes` + 1) would enter. When it ends before k genes
    are on it, the panel is filled with the genes most dependent on the labels (largest HSIC), and
    the record says so.

    `Selection.scores` are the coefficients, 0 for a gene that fills. ``info["path_order"]`` are
    the genes in order of entry with ``info["path_levels"]``, the lambda of their entry, and
    ``info["left_path"]`` those that left again.

    Raises
    ------
    NotApplicable
        When there are fewer cells than a block holds, or several outputs to predict.
    """
    from threadpoolctl import threadpool_limits

    _check(task, params)
    task = replace(task, k=min(max(task.k, params.path_genes), task.n_genes))
    if params.backend == "library":
        from .library import select_with_library

        return select_with_library(task, params.block_size, params.permutations)

    variances = gene_variances(task.X)
    blocks = shuffles(task.n_cells, params.block_size, params.permutations)
    kernels = BlockKernels(task.X, np.sqrt(variances), blocks, task.n_jobs)
    columns = GramColumns(kernels, batch=min(128, 2 * task.k))
    # The threads share out the sweeps, and none would be gained on the small matrices between.
    with threadpool_limits(1, "blas"):
        dependence = kernels.with_output(_output_coordinates(task.target, blocks))
        path = nonnegative_path(
            dependence,
            columns,
            task.k,
            lambda n: task.progress(n / task.k, f"{n} of {task.k} genes on the path"),
        )
    by_weight = np.argsort(-path.beta, kind="stable")
    chosen = np.array(path.active, dtype=np.int64)[by_weight]
    others = score_order(dependence, variances)
    filling = others[~np.isin(others, chosen)][: task.k - len(chosen)]
    if len(filling):
        warnings.warn(
            f"the path ended with {len(chosen)} genes; {len(filling)} most dependent on "
            f"{task.target.name!r} fill the panel",
            stacklevel=2,
        )
    return Selection(
        ranking=task.genes[np.concatenate([chosen, filling])].tolist(),
        scores=np.concatenate([path.beta[by_weight], np.zeros(len(filling))]),
        info={
            "path_order": task.genes[path.entries].tolist(),
            "path_levels": [float(level) for level in path.levels],
            "left_path": task.genes[path.left].tolist(),
            "filled": len(filling),
            "sweeps": columns.sweeps,
        },
    )


def _check(task: Task, params: Params) -> None:
    if task.n_cells < params.block_size:
        raise NotApplicable(
            f"hsic-lasso: {task.n_cells} training cells do not fill a block of "
            f"{params.block_size}; choose a smaller block_size"
        )
    if task.target.values.squeeze().ndim > 1:
        raise NotApplicable(
            f"hsic-lasso: task {task.target.name!r} has {task.target.values.shape[1]} outputs; "
            "it handles one"
        )


def _output_coordinates(target: Target, blocks: np.ndarray) -> np.ndarray:
    """Coordinates of the output's kernels: delta for classes, Gaussian for numbers."""
    if target.kind == "classification":
        return delta_coordinates(target.values[blocks])
    values = target.values.reshape(-1)
    spread = values.std()
    scaled = (values / (spread if spread > 0 else 1)).astype(np.float32)
    return gaussian_coordinates(scaled[blocks][:, :, None])
