"""The trained network, cut down to the panel: a few matrices, run by numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from .model import Model

Layer = tuple[np.ndarray, np.ndarray]
"""Weights (inputs x outputs) and biases, float32."""

_SLOPE = 0.01


class MarkerMapPredictor:
    """Predicts classes, reconstructs all genes, or both, from the genes of the panel.

    Parameters
    ----------
    genes
        The panel, in ranking order.
    parts
        Layers of each part, LeakyReLU between them and normalisation folded in: ``encoder`` (up to
        the latent mean), and of ``classifier``, ``decoder`` and ``log_variance`` those that there
        are. ``log_variance`` replaces the encoder's last layer and is kept for drawing only.
    task
        Name of the task that the classifier predicts.
    seed
        Draw the latent variables in `reconstruct` from this seed; None takes their mean.
    """

    def __init__(
        self,
        genes: Sequence[str],
        parts: Mapping[str, Sequence[Layer]],
        task: str = "",
        seed: int | None = None,
    ) -> None:
        self.genes: Sequence[str] = [str(gene) for gene in genes]
        self.parts = {name: [_float32(layer) for layer in part] for name, part in parts.items()}
        self.task, self.seed = task, seed

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """Class probabilities, from the latent means.

        Parameters
        ----------
        task
            The task that it was trained on.
        X
            Shape (n_cells, k), columns as `genes`.

        Returns
        -------
        float64, shape (n_cells, n_classes).
        """
        from scipy.special import softmax

        if "classifier" not in self.parts:
            raise ValueError("this predictor was trained without labels: it reconstructs only")
        if task != self.task:
            raise ValueError(f"{task!r} is no task of this predictor; it has {self.task!r}")
        mean, _ = self._latent(X)
        return np.asarray(softmax(_run(self.parts["classifier"], mean), axis=1))

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Refuse: there is no regression."""
        raise ValueError(f"{task!r}: this predictor has no regression task")

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """Expected expression of all genes.

        Parameters
        ----------
        X
            Shape (n_cells, k), columns as `genes`.

        Returns
        -------
        float32, shape (n_cells, n_genes): all genes of the training cells, in their order. Where
        latent variables are drawn, every call draws the same.
        """
        if "decoder" not in self.parts:
            raise ValueError("this predictor was trained without a reconstruction: it classifies")
        latent, hidden = self._latent(X)
        if self.seed is not None:
            log_variance = _run(self.parts["log_variance"], hidden)
            normal = np.random.default_rng(self.seed).standard_normal(latent.shape)
            latent = latent + np.exp(0.5 * log_variance) * normal
        return _run(self.parts["decoder"], latent).astype(np.float32)

    def _latent(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latent means, and the encoder's output before them."""
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != len(self.genes):
            raise ValueError(
                f"expected a matrix of cells x {len(self.genes)} genes, found shape {X.shape}"
            )
        *body, last = self.parts["encoder"]
        hidden = _leaky(_run(body, X))
        return _run([last], hidden), hidden

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays named by part and layer, and facts for JSON."""
        arrays = {
            f"{name}{i}.{kind}": array
            for name, part in self.parts.items()
            for i, layer in enumerate(part)
            for kind, array in zip(("weight", "bias"), layer, strict=True)
        }
        return arrays, {
            "genes": list(self.genes),
            "parts": {name: len(part) for name, part in self.parts.items()},
            "task": self.task,
            "seed": self.seed,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> MarkerMapPredictor:
        """Rebuild a predictor from what `save` returned."""
        parts = {
            name: [(arrays[f"{name}{i}.weight"], arrays[f"{name}{i}.bias"]) for i in range(length)]
            for name, length in facts["parts"].items()
        }
        return cls(facts["genes"], parts, facts["task"], facts["seed"])


def cut_down(
    model: Model, weight: np.ndarray, genes: Sequence[str], task: str = "", seed: int | None = None
) -> MarkerMapPredictor:
    """The predictor of a trained model.

    Parameters
    ----------
    model
        The model after training.
    weight
        The encoder's first layer on the panel, shape (hidden, k).
    genes
        Names of the panel.
    task
        Name of the task that it classifies, if any.
    seed
        For drawing latent variables; None takes their mean.
    """
    layers = model.layers
    first = (weight.T.astype(np.float64), _array(model.first.bias))
    parts = {"encoder": [*_folded(layers["encoder"], [first]), *_folded([layers["mean"]])]}
    for name in ("classifier", "decoder"):
        if name in layers:
            parts[name] = _folded(layers[name])
    if seed is not None and model.reconstructs:
        parts["log_variance"] = _folded([layers["log_variance"]])
    return MarkerMapPredictor(genes, parts, task, seed)


def _folded(modules: Any, layers: Sequence[Layer] = ()) -> list[Layer]:
    """Linear layers of modules in evaluation mode, after those given; normalisation folded in."""
    import torch

    found = list(layers)
    for module in modules:
        if isinstance(module, torch.nn.Sequential):
            found = _folded(module, found)
        elif isinstance(module, torch.nn.Linear):
            found.append((_array(module.weight).T, _array(module.bias)))
        elif isinstance(module, torch.nn.BatchNorm1d):
            weight, bias = found.pop()
            gain = _array(module.weight) / np.sqrt(_array(module.running_var) + module.eps)
            shift = _array(module.bias) - _array(module.running_mean) * gain
            found.append((weight * gain, bias * gain + shift))
    return found


def _run(layers: Sequence[Layer], values: np.ndarray) -> np.ndarray:
    for i, (weight, bias) in enumerate(layers):
        values = np.asarray((_leaky(values) if i else values) @ weight + bias)
    return values


def _leaky(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(values, _SLOPE * values))


def _array(values: torch.Tensor | None) -> np.ndarray:
    assert values is not None
    return np.asarray(values.detach().cpu().numpy().astype(np.float64))


def _float32(layer: Layer) -> Layer:
    weight, bias = layer
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
