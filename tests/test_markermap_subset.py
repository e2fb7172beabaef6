"""The relaxed top-k: what its mask is, and that its gradient is the true one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panelbench.methods.markermap.subset import gumbel, relaxed_topk, rounds

TEMPERATURES = (3.0, 0.83, 0.1, 1e-4)


def textbook(keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """The same by recorded operations, as one would write it."""
    mask = torch.zeros_like(keys)
    for _ in range(k):
        p = torch.softmax(keys / tau, dim=0)
        mask = mask + p
        left = torch.where(1 - p < 1e-40, torch.full_like(p, 1e-40), 1 - p)
        keys = keys + torch.log(left)
    return mask


def drawn(d: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(d, generator=generator)
    return (logits + gumbel((d,), generator)).to(dtype)


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 5, 50])
def test_mask_holds_k_genes_in_total(k: int, tau: float) -> None:
    for seed in range(5):
        mask = relaxed_topk(drawn(500, seed), k, tau)
        assert mask.sum().item() == pytest.approx(k, abs=1e-4)
        assert mask.min() >= 0
        if k == 1:
            assert mask.max() <= 1


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_rounds_each_hold_one_gene_and_add_up_to_the_mask(tau: float) -> None:
    keys = drawn(500, 0)
    rows = rounds(keys, 50, tau)
    assert rows.shape == (50, 500)
    assert (rows.sum(1) - 1).abs().max() < 1e-5
    assert torch.equal(rows.sum(0), relaxed_topk(keys, 50, tau))


@pytest.mark.parametrize("tau", [3.0, 0.83, 0.1])
def test_mask_is_the_textbook_one(tau: float) -> None:
    keys = drawn(300, 1, torch.float64)
    assert (relaxed_topk(keys, 40, tau) - textbook(keys, 40, tau)).abs().max() < 1e-10
    single = keys.float()
    assert (relaxed_topk(single, 40, tau) - textbook(single, 40, tau)).abs().max() < 1e-4


@pytest.mark.parametrize("tau", [3.0, 0.83, 0.1, 0.03])
@pytest.mark.parametrize(("d", "k"), [(300, 40), (5, 5), (30_000, 12)])
def test_gradient_is_that_of_the_recorded_operations(d: int, k: int, tau: float) -> None:
    keys, weights = drawn(d, 2, torch.float64), drawn(d, 3, torch.float64)
    gradients = []
    for form in (relaxed_topk, textbook):
        leaf = keys.clone().requires_grad_()
        (form(leaf, k, tau) * weights).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    ours, reference = gradients
    assert reference.norm() > 1e-3
    assert (ours - reference).norm() < 1e-6 * reference.norm()


def test_gradient_agrees_with_differences() -> None:
    keys = drawn(12, 4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: relaxed_topk(v, 4, 0.5), (keys,))


def test_a_gene_taken_whole_passes_no_gradient_and_no_infinity() -> None:
    keys = torch.tensor([0.0, 400.0, 1.0, 2.0]).requires_grad_()
    mask = relaxed_topk(keys, 2, 1.0)
    (mask * torch.arange(4.0)).sum().backward()
    assert keys.grad is not None
    assert torch.isfinite(keys.grad).all()
    assert mask[1] > 1  # its key still leads after losing 92: it is taken again
    assert keys.grad[1].abs() < 1e-6


def test_cold_mask_of_spaced_keys_is_exactly_the_top_k() -> None:
    for seed in range(5):
        keys = torch.from_numpy(np.random.default_rng(seed).permutation(500) * 0.01).float()
        mask = relaxed_topk(keys, 50, 1e-4)
        top = (keys > 4.495).float()
        # A neighbour's exp(-100) is a denormal number, which not every machine takes for 0.
        assert (mask - top).abs().max() < 1e-40


@pytest.mark.parametrize("tau", [3.0, 0.83])
@pytest.mark.parametrize("k", [5, 25, 50])
def test_warm_mask_orders_the_top_k_as_the_keys_do(k: int, tau: float) -> None:
    for seed in range(10):
        keys = torch.randn(500, generator=torch.Generator().manual_seed(seed))
        mask = relaxed_topk(keys, k, tau)
        assert set(mask.topk(k).indices.tolist()) == set(keys.topk(k).indices.tolist())


def test_a_mask_at_training_temperatures_is_not_k_hot() -> None:
    """Entries above 1 are part of the method: a clamp would be another one."""
    mask = relaxed_topk(torch.randn(500, generator=torch.Generator().manual_seed(0)), 50, 0.83)
    assert mask.max() > 1.5
    assert (mask > 0.5).sum() < 40


def test_gumbel_noise_is_finite_standard_and_its_own() -> None:
    before = torch.get_rng_state()
    noise = gumbel((200_000,), torch.Generator().manual_seed(0))
    assert torch.equal(noise, gumbel((200_000,), torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state())
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.std().item() == pytest.approx(np.pi / 6**0.5, abs=0.02)
