"""A picture of the test cells by the panel's genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Scores, evaluator
from panelbench.scoring import embeddings


@dataclass(frozen=True)
class Params:
    """Those of the MarkerMap paper's figure."""

    n_neighbors: Annotated[int, Ge(2)] = 50
    min_dist: Annotated[float, Ge(0)] = 0.1


@evaluator(
    "umap",
    label="UMAP",
    params=Params,
    kind="view",
    libraries=("scikit-learn", "umap-learn"),
    cite="McInnes, Healy & Melville 2018",
)
def score(given: Evaluation, params: Params) -> Scores:
    """Lay the test cells out in the plane by the panel's genes, for pictures of classes."""
    if given.kind != "classification":
        raise NotApplicable("a picture of classes needs a classification task")
    coordinates = embeddings.umap(
        given.test.dense(given.panel),
        n_neighbors=params.n_neighbors,
        min_dist=params.min_dist,
        seed=given.seed,
    )
    return Scores(arrays={"umap": coordinates, "codes": given.test.target.values})
