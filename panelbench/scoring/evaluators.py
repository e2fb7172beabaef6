"""Ways to score a panel.

Most train a model on the panel's columns and predict the labels of the test cells; such an
evaluator is one function::

    fit_predict(X_train, y_train, X_test, *, kind, n_classes, seed, n_jobs, params) -> np.ndarray

``X`` are the panel's columns, array or CSR; the result is a matrix of probabilities
(n_test x n_classes, columns in the order of the class codes, zeros for classes without
training cells), or the predictions of a regression task in the shape of `y_train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from panelbench.errors import NotApplicable, UnknownName

if TYPE_CHECKING:
    from panelbench.method import Kind, Matrix


class FitPredict(Protocol):
    """Signature of an evaluator's function."""

    def __call__(
        self,
        X_train: Matrix,
        y_train: np.ndarray,
        X_test: Matrix,
        *,
        kind: Kind,
        n_classes: int,
        seed: int,
        n_jobs: int,
        params: Any,
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Evaluator:
    """A way to score a panel.

    Attributes
    ----------
    id, label
        Name in suites and records; name in tables.
    params
        Frozen dataclass of parameters, all with defaults.
    fit_predict
        The function; None where none is trained on labels.
    reads
        What it scores: the ``panel``, or what the method trained: its ``predictor``, or that
        predictor's ``reconstruction`` of all genes.
    kind
        What its metrics are about when it is not the task: ``expression`` of all genes, or a
        ``view``, which has none. The task then gives the classes to break results down by.
    libraries
        Distributions whose versions can change the result.
    """

    id: str
    label: str
    params: type
    fit_predict: FitPredict | None = None
    reads: Literal["panel", "predictor", "reconstruction"] = "panel"
    kind: Literal["", "expression", "view"] = ""
    libraries: tuple[str, ...] = ("scikit-learn",)


@dataclass(frozen=True)
class ForestParams:
    """Parameters of ``rf``: scikit-learn's defaults."""

    n_estimators: int = 100
    max_depth: int | None = None
    min_samples_leaf: int = 1


@dataclass(frozen=True)
class NeighborsParams:
    """Parameters of ``knn``: five neighbours, one vote each."""

    n_neighbors: int = 5
    weights: Literal["uniform", "distance"] = "uniform"


@dataclass(frozen=True)
class LogisticParams:
    """Parameters of ``logreg``: inverse strength of the L2 penalty, and steps at most."""

    C: float = 1.0
    max_iter: int = 1000


@dataclass(frozen=True)
class BuiltinParams:
    """Parameters of ``builtin``: the mode of the predictor, every mode in turn if not given."""

    mode: str = ""


@dataclass(frozen=True)
class LinearParams:
    """Parameters of ``reconstruct``, which has none: ordinary least squares."""


@dataclass(frozen=True)
class OwnReconstructionParams:
    """``builtin-reconstruct`` has no parameters."""


@dataclass(frozen=True)
class UmapParams:
    """Parameters of ``umap``: those of the MarkerMap paper's figure."""

    n_neighbors: int = 50
    min_dist: float = 0.1


def random_forest(
    X_train: Matrix,
    y_train: np.ndarray,
    X_test: Matrix,
    *,
    kind: Kind,
    n_classes: int,
    seed: int,
    n_jobs: int,
    params: ForestParams,
) -> np.ndarray:
    """Random forest (Breiman 2001) with scikit-learn's defaults and ``random_state=seed``.

    Parameters and result are described at the top of this module.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestClassifier if kind == "classification" else RandomForestRegressor
    model = forest(
        n_estimators=params.n_estimators,
        max_depth=params.max_depth,
        min_samples_leaf=params.min_samples_leaf,
        random_state=seed,
        n_jobs=n_jobs,
    )
    model.fit(_dense(X_train, np.float32), y_train)
    # Threads add up the trees in the order in which they finish: sums differ in the last bit
    # and ties with them. Predicting on one thread keeps the result independent of n_jobs.
    model.n_jobs = 1
    return _predict(model, _dense(X_test, np.float32), kind, n_classes)


def nearest_neighbors(
    X_train: Matrix,
    y_train: np.ndarray,
    X_test: Matrix,
    *,
    kind: Kind,
    n_classes: int,
    seed: int,
    n_jobs: int,
    params: NeighborsParams,
) -> np.ndarray:
    """Nearest neighbours in Euclidean distance on columns standardised by the training cells.

    With fewer training cells than neighbours, all of them vote. No randomness: `seed` is unused.
    Parameters and result are described at the top of this module.
    """
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    train, test = _standardised(X_train, X_test)
    neighbours = KNeighborsClassifier if kind == "classification" else KNeighborsRegressor
    model = neighbours(
        n_neighbors=min(params.n_neighbors, len(train)), weights=params.weights, n_jobs=n_jobs
    )
    return _predict(model.fit(train, y_train), test, kind, n_classes)


def logistic_regression(
    X_train: Matrix,
    y_train: np.ndarray,
    X_test: Matrix,
    *,
    kind: Kind,
    n_classes: int,
    seed: int,
    n_jobs: int,
    params: LogisticParams,
) -> np.ndarray:
    """Multinomial logistic regression on columns standardised by the training cells.

    A convex fit without randomness, on one core: `seed` and `n_jobs` are unused. Parameters and
    result are described at the top of this module.

    Raises
    ------
    NotApplicable
        For a regression task.
    """
    from sklearn.linear_model import LogisticRegression

    if kind != "classification":
        raise NotApplicable("logreg predicts classes only; use rf or knn for regression tasks")
    train, test = _standardised(X_train, X_test)
    present = np.unique(y_train)
    if len(present) == 1:
        return np.asarray(np.eye(n_classes)[np.repeat(present, len(test))])
    model = LogisticRegression(C=params.C, max_iter=params.max_iter)
    return _predict(model.fit(train, y_train), test, kind, n_classes)


def _dense(X: Matrix, dtype: type) -> np.ndarray:
    return np.asarray(X if isinstance(X, np.ndarray) else X.toarray(), dtype=dtype)


def _standardised(X_train: Matrix, X_test: Matrix) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    train = scaler.fit_transform(_dense(X_train, np.float64))
    return train, scaler.transform(_dense(X_test, np.float64))


def _predict(model: Any, X: np.ndarray, kind: Kind, n_classes: int) -> np.ndarray:
    if kind == "regression":
        return np.asarray(model.predict(X))
    # Models know the classes of the training cells only: put them where their codes belong.
    proba = np.zeros((len(X), n_classes))
    proba[:, model.classes_] = model.predict_proba(X)
    return proba


EVALUATORS: dict[str, Evaluator] = {
    evaluator.id: evaluator
    for evaluator in (
        Evaluator("rf", "RF", ForestParams, random_forest),
        Evaluator("knn", "kNN", NeighborsParams, nearest_neighbors),
        Evaluator("logreg", "logistic regression", LogisticParams, logistic_regression),
        Evaluator("builtin", "own predictor", BuiltinParams, reads="predictor"),
        Evaluator("reconstruct", "linear reconstruction", LinearParams, kind="expression"),
        Evaluator(
            "builtin-reconstruct",
            "own reconstruction",
            OwnReconstructionParams,
            reads="reconstruction",
            kind="expression",
        ),
        Evaluator(
            "umap", "UMAP", UmapParams, kind="view", libraries=("scikit-learn", "umap-learn")
        ),
    )
}


def get(id: str, where: str = "") -> Evaluator:
    """Look an evaluator up.

    Raises
    ------
    UnknownName
        With the near matches.
    """
    if id not in EVALUATORS:
        raise UnknownName("evaluator", id, EVALUATORS, where)
    return EVALUATORS[id]


def make_params(id: str, given: Mapping[str, Any]) -> Any:
    """Build an evaluator's parameters from text or YAML values.

    Raises
    ------
    ConfigError
        For an unknown evaluator or parameter, or a value that does not fit its type.
    """
    from panelbench.params import validated

    return validated(get(id).params, given, f"evaluator {id}")


def variant(id: str, params: Any) -> str:
    """Evaluator with the parameters that differ from the defaults: ``rf[n_estimators=500]``.

    Parameters
    ----------
    id
        Evaluator.
    params
        Its parameters, as its dataclass or as the mapping of a suite.
    """
    from panelbench.params import variant_name

    return variant_name(id, make_params(id, params) if isinstance(params, Mapping) else params)
