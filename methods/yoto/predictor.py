"""The trained predictor, cut down to the panel: a few matrices, run by numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from panelbench.nn import Layer, expect_cells, layer_arrays, layers_from, run


class YotoPredictor:
    """Predicts every task from the genes of the panel; it holds no weight of another gene.

    Parameters
    ----------
    genes
        The panel, in ranking order.
    layers
        Weights (inputs x outputs) and biases of the hidden layers, each followed by a ReLU. With
        several networks, weights (M x inputs x outputs) and biases (M x 1 x outputs), from some
        layer on and in the heads; their outputs are averaged.
    heads
        Weights and biases of the output of each task, in the units of the target.
    kinds
        ``"classification"`` or ``"regression"`` by task.
    vectors
        Regression tasks whose target has two dimensions.
    """

    def __init__(
        self,
        genes: Sequence[str],
        layers: Sequence[Layer],
        heads: Mapping[str, Layer],
        kinds: Mapping[str, str],
        vectors: Sequence[str] = (),
    ) -> None:
        self.genes: Sequence[str] = [str(gene) for gene in genes]
        self.layers = [_contiguous(layer) for layer in layers]
        self.heads = {task: _contiguous(layer) for task, layer in heads.items()}
        self.kinds = dict(kinds)
        self.vectors = list(vectors)

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        task
            A classification task.
        X
            Shape (n_cells, k), columns as `genes`.

        Returns
        -------
        float64, shape (n_cells, n_classes).
        """
        from scipy.special import softmax

        return np.asarray(softmax(self._output(task, "classification", X), axis=1))

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Predictions of a regression task in the target's units.

        Parameters
        ----------
        task
            A regression task.
        X
            Shape (n_cells, k), columns as `genes`.

        Returns
        -------
        float64, shape (n_cells,) or (n_cells, n_outputs).
        """
        values = self._output(task, "regression", X)
        return values if task in self.vectors else values[:, 0]

    def _output(self, task: str, kind: str, X: np.ndarray) -> np.ndarray:
        if self.kinds.get(task) != kind:
            known = [name for name, found in self.kinds.items() if found == kind]
            raise ValueError(f"{task!r} is no {kind} task of this predictor; it has {known}")
        cells = expect_cells(X, len(self.genes)).astype(np.float64)
        output = run([*self.layers, self.heads[task]], cells)
        return output.mean(axis=0) if output.ndim == 3 else output

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays named by layer or task, and facts for JSON."""
        parts = {"layer": self.layers, "head": list(self.heads.values())}
        return layer_arrays(parts), {
            "genes": list(self.genes),
            "tasks": [[name, self.kinds[name], name in self.vectors] for name in self.heads],
        }

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> YotoPredictor:
        """Rebuild a predictor from what `save` returned."""
        tasks = facts["tasks"]
        return cls(
            genes=facts["genes"],
            layers=layers_from(arrays, "layer"),
            heads=dict(zip([name for name, *_ in tasks], layers_from(arrays, "head"), strict=True)),
            kinds={name: kind for name, kind, _ in tasks},
            vectors=[name for name, _, vector in tasks if vector],
        )


def _contiguous(layer: Layer) -> Layer:
    weight, bias = layer
    return np.ascontiguousarray(weight), np.ascontiguousarray(bias)
