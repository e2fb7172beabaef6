"""scGIST: a network whose first layer weighs genes, most of them towards zero (the library)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from panelbench.environments import call
from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import gene_variances, score_order

from .environment import ENVIRONMENT


@dataclass(frozen=True)
class Params:
    """Parameters, with the library's defaults.

    Attributes
    ----------
    epochs
        Passes over the training cells.
    alpha
        Weight of the penalty on panels of another size.
    strict
        Whether smaller panels are penalised as larger ones are.
    validation
        Share of the cells that is only watched.
    """

    epochs: Annotated[int, Ge(1)] = 200
    alpha: Annotated[float, Ge(0)] = 0.5
    strict: bool = True
    validation: Annotated[float, Gt(0), Lt(1)] = 0.2


@method(
    "scgist",
    params=Params,
    label="scGIST",
    supervised=True,
    nested=False,
    needs="lognorm",
    environment=ENVIRONMENT,
    cite="Yafi et al. 2024",
    doi="10.1186/s13059-024-03185-y",
)
def select(task: Task, params: Params) -> Selection:
    """Rank genes by the size of their weights in a network trained on the classes (scGIST).

    A weight per gene stands before two hidden layers; a penalty draws each to 0 or 1 and their sum
    to k (Yafi et al. 2024, Genome Biology). The library (2.0.1, MIT licence) trains it in an
    environment of its own, on one thread, from the seed of the run; its split of the cells is the
    same for every seed. Priorities and pairs of genes are not used. Classes with fewer than two
    cells are left out.

    Raises
    ------
    NotApplicable
        With fewer than two classes, or too few cells to watch one of each.
    """
    codes = np.asarray(task.target.values)
    sizes = np.bincount(codes, minlength=len(task.target.classes))
    kept = np.flatnonzero(sizes[codes] >= 2)
    classes, own = np.unique(codes[kept], return_inverse=True)
    if len(classes) < 2:
        raise NotApplicable("scgist: fewer than two classes have two cells")
    if len(kept) * min(params.validation, 1 - params.validation) < len(classes):
        raise NotApplicable(f"scgist: {len(kept)} cells are too few for {len(classes)} classes")
    found = call(
        task,
        Path(__file__).with_name("inside.py"),
        {
            "X": task.X[kept],
            "codes": own,
            "k": task.k,
            "seed": task.int_seed("network"),
            **vars(params),
        },
    )
    weights = found["weights"]
    order = score_order(weights, gene_variances(task.X))
    return Selection(
        ranking=task.genes[order].tolist(),
        scores=weights[order],
        info={"loss": found["loss"], "kept": int((weights > 0.5).sum())},
    )
