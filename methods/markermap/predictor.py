"""The trained network, cut down to the panel: a few matrices, run by numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.nn import (
    Layer,
    expect_cells,
    fold_norm,
    layer_arrays,
    layers_from,
    leaky_relu,
    run,
    to_numpy,
)

if TYPE_CHECKING:
    from .model import Model


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
        return np.asarray(softmax(self._run("classifier", mean), axis=1))

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
            log_variance = self._run("log_variance", hidden)
            normal = np.random.default_rng(self.seed).standard_normal(latent.shape)
            latent = latent + np.exp(0.5 * log_variance) * normal
        return self._run("decoder", latent).astype(np.float32)

    def _latent(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latent means, and the encoder's output before them."""
        *body, last = self.parts["encoder"]
        X = expect_cells(X, len(self.genes)).astype(np.float64)
        hidden = leaky_relu(run(body, X, leaky_relu))
        return run([last], hidden), hidden

    def _run(self, part: str, values: np.ndarray) -> np.ndarray:
        return run(self.parts[part], values, leaky_relu)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays named by part and layer, and facts for JSON."""
        return layer_arrays(self.parts), {
            "genes": list(self.genes),
            "parts": list(self.parts),
            "task": self.task,
            "seed": self.seed,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> MarkerMapPredictor:
        """Rebuild a predictor from what `save` returned."""
        parts = {name: layers_from(arrays, name) for name in facts["parts"]}
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
    first = (weight.T.astype(np.float64), to_numpy(model.first.bias))
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
            found.append((to_numpy(module.weight).T, to_numpy(module.bias)))
        elif isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            found[-1] = fold_norm(
                found[-1],
                mean=to_numpy(module.running_mean),
                variance=to_numpy(module.running_var),
                weight=to_numpy(module.weight),
                bias=to_numpy(module.bias),
                epsilon=module.eps,
            )
    return found


def _float32(layer: Layer) -> Layer:
    weight, bias = layer
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
