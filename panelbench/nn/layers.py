"""Trained linear layers as arrays: a predictor runs on numpy, and is saved without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeAlias

import numpy as np
from annotated_types import Ge, MinLen

Layer: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Weights of shape (inputs, outputs) and biases of shape (outputs,)."""
Widths: TypeAlias = Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)]
"""Parameter: units of each hidden layer, one layer or more."""


def relu(values: np.ndarray) -> np.ndarray:
    """Rectified linear unit."""
    return np.asarray(np.maximum(values, 0))


def leaky_relu(values: np.ndarray) -> np.ndarray:
    """Leaky ReLU with torch's slope of 0.01."""
    return np.asarray(np.maximum(values, 0.01 * values))


def run(
    layers: Sequence[Layer],
    values: np.ndarray,
    activation: Callable[[np.ndarray], np.ndarray] = relu,
) -> np.ndarray:
    """Apply layers, with the activation between them but not after the last.

    Parameters
    ----------
    layers
        In order; none gives the values back.
    values
        Shape (n_cells, inputs of the first layer).

    Returns
    -------
    Shape (n_cells, outputs of the last layer).
    """
    for depth, (weight, bias) in enumerate(layers):
        values = np.asarray((activation(values) if depth else values) @ weight + bias)
    return values


def fold_norm(
    layer: Layer,
    *,
    mean: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    epsilon: float,
) -> Layer:
    """Put the batch normalisation behind a layer into the layer, as it is in evaluation.

    Parameters
    ----------
    layer
        The linear layer, float64.
    mean, variance, weight, bias
        Running statistics and parameters of the normalisation, float64 of shape (outputs,).
    epsilon
        What it adds to the variance.
    """
    gain = weight / np.sqrt(variance + epsilon)
    return layer[0] * gain, (layer[1] - mean) * gain + bias


def expect_cells(X: np.ndarray, n_genes: int) -> np.ndarray:
    """Give a predictor's input as an array, after a look at its shape.

    Raises
    ------
    ValueError
        When it is not a matrix with a column for each of `n_genes` genes.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != n_genes:
        raise ValueError(f"expected a matrix of cells x {n_genes} genes, found shape {X.shape}")
    return X


def layer_arrays(parts: Mapping[str, Sequence[Layer]]) -> dict[str, np.ndarray]:
    """Arrays to save, named by part, depth and kind: ``encoder0.weight``, ``encoder0.bias``.

    Parameters
    ----------
    parts
        Layers of each part; no name ends in a digit.
    """
    return {
        f"{name}{depth}.{kind}": array
        for name, layers in parts.items()
        for depth, layer in enumerate(layers)
        for kind, array in zip(("weight", "bias"), layer, strict=True)
    }


def layers_from(arrays: Mapping[str, np.ndarray], name: str) -> list[Layer]:
    """Layers of a part from what `layer_arrays` gave, as many as there are."""
    layers: list[Layer] = []
    while (stem := f"{name}{len(layers)}") + ".weight" in arrays:
        layers.append((arrays[f"{stem}.weight"], arrays[f"{stem}.bias"]))
    return layers
