"""How well a method's predictor gives the primary outputs of an expression task."""

from __future__ import annotations

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.evaluator import Evaluation, Metric, Scores, evaluator
from panelbench.method import NoParams
from panelbench.scoring.expression import (
    adjusted_correlations,
    correlations,
    depth_slopes,
    mean_correlation,
    ranks,
    standard_errors,
)


@evaluator(
    "expression",
    label="primary genes",
    reads="predictor",
    takes=("expression",),
    kind="outputs",
    metrics=(
        Metric("outputs_pearson", "Pearson r", "outputs", True, False, -1.0),
        Metric("outputs_spearman", "Spearman r", "outputs", True, False, -1.0),
        Metric("outputs_pearson_depth", "Pearson r, depth out", "outputs", True, False, -1.0),
        Metric("outputs_mse", "MSE, standardised", "outputs", False, False, high=np.inf),
        Metric("outputs_mae", "MAE, standardised", "outputs", False, False, high=np.inf),
    ),
    libraries=("scipy",),
)
def score(given: Evaluation, params: NoParams) -> Scores:
    """Predict the primary outputs of the test cells; correlation by output, and error.

    Correlations are taken within slides, donors or batches, averaged over outputs and then over
    groups; errors are in units of an output's spread over the training cells. How sequencing depth
    is taken out is said in `panelbench.scoring.expression`; it needs counts.
    """
    if given.kind != "expression":
        raise NotApplicable("scores expression targets only")
    train, test = given.train, given.test
    truth, groups = test.target.values.astype(np.float64), test.groups
    predicted = given.predictor.predict(test).astype(np.float64)
    known = np.where(np.isnan(truth), np.nan, predicted)
    by_gene = correlations(truth, predicted, groups)
    squared, absolute = standard_errors(truth, predicted, train.target.values)
    found = {
        "outputs_pearson": mean_correlation(by_gene),
        "outputs_spearman": mean_correlation(
            correlations(ranks(truth, groups), ranks(known, groups), groups)
        ),
        "outputs_mse": squared,
        "outputs_mae": absolute,
    }
    if train.depth is not None and test.depth is not None:
        log_train, log_test = (np.log(np.maximum(x, 1)) for x in (train.depth, test.depth))
        slopes = depth_slopes(train.target.values, log_train, train.groups)
        free = adjusted_correlations(truth, predicted, log_test, slopes, groups)
        found["outputs_pearson_depth"] = mean_correlation(free)
    undefined = int(np.isnan(by_gene).all(axis=0).sum())
    notes = [f"{undefined} of {by_gene.shape[1]} outputs do not vary among the test cells"]
    return Scores(
        metrics={name: value for name, value in found.items() if np.isfinite(value)},
        notes=notes if undefined else [],
        arrays={"outputs": np.array(test.target.outputs), "pearson": by_gene},
        predicted=predicted,
    )
