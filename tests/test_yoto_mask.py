"""The soft mask against the textbook matrix, and the properties of the hard one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panelbench.methods.yoto.mask import TopK


def dense_mask(scores: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """The first k rows of NeuralSort as its paper writes them, summed."""
    d = len(scores)
    slope = d + 1 - 2 * torch.arange(1, k + 1, dtype=scores.dtype)
    spread = (scores[:, None] - scores[None, :]).abs().sum(dim=1)
    logits = (slope[:, None] * scores[None, :] - spread[None, :]) / tau
    return torch.softmax(logits, dim=1).sum(dim=0)


def perturbed_scores(d: int, seed: int = 0, beta: float = 0.1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = 0.01 * rng.standard_normal(d) + beta * rng.gumbel(size=d)
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("d", "k"), [(7, 3), (300, 1), (300, 16), (300, 299), (300, 300), (900, 400)]
)
def test_value_and_gradient_equal_the_dense_form(d: int, k: int, tau: float) -> None:
    scores = perturbed_scores(d, seed=d + k)
    upstream = torch.from_numpy(np.random.default_rng(k).standard_normal(d))
    exact = scores.double().requires_grad_()
    mask = dense_mask(exact, k, tau)
    mask.backward(upstream)

    top = TopK(scores, k, tau)
    gradient = top.gradient(upstream[top.order[: top.reach]])

    assert (top.soft() - mask.detach()).abs().max() < 1e-9
    # Where the mask is saturated to the last digit both gradients are nothing.
    scale = exact.grad.norm() + 1e-6 * upstream.norm()
    assert (gradient - exact.grad).norm() < 1e-6 * scale


@pytest.mark.parametrize("beta", [0.0, 0.1, 3.0])
def test_sum_is_k_and_the_rest_is_untouched(beta: float) -> None:
    scores = perturbed_scores(5000, beta=beta)
    top = TopK(scores, 64, 0.1)
    soft = top.soft()
    assert soft.sum().item() == pytest.approx(64, abs=1e-9)
    assert soft.min() >= 0
    outside = torch.ones(5000, dtype=torch.bool)
    outside[top.order[: top.reach]] = False
    assert not soft[outside].any()
    assert not top.gradient(torch.ones(top.reach))[outside].any()


def test_tends_to_the_hard_mask_as_tau_falls() -> None:
    scores = perturbed_scores(400)
    hard = torch.zeros(400, dtype=torch.float64)
    hard[scores.topk(20).indices] = 1
    softs = [TopK(scores, 20, tau).soft() for tau in (1, 0.1, 0.01, 1e-5)]
    distances = [(soft - hard).abs().sum().item() for soft in softs]
    assert distances[0] > distances[1] > distances[2] > distances[3]
    assert distances[3] < 1e-9


def test_order_begins_with_the_k_largest() -> None:
    scores = perturbed_scores(1000)
    assert TopK(scores, 10, 0.5).order[:10].tolist() == scores.topk(10).indices.tolist()


def test_equal_scores_give_finite_values() -> None:
    top = TopK(torch.zeros(300), 5, 0.1)
    assert top.soft().sum().item() == pytest.approx(5)
    assert torch.isfinite(top.gradient(torch.randn(top.reach, generator=torch.Generator()))).all()


def test_gradient_pushes_a_wanted_gene_up() -> None:
    scores = perturbed_scores(200)
    top = TopK(scores, 10, 1.0)
    wanted = 12  # a rank just outside
    upstream = torch.zeros(top.reach)
    upstream[wanted] = -1.0  # the loss falls when the mask of this gene rises
    step = -top.gradient(upstream)
    assert step[top.order[wanted]] == step.max() > 0


@pytest.mark.parametrize(("k", "tau"), [(0, 1.0), (6, 1.0), (2, 0.0), (2, float("nan"))])
def test_impossible_sizes_and_temperatures_are_refused(k: int, tau: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TopK(torch.arange(5.0), k, tau)
