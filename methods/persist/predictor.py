"""The trained classifier, read softly from all genes or from the panel alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from panelbench.nn import Layer, expect_cells, layer_arrays, layers_from, run

_CELLS = 4096
"""Cells that are predicted at a time."""


@dataclass(eq=False)
class PersistPredictor:
    """Class probabilities from PERSIST's own network (Covert et al. 2023).

    `soft` reads all genes: each of S masks, drawn at the final temperature after training, shows
    the network some genes, and the probabilities are averaged over the masks. The same masks
    serve every cell, so a prediction depends on its cell alone. `hard` reads the panel and nothing
    else: the first layer is cut down to it.

    Attributes
    ----------
    task
        The classification task.
    all_genes
        Genes of the training cells in their order.
    panel
        The panel in ranking order.
    columns
        int64: the gene of each input of the network, as a position in `all_genes`.
    masks
        float32 of shape (S, n_inputs).
    chosen
        int64: inputs of the network that `hard` sees. Genes that merely fill up a panel whose rows
        agreed on fewer are not among them.
    layers
        Weight (inputs x outputs) and bias of each layer, float32; ReLU between them.
    mode
        ``"soft"`` or ``"hard"``.
    genes
        Genes it reads in this mode, in the column order of the matrices it is given.
    """

    task: str
    all_genes: Sequence[str]
    panel: Sequence[str]
    columns: np.ndarray
    masks: np.ndarray
    chosen: np.ndarray
    layers: Sequence[Layer]
    mode: str = "soft"
    genes: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self.genes = self.all_genes if self.mode == "soft" else self.panel

    def in_mode(self, name: str) -> PersistPredictor:
        """Return the same network, read in another way."""
        if name not in ("soft", "hard"):
            raise ValueError(f"unknown mode {name!r}: there are soft and hard")
        return replace(self, mode=name)

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        task
            The classification task.
        X
            Binary, shape (n_cells, n_genes), columns as `genes`.

        Returns
        -------
        float64, shape (n_cells, n_classes).
        """
        if task != self.task:
            raise ValueError(f"{task!r} is no task of this predictor; it has {self.task!r}")
        X = expect_cells(X, len(self.genes))
        columns, weights = self._soft() if self.mode == "soft" else self._hard()
        parts = [
            self._probabilities(X[start : start + _CELLS, columns].astype(np.float32), weights)
            for start in range(0, max(len(X), 1), _CELLS)
        ]
        return np.concatenate(parts)

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Raise: there is no regression task."""
        raise ValueError(f"{task!r} is no regression task of this predictor; it has none")

    def _soft(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Columns that any mask shows, and the first layer behind each mask."""
        shown = np.flatnonzero(self.masks.any(axis=0))
        first = self.layers[0][0][shown]
        return self.columns[shown], [first * mask[shown, None] for mask in self.masks]

    def _hard(self) -> tuple[np.ndarray, list[np.ndarray]]:
        place = {gene: column for column, gene in enumerate(self.panel)}
        names = [self.all_genes[column] for column in self.columns[self.chosen]]
        columns = np.array([place[name] for name in names], dtype=np.int64)
        return columns, [self.layers[0][0][self.chosen]]

    def _probabilities(self, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        """Mean over first layers of the probabilities behind each."""
        from scipy.special import softmax

        bias = self.layers[0][1]
        total = np.zeros((len(x), len(self.layers[-1][1])))
        for weight in weights:
            output = run([(weight, bias), *self.layers[1:]], x)
            total += softmax(output.astype(np.float64), axis=1)
        return total / len(weights)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and facts for JSON."""
        arrays = {"columns": self.columns, "masks": self.masks, "chosen": self.chosen}
        return arrays | layer_arrays({"layer": self.layers}), {
            "task": self.task,
            "all_genes": list(self.all_genes),
            "panel": list(self.panel),
            "mode": self.mode,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> PersistPredictor:
        """Rebuild a predictor from what `save` returned."""
        return cls(
            task=facts["task"],
            all_genes=facts["all_genes"],
            panel=facts["panel"],
            columns=arrays["columns"],
            masks=arrays["masks"],
            chosen=arrays["chosen"],
            layers=layers_from(arrays, "layer"),
            mode=facts["mode"],
        )
