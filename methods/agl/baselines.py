"""Ridge regression and the mean, so that no correlation stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cells import Scaler
from .correlations import mean_correlation

PENALTIES = tuple(10.0**power for power in range(-1, 7))


@dataclass(eq=False)
class LinearPredictor:
    """Expression as a linear function of standardised features.

    Attributes
    ----------
    outputs
        Names of the genes.
    scaler
        Standardisation of the inputs.
    weight, offset
        float64, shapes (n_features, n_outputs) and (n_outputs,).
    """

    outputs: Sequence[str]
    scaler: Scaler
    weight: np.ndarray
    offset: np.ndarray

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Expression, log(1 + x), float64 of shape (n_cells, n_outputs)."""
        return np.asarray(self.scaler(np.asarray(inputs)) @ self.weight + self.offset)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and facts for JSON."""
        arrays, _ = self.scaler.save()
        arrays |= {"weight": self.weight, "offset": self.offset}
        return arrays, {"outputs": list(self.outputs)}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> LinearPredictor:
        """Rebuild a predictor from what `save` returned."""
        scaler = Scaler.load(arrays, {})
        return cls(facts["outputs"], scaler, arrays["weight"], arrays["offset"])


def fit_mean(inputs: np.ndarray, expression: np.ndarray, outputs: Sequence[str]) -> LinearPredictor:
    """Predict every gene by its mean over the training cells.

    Parameters
    ----------
    inputs
        Shape (n_cells, n_features): looked at for their number only.
    expression
        Shape (n_cells, n_outputs); NaN where missing.
    outputs
        Names of the genes.
    """
    width = inputs.shape[1]
    scaler = Scaler(np.zeros(width), np.ones(width))
    offset = np.nan_to_num(np.nanmean(expression.astype(np.float64), axis=0))
    return LinearPredictor(outputs, scaler, np.zeros((width, len(outputs))), offset)


def fit_ridge(
    inputs: np.ndarray,
    expression: np.ndarray,
    outputs: Sequence[str],
    validation: np.ndarray,
    groups: np.ndarray | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> LinearPredictor:
    """Ridge regression from standardised features, one penalty for all genes.

    The penalty is the one with the best mean correlation over the validation cells; the others are
    trained on, as they are for the networks it is compared with. Genes with the same missing cells
    are solved together.

    Parameters
    ----------
    inputs
        Shape (n_cells, n_features).
    expression
        Shape (n_cells, n_outputs); NaN where missing.
    outputs
        Names of the genes.
    validation
        Bool of shape (n_cells,).
    groups
        Correlations are averaged over these in validation.
    penalties
        To choose from.
    """
    training = ~validation
    scaler = Scaler.of(inputs[training])
    x, y = scaler(inputs[training]), expression[training].astype(np.float64)
    held = scaler(inputs[validation])
    held_groups = None if groups is None else groups[validation]
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for weight, offset in _ridge(x, y, penalties):
        score = mean_correlation(held @ weight + offset, expression[validation], held_groups)
        if best is None or score > best[0]:
            best = (score, weight, offset)
    assert best is not None
    return LinearPredictor(outputs, scaler, best[1], best[2])


def _ridge(
    x: np.ndarray, y: np.ndarray, penalties: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and offsets for each penalty."""
    seen = ~np.isnan(y)
    patterns, which = np.unique(seen, axis=1, return_inverse=True)
    result = [(np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])) for _ in penalties]
    for i, rows in enumerate(patterns.T):
        if not rows.any():
            continue
        columns = np.flatnonzero(which.ravel() == i)
        x_mean, y_mean = x[rows].mean(axis=0), y[rows][:, columns].mean(axis=0)
        left, singular, right = np.linalg.svd(x[rows] - x_mean, full_matrices=False)
        projected = left.T @ (y[rows][:, columns] - y_mean)
        for (weight, offset), penalty in zip(result, penalties, strict=True):
            shrunk = singular / (singular**2 + penalty)
            weight[:, columns] = right.T @ (shrunk[:, None] * projected)
            offset[columns] = y_mean - x_mean @ weight[:, columns]
    return result
