"""What several neural methods share: randomness that stays theirs, dropout, layers, predictors.

Importing it imports no torch; the functions do when they are called.
"""

from __future__ import annotations

from .layers import (
    Layer,
    Widths,
    expect_cells,
    fold_norm,
    layer_arrays,
    layers_from,
    leaky_relu,
    relu,
    run,
)
from .state import generator, one_thread, seeded
from .tensors import drop, tensor_of, to_numpy

__all__ = [
    "Layer",
    "Widths",
    "drop",
    "expect_cells",
    "fold_norm",
    "generator",
    "layer_arrays",
    "layers_from",
    "leaky_relu",
    "one_thread",
    "relu",
    "run",
    "seeded",
    "tensor_of",
    "to_numpy",
]
