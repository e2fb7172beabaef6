"""Genes that are not on a panel, predicted from it: an evaluator of panels.

What is compared are ways to train one network, with none, some or all of the other genes as
further targets, and the two baselines without which none of them says much.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.errors import InputError, NotApplicable
from panelbench.evaluator import Cells, Evaluation, Metric, Scores, evaluator
from panelbench.nn import Widths

from . import params as training
from .baselines import fit_mean, fit_ridge
from .cells import Problem
from .correlations import gene_correlations, mean_correlation
from .estimator import Fitted, fit
from .ordering import assign_roles

Baseline = Literal["ridge", "mean"]


@dataclass(frozen=True)
class Params(training.Params):
    """Which genes are imputed, how the predictor is trained, and what a network's training takes.

    Attributes
    ----------
    strategy
        The auxiliary genes that count in the training of a network, as in `training.Params`, or a
        baseline: ``"ridge"`` regression, or the ``"mean"`` of the training cells.
    n_primary
        Genes to impute: the most variable ones that are not on the panel; half of what can be
        chosen where that is fewer.
    validation
        Share of the training cells that end the training, move the cut and choose the penalty.
    """

    strategy: training.Strategy | Baseline = "agl"  # type: ignore[assignment]
    n_primary: Annotated[int, Ge(1), Le(1000)] = 50
    validation: Annotated[float, Gt(0), Le(0.5)] = 0.2
    hidden: Widths = (128, 64)
    epochs: Annotated[int, Ge(1)] = 200
    min_cells: Annotated[int, Ge(1)] = 10

    def __post_init__(self) -> None:
        if self.images != "none":
            raise ValueError("images: genes are imputed from a panel, not from images")
        super().__post_init__()

    def network(self, **changes: Any) -> training.Params:
        """Parameters of the training of a network."""
        names = [item.name for item in fields(training.Params)]
        return training.Params(**{name: getattr(self, name) for name in names} | changes)


@evaluator(
    "imputation",
    label="imputation",
    params=Params,
    kind="imputation",
    metrics=(
        Metric("imputed_pearson", "Pearson r, imputed genes", "imputation", True, False, -1.0),
        Metric("imputed_spearman", "Spearman r, imputed genes", "imputation", True, False, -1.0),
        Metric("imputed_mse", "MSE, imputed genes", "imputation", False, False, high=np.inf),
        Metric("imputed_gain", "Pearson r minus primary only", "imputation", True, False, -2, 2),
    ),
    libraries=("torch", "pandas", "scipy"),
    cite="Shiku et al. 2026",
)
def score(given: Evaluation, params: Params) -> Scores:
    """Predict the most variable genes that are not on the panel, from the panel's.

    Which genes these are, and the order of the others, is decided on training cells, so panels are
    scored on genes that differ a little; strategies on one panel are scored on the same.
    Correlations are taken gene by gene within the groups of cells that the data set has, and
    averaged over genes, then over groups. The error is of values standardised by the training
    cells: predicting their mean has about 1, and no correlation. ``imputed_gain`` is the
    difference to the same network, from the same seed, trained on the imputed genes alone.
    """
    problem, expression = _problem(given, params)
    predictor, fitted = _fitted(given, problem, params)
    inputs, truth = (given.test.dense(names, "lognorm") for names in (given.panel, problem.primary))
    predicted = predictor.predict(inputs)
    metrics = _measured(predicted, truth, expression, given.test)
    correlations = gene_correlations(predicted, truth, given.test.groups)
    if "imputed_pearson" in metrics and params.strategy != "none":
        alone = fit(problem, params.network(strategy="none", n_auxiliary=None), given.rng)
        other = mean_correlation(alone.predictor.predict(inputs), truth, given.test.groups)
        if np.isfinite(other):
            metrics["imputed_gain"] = metrics["imputed_pearson"] - other
    return Scores(
        metrics=metrics,
        notes=_notes(correlations, fitted, params),
        arrays={
            "primary": np.array(problem.primary),
            "pearson": correlations,
            **({} if fitted is None else _trace(fitted)),
        },
    )


def _problem(given: Evaluation, params: Params) -> tuple[Problem, np.ndarray]:
    """The training cells, some of them for validation, and the imputed genes' expression there.

    Raises
    ------
    NotApplicable
        When there are too few cells, or too few genes beside the panel's.
    """
    genes, expression = given.train.genes, given.train.dense(needs="lognorm")
    n_cells = len(expression)
    held = given.rng("imputation validation").permutation(n_cells)
    validation = np.zeros(n_cells, dtype=bool)
    validation[held[: round(params.validation * n_cells)]] = True
    if not validation.any() or validation.all():
        raise NotApplicable(f"imputation: {n_cells} training cells leave none for validation")
    rest = ~np.isin(genes, given.panel)
    often = np.count_nonzero(expression[~validation], axis=0) >= params.min_cells
    n_primary = min(params.n_primary, int((rest & often).sum()) // 2)
    if n_primary < 1:
        raise NotApplicable(
            f"imputation: of {len(genes)} genes, {int((rest & often).sum())} are not on the panel "
            f"and expressed in {params.min_cells} training cells; it needs two"
        )
    roles = assign_roles(
        expression[~validation],
        genes,
        n_primary,
        exclude=given.panel,
        min_cells=params.min_cells,
    )
    problem = Problem(
        given.train.dense(given.panel, "lognorm"),
        expression,
        genes,
        validation,
        given.train.groups,
        primary=tuple(genes[roles.primary].tolist()),
        exclude=given.panel,
    )
    return problem, expression[:, roles.primary]


def _fitted(given: Evaluation, problem: Problem, params: Params) -> tuple[Any, Fitted | None]:
    """The predictor of the primary genes, and the training of a network if it is one."""
    if params.strategy in ("ridge", "mean"):
        column = {gene: i for i, gene in enumerate(problem.genes.tolist())}
        truth = problem.expression[:, [column[gene] for gene in problem.primary]]
        if params.strategy == "mean":
            known = ~problem.validation
            return fit_mean(problem.inputs[known], truth[known], problem.primary), None
        arguments = (problem.primary, problem.validation, problem.groups)
        return fit_ridge(problem.inputs, truth, *arguments), None
    try:
        fitted = fit(problem, params.network(), given.rng, progress=given.progress)
    except InputError as error:
        raise NotApplicable(str(error)) from None
    return fitted.predictor, fitted


def _measured(
    predicted: np.ndarray, truth: np.ndarray, training: np.ndarray, test: Cells
) -> dict[str, float]:
    """All metrics that are defined; `training` is the truth of the training cells."""
    spread = training.std(axis=0, dtype=np.float64)
    error = (predicted - truth) / np.where(spread > 0, spread, 1.0)
    found = {
        "imputed_pearson": mean_correlation(predicted, truth, test.groups),
        "imputed_spearman": mean_correlation(
            _ranks(predicted, test.groups), _ranks(truth, test.groups), test.groups
        ),
        "imputed_mse": float(np.square(error).mean()),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _ranks(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Ranks of each gene's values within each group of cells, ties sharing theirs."""
    from scipy.stats import rankdata

    result = np.empty(values.shape)
    parts = np.zeros(len(values)) if groups is None else groups
    for name in np.unique(parts):
        result[parts == name] = rankdata(values[parts == name], axis=0)
    return result


def _notes(correlations: np.ndarray, fitted: Fitted | None, params: Params) -> list[str]:
    n_primary = correlations.shape[1]
    notes = [f"{n_primary} genes imputed"]
    if n_primary < params.n_primary:
        notes.append(f"fewer than the {params.n_primary} asked for: half of what can be chosen")
    if missing := int(np.isnan(correlations).all(axis=0).sum()):
        notes.append(f"{missing} of them without a correlation: truth or prediction is constant")
    if fitted is not None:
        notes.append(
            f"{fitted.k} of {len(fitted.auxiliary)} auxiliary genes count at least half "
            f"({fitted.last_k} after the last epoch); the best of {len(fitted.trace)} epochs is "
            f"{fitted.best_epoch}"
        )
        if fitted.saturated:
            notes.append("the cut stood at its bound")
    return notes


def _trace(fitted: Fitted) -> dict[str, np.ndarray]:
    """Auxiliary genes kept, and the validation correlation, after each epoch; the chosen k."""
    return {
        "k": np.array(fitted.k),
        "trace_k": np.array([entry["k"] for entry in fitted.trace]),
        "trace_validation": np.array([entry["validation"] for entry in fitted.trace]),
    }
