"""LassoNet: genes in the order in which a growing penalty drives them out of a network.

The network has a linear path around its hidden layers, and a gene may feed the hidden layers
only as far as its linear weights allow. The penalty on those weights grows step by step until no
gene is left; the longer a gene stays, the better it is.

The training is the library ``lassonet`` of the paper's authors (Lemhadri et al. 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.nn import Widths, seeded
from panelbench.ranking import gene_variances

if TYPE_CHECKING:
    from lassonet.model import LassoNet  # type: ignore[import-untyped]

_LR = 1e-3
"""Learning rate of both optimizers of the library: Adam for the dense network, then SGD."""


@dataclass(frozen=True)
class Params:
    """Parameters of LassoNet, with the library's defaults.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    hierarchy
        M: a gene's weights into the hidden layers are at most M times its linear weights.
    lambda_start
        First penalty of the path; None estimates it from the trained network.
    path_multiplier
        Each penalty is this multiple of the one before.
    batch_size
        Cells per step; None takes all cells at once.
    dense_epochs, path_epochs
        Most epochs of the network without penalty, and of each step of the path.
    dense_patience, path_patience
        Epochs without improvement on the validation cells that end a training early.
    tol
        An improvement is an objective below this share of the best so far.
    validation_size
        Share of the cells for early stopping, where the split sets none aside.
    """

    hidden: Widths = (100,)
    hierarchy: Annotated[float, Gt(0)] = 10.0
    lambda_start: Annotated[float, Gt(0)] | None = None
    path_multiplier: Annotated[float, Gt(1)] = 1.02
    batch_size: Annotated[int, Ge(1)] | None = None
    dense_epochs: Annotated[int, Ge(1)] = 1000
    path_epochs: Annotated[int, Ge(1)] = 100
    dense_patience: Annotated[int, Ge(1)] = 100
    path_patience: Annotated[int, Ge(1)] = 10
    tol: Annotated[float, Gt(0), Le(1)] = 0.99
    validation_size: Annotated[float, Gt(0), Lt(1)] = 0.1


@method(
    "lassonet",
    params=Params,
    label="LassoNet",
    supervised=True,
    needs="prepared",
    gpu="optional",
    libraries=("lassonet", "torch"),
    cite="Lemhadri et al. 2021",
    doi="10.48550/arXiv.1907.12207",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by the penalty at which they leave a sparse network (Lemhadri et al. 2021).

    Genes that leave at the same penalty are ordered by the norm of their linear weights one step
    earlier, then by position; genes without variance come last. `Selection.scores` are the
    penalties. ``info["path"]`` holds, per step, the penalty, the genes left, the epochs and the
    validation loss.

    Raises
    ------
    NotApplicable
        When the cells to train on have one class.
    """
    import torch
    from lassonet import LassoNetClassifier  # type: ignore[import-untyped]

    X = task.dense()
    train, validation, codes = _parts(task, params)
    alive = np.ones(task.n_genes, dtype=bool)
    norms = np.zeros(task.n_genes)

    def watch(estimator: Any, history: list[Any]) -> None:
        kept = estimator.model.skip.weight.detach().norm(dim=0).cpu().numpy()
        np.logical_and(alive, kept > 0, out=alive)
        norms[alive] = kept[alive]
        task.progress(1 - alive.mean(), f"{alive.sum()} genes left")

    def penalties() -> Iterator[float]:
        # Drawn from only after the dense network is trained.
        value = params.lambda_start
        if value is None:
            value = lambda_start(estimator.model, params.hierarchy) / _LR / 10
        while True:
            yield value
            value *= params.path_multiplier

    # The library draws weights and batches from torch's global generator, always on the CPU.
    with seeded(task.int_seed("network")):
        estimator = LassoNetClassifier(
            hidden_dims=params.hidden,
            M=params.hierarchy,
            batch_size=params.batch_size,
            n_iters=(params.dense_epochs, params.path_epochs),
            patience=(params.dense_patience, params.path_patience),
            tol=params.tol,
            device=torch.device(task.device),
            verbose=0,
        )
        history = estimator.path(
            X[train],
            codes[train],
            X_val=X[validation],
            y_val=codes[validation],
            lambda_seq=penalties(),
            callback=watch,
            disable_lambda_warning=True,
        )

    left_at = estimator.feature_importances_.numpy().astype(np.float64)
    order = np.lexsort((-norms, -left_at, gene_variances(task.X) == 0))
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=np.nan_to_num(left_at[order]),
        info={
            "path": {
                "lambda": [step.lambda_ for step in history],
                "genes": [int(step.selected.sum()) for step in history],
                "epochs": [step.n_iters for step in history],
                "validation_loss": [step.val_loss for step in history],
            }
        },
    )


def lambda_start(model: LassoNet, hierarchy: float) -> float:
    """Penalty, in units of the learning rate, below which the path need not begin.

    The largest of 1e-6 times a power of 2 under which no gene vanishes when the shrinkage alone
    is repeated. The library looks for it from below, where every trial takes thousands of
    repetitions (on 6,000 cells of 500 genes they took a third of the whole run); larger
    penalties converge fast and vanish genes more, so looking from above finds the same.

    Parameters
    ----------
    model
        The trained network of the library.
    hierarchy
        The parameter M.
    """
    import torch
    from lassonet.prox import prox  # type: ignore[import-untyped]

    def vanishes(penalty: float) -> bool:
        skip, first = model.skip.weight.data, model.layers[0].weight.data
        for _ in range(10_000):
            before = skip
            skip, first = prox(before, first, lambda_=penalty, lambda_bar=0, M=hierarchy)
            if (before - skip).abs().max() < 1e-5:
                skip = before
                break
        return bool((skip.norm(dim=0) == 0).any())

    with torch.no_grad():
        start = 2.0**20 * 1e-6
        while not vanishes(start):
            start *= 2
        while start > 1e-6 and vanishes(start):
            start /= 2
    return start


def _parts(task: Task, params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, rows to stop early by, and for all rows the class among the former's.

    Validation cells of a class that is not trained on are left out, and without validation cells
    the training cells stand in.
    """
    from sklearn.model_selection import train_test_split

    held_out = task.validation
    if held_out is None or not held_out.any() or held_out.all():
        _, rows = train_test_split(
            np.arange(task.n_cells),
            test_size=params.validation_size,
            random_state=task.int_seed("validation"),
        )
        held_out = np.isin(np.arange(task.n_cells), rows)
    train = np.flatnonzero(~held_out)
    values = task.target.values
    classes = np.unique(values[train])
    if len(classes) < 2:
        raise NotApplicable(f"task {task.target.name}: all cells to train on have the same class")
    validation = np.flatnonzero(held_out & np.isin(values, classes))
    return train, validation if len(validation) else train, np.searchsorted(classes, values)
