"""An image network in front of the trunk, trained with it: patches in, features out.

Two networks: a small one for patches of 32 or so pixels on a CPU, and torchvision's ResNet-18 (an
extra, `images`), which is what Shiku et al. 2026 train. Both are used as functions of their
parameters, since the derivatives of `hyper` go through them.

Batch normalisation keeps its statistics for the whole training: those of a weights file, or those
of the training patches under the parameters drawn at the start. Statistics of the batch at hand, as
the published code has them, would make the features of a cell depend on its neighbours in a batch.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.nn import one_thread

if TYPE_CHECKING:
    import torch

Images = Literal["none", "cnn", "resnet18"]

SMALLEST_SIDE = 8
_CHANNELS = (3, 16, 32, 64)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH, _MEASURED = 128, 1024
"""Patches at a time, and patches that statistics are taken from."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """Features of patches as a function of parameters.

    Attributes
    ----------
    kind
        ``"cnn"`` or ``"resnet18"``.
    side
        Pixels of a patch along each side.
    mean, scale
        Of red, green and blue, in 0 to 1: float64 of shape (3,).
    module
        Its buffers and its form are used; its parameters are where a training starts.
    """

    kind: str
    side: int
    mean: np.ndarray
    scale: np.ndarray
    module: torch.nn.Module

    @property
    def width(self) -> int:
        """Features of a patch."""
        return _CHANNELS[-1] if self.kind == "cnn" else 512

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in their order."""
        return [name for name, _ in self.module.named_parameters()]

    def parameters(self) -> list[torch.Tensor]:
        """Copies of the parameters that a training starts from."""
        return [value.detach().clone() for value in self.module.parameters()]

    def __call__(self, parameters: Sequence[torch.Tensor], patches: torch.Tensor) -> torch.Tensor:
        """Features of patches (uint8, cells x pixels), shape (n_cells, width)."""
        from torch.func import functional_call

        images = self._standardised(patches)
        values = dict(zip(self.names, parameters, strict=True))
        found: torch.Tensor = functional_call(self.module, values, (images,))
        return found

    def turned(self, patches: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Patches, each flipped either way or turned by a quarter with a chance of a half."""
        import torch

        images = patches.reshape(-1, self.side, self.side, 3)
        chance = torch.from_numpy(rng.random((3, len(images))) < 0.5).to(images.device)
        for hit, other in (
            (chance[0], lambda x: x.flip(1)),
            (chance[1], lambda x: x.flip(2)),
            (chance[2], lambda x: x.transpose(1, 2).flip(1)),
        ):
            images = torch.where(hit[:, None, None, None], other(images), images)
        return images.reshape(patches.shape)

    def measure(self, patches: torch.Tensor) -> None:
        """Take the statistics of batch normalisation from patches."""
        import torch

        self.module.train()
        for layer in self.module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # the plain mean over batches
                layer.reset_running_stats()
        with torch.no_grad():
            for part in patches.split(_BATCH):
                self.module(self._standardised(part))
        self.module.eval()

    def _standardised(self, patches: torch.Tensor) -> torch.Tensor:
        like = next(self.module.parameters())
        images = patches.reshape(-1, self.side, self.side, 3).to(like.dtype) / 255
        mean, scale = (like.new_tensor(value) for value in (self.mean, self.scale))
        return ((images - mean) / scale).permute(0, 3, 1, 2)


def encoder_for(
    kind: str, patches: np.ndarray, weights: str, rng: np.random.Generator, device: str = "cpu"
) -> Encoder:
    """An image network for some patches, with parameters drawn or from a file.

    Parameters
    ----------
    kind
        ``"cnn"`` or ``"resnet18"``.
    patches
        uint8, cells x pixels: red, green and blue of every pixel of a square, row by row. Those of
        the training cells, of which means and spreads are taken.
    weights
        File with the parameters of a ResNet-18, as `weights_file` finds it; empty draws them.
    rng
        Draws them.
    device
        As torch names it.

    Raises
    ------
    NotApplicable
        When the inputs are no patches, or torchvision or the file is missing.
    """
    import torch

    side = _side(patches)
    module = _module(kind)
    if weights:
        module.load_state_dict(_state(weights))
        mean, scale = (np.array(part) for part in _IMAGENET)
    else:
        _draw(module, rng)
        mean, scale = _colours(patches)
    encoder = Encoder(kind, side, mean, scale, module.to(device).eval())
    if not weights:
        some = np.unique(np.linspace(0, len(patches) - 1, _MEASURED).astype(np.int64))
        encoder.measure(torch.from_numpy(patches[some]).to(device))
    return encoder


@dataclass(eq=False)
class Encoded:
    """Features of patches by a trained image network: what a predictor keeps of it."""

    encoder: Encoder
    parameters: Sequence[torch.Tensor]

    @classmethod
    def of(cls, encoder: Encoder, parameters: Sequence[torch.Tensor]) -> Encoded:
        """Copy them to the processor."""
        module = copy.deepcopy(encoder.module).cpu()
        kept = Encoder(encoder.kind, encoder.side, encoder.mean, encoder.scale, module)
        return cls(kept, [part.detach().cpu().clone() for part in parameters])

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Features of patches: float64 of shape (n_cells, width)."""
        import torch

        if _side(patches) != self.encoder.side:
            raise ValueError(
                f"expected patches of {self.encoder.side} pixels a side, found shape "
                f"{patches.shape}"
            )
        found = np.empty((len(patches), self.encoder.width))
        with one_thread(), torch.no_grad():
            for start in range(0, len(patches), _BATCH):
                rows = slice(start, start + _BATCH)
                part = torch.from_numpy(np.array(patches[rows]))
                found[rows] = self.encoder(self.parameters, part).double().numpy()
        return found

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and facts for JSON."""
        arrays = {"image.mean": self.encoder.mean, "image.scale": self.encoder.scale}
        state = dict(self.encoder.module.named_buffers())
        state |= dict(zip(self.encoder.names, self.parameters, strict=True))
        arrays |= {f"image.{name}": value.numpy().copy() for name, value in state.items()}
        return arrays, {"kind": self.encoder.kind, "side": self.encoder.side}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Encoded:
        """Rebuild it from what `save` returned."""
        import torch

        module = _module(facts["kind"])
        saved = {name: np.array(arrays[f"image.{name}"]) for name in module.state_dict()}
        module.load_state_dict({name: torch.from_numpy(value) for name, value in saved.items()})
        mean, scale = arrays["image.mean"], arrays["image.scale"]
        encoder = Encoder(facts["kind"], facts["side"], mean, scale, module.eval())
        return cls(encoder, encoder.parameters())


def weights_file(name: str) -> Path:
    """Find a file of parameters: a path, or the name of a file where torch keeps downloads.

    Raises
    ------
    NotApplicable
        When it is not there, or its name does not end in the beginning of its SHA-256, as those
        of torchvision's files do. The name is part of a run's key and stands for the content.
    """
    import torch

    path = Path(torch.hub.get_dir(), "checkpoints", name).expanduser()
    if not path.is_file():
        raise NotApplicable(f"no file of weights {path}: put it there, or name it by its path")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.stem.rpartition("-")[2] != digest[:8]:
        raise NotApplicable(
            f"{path.name}: end its name in the first eight digits of its SHA-256, "
            f"-{digest[:8]}{path.suffix}"
        )
    return path


def _side(patches: np.ndarray) -> int:
    side = math.isqrt(patches.shape[1] // 3) if patches.ndim == 2 else 0
    if patches.dtype != np.uint8 or 3 * side**2 != patches.shape[1] or side < SMALLEST_SIDE:
        raise NotApplicable(
            f"needs square patches of {SMALLEST_SIDE} pixels or more a side, with red, green and "
            f"blue in 0 to 255 (uint8); the inputs have shape {patches.shape} and are "
            f"{patches.dtype}"
        )
    return side


def _module(kind: str) -> torch.nn.Module:
    """The network without parameters of its own to rely on."""
    from torch import nn

    if kind == "cnn":
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(_CHANNELS):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    try:
        from torchvision.models import resnet18
    except (ImportError, RuntimeError) as error:  # the latter where it is another torch's
        raise NotApplicable(
            f"a ResNet-18 needs a torchvision that fits torch: pip install 'panelbench[images]' "
            f"({error})"
        ) from None
    module: nn.Module = resnet18(weights=None)
    module.fc = nn.Identity()
    return module


def _state(weights: str) -> dict[str, torch.Tensor]:
    """Parameters and statistics of a file, without those of the classifier."""
    import torch

    state = torch.load(weights_file(weights), map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def _colours(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of red, green and blue over all pixels, in 0 to 1."""
    sums, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(patches), _BATCH):  # as numbers all of a slide take gigabytes
        pixels = patches[start : start + _BATCH].reshape(-1, 3) / 255.0
        sums += pixels.sum(axis=0)
        squares += np.square(pixels).sum(axis=0)
    mean = sums * 3 / patches.size
    spread = np.sqrt(np.maximum(squares * 3 / patches.size - mean**2, 0))
    return mean, np.where(spread > 1e-6, spread, 1.0)


def _draw(module: torch.nn.Module, rng: np.random.Generator) -> None:
    """Draw the filters (He et al. 2015); what is normalised starts at gain 1 and shift 0."""
    import torch

    with torch.no_grad():
        for value in module.parameters():
            if value.ndim > 1:
                reach = math.sqrt(6 / math.prod(value.shape[1:]))
                value.copy_(torch.from_numpy(rng.uniform(-reach, reach, size=value.shape)))
