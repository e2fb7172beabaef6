"""MarkerMap and two sampling autoencoders: genes chosen by the network that has to do with them.

A selector lets the encoder see a relaxed choice of k genes, a new one for every batch (`subset`,
`selector`); a classifier, a decoder or both train it (`model`, `training`). MarkerMap's selector
is a network that looks at the cells; the global Gumbel VAE has one free logit per gene, the
concrete VAE k rows of them. What remains is a panel and a predictor that reads nothing else
(`predictor`).

Source: Gregory et al. 2024, npj Systems Biology and Applications 10:17. Where the paper and its
published code differ, the preset ``paper`` follows the code, which made the paper's numbers.
"""

from __future__ import annotations

from typing import Any

from panelbench.method import Selection, Task, method

from .params import (
    PRESETS,
    ConcreteParams,
    JointParams,
    MarkerMapParams,
    Params,
    SupervisedParams,
    Variant,
    settings,
)
from .predictor import MarkerMapPredictor, cut_down

__all__ = [
    "PRESETS",
    "ConcreteParams",
    "JointParams",
    "MarkerMapParams",
    "MarkerMapPredictor",
    "Params",
    "SupervisedParams",
    "select_concrete",
    "select_gumbel",
    "select_joint",
    "select_supervised",
    "select_unsupervised",
    "settings",
]

_DECLARED: dict[str, Any] = {
    "predictor": MarkerMapPredictor,
    "nested": False,
    "needs": "prepared",
    "gpu": "optional",
    "libraries": ("torch",),
    "cite": "Gregory et al. 2024",
    "doi": "10.1038/s41540-024-00339-3",
}


def _select(task: Task, variant: Variant, params: Params) -> Selection:
    from .training import train

    chosen = settings(variant, params, task.n_genes)
    trained = train(task, chosen)
    ranking = task.genes[trained.genes].tolist()
    supervised = chosen.tradeoff < 1
    return Selection(
        ranking=ranking,
        scores=trained.scores,
        predictor=cut_down(
            trained.model,
            trained.weight,
            ranking[: task.k],
            task=task.target.name if supervised else "",
            seed=task.int_seed("markermap sample") if chosen.sample else None,
        ),
        info={
            "preset": params.preset,
            "lr": trained.lr,
            "epochs": len(trained.curves["temperature"]),
            "stopped": trained.stopped,
            "temperature": trained.temperature,
            "curves": trained.curves,
        },
    )


@method(
    "markermap",
    params=SupervisedParams,
    label="MarkerMap",
    supervised=True,
    end_to_end=True,
    **_DECLARED,
)
def select_supervised(task: Task, params: SupervisedParams) -> Selection:
    """Panel and classifier by MarkerMap, from labels alone (Gregory et al. 2024).

    `Selection.scores` are the final running logits. ``info`` holds the learning rate, the epochs
    and why they ended, the last temperature, and per epoch in ``info["curves"]``: losses,
    temperature, and the share of the panel that changed.

    Raises
    ------
    NotApplicable
        When there are too few cells.
    ValueError
        When the training loss is no longer finite.
    """
    return _select(task, "markermap", params)


@method(
    "markermap-joint",
    params=JointParams,
    label="MarkerMap (joint)",
    supervised=True,
    end_to_end=True,
    reconstructs=True,
    **_DECLARED,
)
def select_joint(task: Task, params: JointParams) -> Selection:
    """Panel, classifier and reconstruction by MarkerMap, from labels and expression.

    See `select_supervised` for what is returned.
    """
    return _select(task, "markermap-joint", params)


@method(
    "markermap-unsup",
    params=MarkerMapParams,
    label="MarkerMap (unsupervised)",
    reconstructs=True,
    **_DECLARED,
)
def select_unsupervised(task: Task, params: MarkerMapParams) -> Selection:
    """Panel and reconstruction by MarkerMap, without labels.

    See `select_supervised` for what is returned.
    """
    return _select(task, "markermap-unsup", params)


@method(
    "concrete-vae",
    params=ConcreteParams,
    label="Concrete VAE",
    reconstructs=True,
    **_DECLARED | {"cite": "Abid et al. 2019", "doi": "10.48550/arXiv.1901.09346"},
)
def select_concrete(task: Task, params: ConcreteParams) -> Selection:
    """Panel and reconstruction by k relaxed choices that know nothing of each other.

    `Selection.scores` are column sums of the choices: see `selector.Concrete`.
    """
    return _select(task, "concrete-vae", params)


@method("gumbel-vae", params=Params, label="Global-Gumbel VAE", reconstructs=True, **_DECLARED)
def select_gumbel(task: Task, params: Params) -> Selection:
    """Panel and reconstruction by one learned logit per gene under the relaxed top-k.

    See `select_supervised` for what is returned.
    """
    return _select(task, "gumbel-vae", params)
