"""What remains of a training: expression of the primary genes from the inputs, calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import Scaler
from .images import Encoded

if TYPE_CHECKING:
    from .network import Network

_NORM_EPS = 1e-5


@dataclass(eq=False)
class AglPredictor:
    """Expression of the primary genes from features or patches.

    Attributes
    ----------
    outputs
        Names of the primary genes.
    front
        Standardisation of the features, or the image network that makes them from patches.
    layers
        Weight (n_out, n_in), bias, gain and shift of each hidden layer, float32.
    weight
        Rows of the primary genes, shape (n_outputs, width), float32.
    gain, offset
        Calibration of each gene, fitted by least squares on the training cells: the loss does not
        see either. float64, shape (n_outputs,).
    normalise
        Whether the layers are normalised.
    """

    outputs: Sequence[str]
    front: Scaler | Encoded
    layers: Sequence[tuple[np.ndarray, ...]]
    weight: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    normalise: bool = True

    @classmethod
    def of(cls, network: Network, scaler: Scaler | None, outputs: Sequence[str]) -> AglPredictor:
        """The predictor of a network, not calibrated yet; no scaler stands before an encoder."""
        start = network.n_encoding
        arrays = [part.detach().cpu().numpy().copy() for part in network.trunk[start:]]
        front: Scaler | Encoded | None = scaler
        if network.encoder is not None:
            front = Encoded.of(network.encoder, network.trunk[:start])
        assert front is not None
        return cls(
            list(outputs),
            front,
            [tuple(arrays[i : i + 4]) for i in range(0, len(arrays), 4)],
            network.weight[: network.n_primary].detach().cpu().numpy().copy(),
            np.ones(len(outputs)),
            np.zeros(len(outputs)),
            network.normalise,
        )

    def calibrate(self, inputs: np.ndarray, expression: np.ndarray) -> None:
        """Fit gain and offset of each gene by least squares.

        Parameters
        ----------
        inputs
            Shape (n_cells, n_features).
        expression
            Shape (n_cells, n_outputs); NaN where missing. A gene whose raw output is constant gets
            gain 0 and its mean.
        """
        raw, seen = self.raw(inputs), ~np.isnan(expression)
        n = np.maximum(seen.sum(axis=0), 1)
        truth = np.where(seen, expression, 0).astype(np.float64)
        x_mean, y_mean = (raw * seen).sum(axis=0) / n, truth.sum(axis=0) / n
        x, y = (raw - x_mean) * seen, (truth - y_mean) * seen
        squares = np.square(x).sum(axis=0)
        varies = squares > 1e-12 * n
        self.gain = np.where(varies, (x * y).sum(axis=0) / np.where(varies, squares, 1), 0.0)
        self.offset = y_mean - self.gain * x_mean

    def raw(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs before calibration, float64 of shape (n_cells, n_outputs)."""
        values = self.front(inputs)
        for weight, bias, gain, shift in self.layers:
            values = values @ weight.T + bias
            if self.normalise:
                values = values - values.mean(axis=1, keepdims=True)
                spread = np.sqrt(np.square(values).mean(axis=1, keepdims=True) + _NORM_EPS)
                values = values / spread * gain + shift
            values = np.maximum(values, 0)
        return np.asarray(values @ self.weight.T)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Expression, log(1 + x), float64 of shape (n_cells, n_outputs)."""
        return np.asarray(self.raw(inputs) * self.gain + self.offset)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and facts for JSON."""
        arrays, image = self.front.save()
        arrays |= {"weight": self.weight, "gain": self.gain, "offset": self.offset}
        for i, layer in enumerate(self.layers):
            for name, array in zip(("weight", "bias", "gain", "shift"), layer, strict=True):
                arrays[f"layer{i}.{name}"] = array
        return arrays, {
            "outputs": list(self.outputs),
            "n_layers": len(self.layers),
            "normalise": self.normalise,
            "image": image,
        }

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> AglPredictor:
        """Rebuild a predictor from what `save` returned."""
        names = ("weight", "bias", "gain", "shift")
        return cls(
            facts["outputs"],
            (Encoded if facts["image"] else Scaler).load(arrays, facts["image"]),
            [tuple(arrays[f"layer{i}.{n}"] for n in names) for i in range(facts["n_layers"])],
            arrays["weight"],
            arrays["gain"],
            arrays["offset"],
            facts["normalise"],
        )
