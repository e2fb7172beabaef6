"""NS-Forest: for each class the fewest genes whose thresholds together tell it from the rest.

Aevermann et al. 2021, in the form of version 4, checked against the package nsforest 4.1. That is
not imported: it needs plotly, trains on all cores and cannot be seeded.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Task, method
from panelbench.ranking import class_means, gene_variances


@dataclass(frozen=True)
class Params:
    """Parameters, with the package's defaults.

    Attributes
    ----------
    average
        What a class has of a gene; medians of sparse data are mostly zero, and classes where all
        are bring no markers.
    threshold
        Genes enter the forest of a class whose binary score is above the mean of all by this many
        standard deviations.
    n_estimators
        Trees of the forest of a class.
    n_top, n_eval
        Genes that are taken by importance, and of these by binary score.
    beta
        Weight of recall against precision.
    """

    average: Literal["median", "mean"] = "median"
    threshold: Annotated[float, Ge(0)] = 2.0
    n_estimators: Annotated[int, Ge(1)] = 1000
    n_top: Annotated[int, Ge(1)] = 15
    n_eval: Annotated[int, Ge(1)] = 6
    beta: Annotated[float, Gt(0)] = 0.5


class Markers(NamedTuple):
    """Of one class: its combination, the other genes that were looked at, and its F score."""

    chosen: list[int]
    others: list[int]
    f_beta: float


@method(
    "ns-forest",
    params=Params,
    label="NS-Forest",
    supervised=True,
    needs="lognorm",
    libraries=("scikit-learn",),
    cite="Aevermann et al. 2021",
    doi="10.1101/gr.275569.121",
)
def select(task: Task, params: Params) -> Selection:
    """Genes by NS-Forest's combinations of markers for each class (Aevermann et al. 2021).

    NS-Forest gives each class a combination of at most `n_eval` genes and no ranking. Here the
    combinations come first, a round of one gene per class at a time, classes by their F score;
    then in rounds the other genes that were looked at; then all others by their best binary score.

    Raises
    ------
    NotApplicable
        With training cells of one class only.
    """
    X, codes = task.dense(), task.target.values
    present = np.unique(codes)
    if len(present) < 2:
        raise NotApplicable(f"task {task.target.name}: all training cells have the same class")
    averages = class_averages(X, codes, present, params.average)
    binary = binary_scores(averages)
    bar = threshold(binary, averages, params.threshold)
    found = {}
    for row, code in enumerate(present.tolist()):
        seed = task.int_seed(f"class {code}")
        found[code] = markers(X, codes == code, averages[row], binary[row], bar, params, seed,
                              task.n_jobs)  # fmt: skip
        task.progress((row + 1) / len(present), task.target.classes[code])
    order = sorted(found, key=lambda code: (-found[code].f_beta, code))
    rounds = [_rounds([found[code].chosen for code in order]),
              _rounds([found[code].others for code in order])]  # fmt: skip
    best, variances = binary.max(axis=0), gene_variances(task.X)
    rest = np.lexsort((-variances, -best, variances == 0)).tolist()
    ranking = list(dict.fromkeys([*rounds[0], *rounds[1], *rest]))
    names = task.target.classes
    return Selection(
        ranking=task.genes[ranking].tolist(),
        info={
            "markers": {names[code]: task.genes[found[code].chosen].tolist() for code in order},
            "f_beta": {names[code]: found[code].f_beta for code in order},
        },
    )


def class_averages(X: np.ndarray, codes: np.ndarray, present: np.ndarray, kind: str) -> np.ndarray:
    """Median or mean of each gene in each class; float64, classes x genes."""
    if kind == "mean":
        return np.asarray(class_means(X, codes, int(present.max()) + 1)[present])
    return np.stack([np.median(X[codes == code], axis=0) for code in present]).astype(np.float64)


def binary_scores(averages: np.ndarray) -> np.ndarray:
    """How much each class has a gene for itself.

    b_gc = sum over other classes d of max(0, 1 - m_gd / m_gc) / (C - 1), 0 where m_gc is 0.

    Parameters
    ----------
    averages
        m, classes x genes.

    Returns
    -------
    float64 from 0 to 1, classes x genes.
    """
    found = np.zeros_like(averages)
    for row, mine in enumerate(averages):
        safe = np.where(mine > 0, mine, 1.0)
        found[row] = np.maximum(0, 1 - averages / safe).sum(axis=0) / (len(averages) - 1)
    return np.where(averages > 0, found, 0.0)


def threshold(binary: np.ndarray, averages: np.ndarray, deviations: float) -> float:
    """Mean of binary scores and some sample deviations above, over genes that any class has."""
    values = binary[:, averages.sum(axis=0) > 0]
    return float(values.mean() + deviations * values.std(ddof=1)) if values.size > 1 else 0.0


def markers(
    X: np.ndarray, inside: np.ndarray, averages: np.ndarray, binary: np.ndarray, bar: float,
    params: Params, seed: int, n_jobs: int = 1,
) -> Markers:  # fmt: skip
    """The combination of one class.

    A forest of the class against the rest ranks genes whose binary score reaches the bar; of its
    best, those with an average above 0 are sorted by binary score, and of the first every
    combination is tried as: a cell is of the class if each gene is above its own best threshold.

    Parameters
    ----------
    X
        Cells x genes.
    inside
        Which cells are of the class.
    averages, binary
        Of the class, shape (n_genes,).
    bar
        Least binary score.
    params
        The method's parameters.
    seed, n_jobs
        Of the forest.
    """
    from sklearn.ensemble import RandomForestClassifier

    genes = np.flatnonzero((binary >= bar) & (averages > 0))
    if not len(genes):
        return Markers([], [], 0.0)
    forest = RandomForestClassifier(params.n_estimators, random_state=seed, n_jobs=n_jobs)
    importance = forest.fit(X[:, genes], inside).feature_importances_
    top = genes[np.argsort(-importance, kind="stable")[: params.n_top]]
    top = top[np.argsort(-binary[top], kind="stable")]
    above = {gene: _above_threshold(X[:, gene], inside) for gene in top[: params.n_eval].tolist()}
    chosen, best = [], -1.0
    for size in range(1, len(above) + 1):
        for tried in itertools.combinations(above, size):
            score = f_beta(inside, np.logical_and.reduce([above[gene] for gene in tried]),
                           params.beta)  # fmt: skip
            if score > best:
                chosen, best = list(tried), score
    return Markers(chosen, [gene for gene in top.tolist() if gene not in chosen], best)


def _above_threshold(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Which cells are above the best split of one gene; none where there is no split."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=2, random_state=0).fit(values[:, None], inside)
    return np.asarray(tree.apply(values[:, None]) == 2)


def f_beta(truth: np.ndarray, guess: np.ndarray, beta: float) -> float:
    """F score of a prediction of one class; 0 where nothing is right."""
    right = float((truth & guess).sum())
    wrong, missed = float((guess & ~truth).sum()), float((truth & ~guess).sum())
    weight = beta**2
    return (1 + weight) * right / max((1 + weight) * right + weight * missed + wrong, 1e-300)


def _rounds(lists: list[list[int]]) -> list[int]:
    """One gene of each list at a time."""
    rounds = itertools.zip_longest(*lists)
    return [gene for part in rounds for gene in part if gene is not None]
