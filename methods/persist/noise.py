"""Random numbers of a training, from one generator of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_EPSILON = float(np.finfo(np.float32).eps)


class Noise:
    """Exponential, logistic and normal noise, float32, on one device.

    Most of a training is spent drawing noise. On the CPU numpy's generators and logarithms do it
    in half the time that torch's need.

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
        self._numpy = np.random.Generator(np.random.SFC64(seed))
        self._torch = None
        if device.type != "cpu":
            self._torch = torch.Generator(device).manual_seed(seed)

    def uniform_(self, out: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous tensor with uniforms between 0 and 1; on the CPU never 0 or 1."""
        if self._torch is not None:
            return out.uniform_(generator=self._torch)
        # 23 random bits behind the point of a number in [1, 2), moved down to the middle of
        # their interval in (0, 1).
        words = self._numpy.bit_generator.random_raw((out.numel() + 1) // 2)
        bits = words.view(np.uint32)[: out.numel()].reshape(out.shape)
        np.right_shift(bits, 9, out=bits)
        np.bitwise_or(bits, np.uint32(0x3F800000), out=bits)
        np.subtract(bits.view(np.float32), np.float32(1 - 2.0**-24), out=out.numpy())
        return out

    def log2_exponential_(self, out: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous tensor with base-2 logarithms of exponential noise.

        They are standard Gumbel noise times -1 / ln 2, plus a constant that depends on the device
        and that a softmax does not see.
        """
        if self._torch is not None:
            return out.exponential_(generator=self._torch).log2_()
        values = self.uniform_(out).numpy()
        np.log2(values, out=values)
        np.negative(values, out=values)
        np.log2(values, out=values)
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
