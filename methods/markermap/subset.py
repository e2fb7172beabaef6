"""The relaxed top-k: k draws without replacement in a row, each one a softmax over genes.

With keys v and temperature tau, each of k rounds takes ``p = softmax(v / tau)`` and then lowers
what it took, ``v += log(1 - p)``. The mask is the sum of the k rows p: its total is k, and it
nears the k-hot vector of the largest keys as tau falls. At the temperatures of a training it is
far from it, and a gene that was taken in part can be taken again, so entries may exceed 1.

The rounds are a loop over vectors that no parallelism shortens, so each costs as few calls as can
be: five in place forward, three backward, where recorded operations would make a dozen and keep
five vectors of each round. Only the rows p are kept.

Source: Xie & Ermon 2019, as used by MarkerMap (Gregory et al. 2024).
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_TAKEN = math.log(1e-40)
"""What a gene's key loses when a round takes all of it (p = 1)."""
_BLOCK = 1 << 17
"""Elements of the rows that the backward pass prepares at once: they should fit the cache."""


def rounds(keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """Soft choice of each round; no gradient is recorded.

    Parameters
    ----------
    keys
        Shape (n_genes,), float32 or float64.
    k
        Number of rounds.
    tau
        Temperature, positive.

    Returns
    -------
    Shape (k, n_genes); every row sums to 1.
    """
    import torch

    scaled = keys.detach() / tau
    rows = scaled.new_empty((k, len(scaled)))
    lost = torch.empty_like(scaled)
    with torch.no_grad():
        for row in rows.unbind():
            torch.softmax(scaled, 0, out=row)
            torch.neg(row, out=lost).log1p_().clamp_(min=_TAKEN)
            scaled.add_(lost, alpha=1 / tau)
    return rows


def rounds_gradient(rows: torch.Tensor, upstream: torch.Tensor, tau: float) -> torch.Tensor:
    """Gradient of a loss with respect to the keys.

    Parameters
    ----------
    rows
        What `rounds` returned.
    upstream
        Gradient with respect to the mask, ``rows.sum(0)``, shape (n_genes,).
    tau
        Temperature.
    """
    import torch

    keys = torch.zeros_like(upstream)  # gradient with respect to the keys of a round
    row_gradient = torch.empty_like(upstream)
    for block in reversed(torch.split(rows, max(1, _BLOCK // rows.shape[1]))):
        # Where p is 1 the key was lowered by a constant: nothing flows back through its log.
        left = torch.rsub(block, 1.0)
        left.masked_fill_(left <= 0, math.inf)
        for row, rest in zip(reversed(block.unbind()), reversed(left.unbind()), strict=True):
            torch.addcdiv(upstream, keys, rest, value=-1, out=row_gradient)
            row_gradient.sub_(torch.dot(row, row_gradient))
            keys.addcmul_(row, row_gradient, value=1 / tau)
    return keys


def relaxed_topk(keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """Mask of the k largest keys, relaxed; gradients flow to `keys`.

    Parameters
    ----------
    keys
        Shape (n_genes,), float32 or float64, noise included.
    k
        Genes to take.
    tau
        Temperature, positive.

    Returns
    -------
    Shape (n_genes,), not negative; its sum is k.
    """
    mask: torch.Tensor = _function().apply(keys, k, tau)
    return mask


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Standard Gumbel noise, float32, on the generator's device."""
    import torch

    # The smallest normal number, as some devices take a denormal one for 0.
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    uniform.clamp_(min=torch.finfo(torch.float32).tiny)
    return uniform.log_().neg_().log_().neg_()


@cache
def _function() -> Any:
    """The differentiable form; a class made on first use, as its base is torch's."""
    import torch

    class RelaxedTopK(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
            rows = rounds(keys, k, tau)
            ctx.save_for_backward(rows)
            ctx.tau = tau
            return rows.sum(0)

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
            (rows,) = ctx.saved_tensors
            return rounds_gradient(rows, upstream, ctx.tau), None, None

    return RelaxedTopK
