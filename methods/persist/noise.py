"""Random numbers of a training, from one generator of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_EPSILON = float(np.finfo(np.float32).eps)


class Noise:
    """Gumbel, logistic and normal noise, float32, on one device.

    On the CPU numpy draws the uniforms and takes their logarithms: its loops are twice as fast
    as those of torch, and most of a training is spent in them.

    Parameters
    ----------
    seed
        Seed of the generator.
    device
        Where the numbers are wanted.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        import torch

        self.device = device
        self._numpy = np.random.default_rng(seed)
        self._torch = None
        if device.type != "cpu":
            self._torch = torch.Generator(device).manual_seed(seed)

    def uniform_(self, out: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous tensor with uniforms in [0, 1)."""
        if self._torch is not None:
            return out.uniform_(generator=self._torch)
        self._numpy.random(dtype=np.float32, out=out.numpy())
        return out

    def log_exponential_(self, out: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous tensor with logarithms of Exp(1): standard Gumbel noise, negated."""
        if self._torch is not None:
            return out.exponential_(generator=self._torch).log_()
        values = out.numpy()
        self._numpy.random(dtype=np.float32, out=values)
        np.maximum(values, 2.0**-25, out=values)  # 0 has no logarithm
        np.log(values, out=values)
        np.negative(values, out=values)
        np.log(values, out=values)
        return out

    def logistic(self, *shape: int) -> torch.Tensor:
        """Logistic noise; uniforms are kept one rounding unit away from 0 and 1."""
        import torch

        return self.uniform_(torch.empty(shape, device=self.device)).logit_(eps=_EPSILON)

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw standard normal noise."""
        import torch

        if self._torch is not None:
            return torch.randn(shape, generator=self._torch, device=self.device)
        return torch.from_numpy(self._numpy.standard_normal(shape, dtype=np.float32))
