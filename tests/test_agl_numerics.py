"""Auxiliary gene learning: mask, loss, steps and derivatives, against plain autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods.agl.hyper import Normalizer, alignments, normalised, unrolled
from panelbench.methods.agl.mask import mask_slope, n_kept, positions, soft_mask, usable_tau
from panelbench.methods.agl.network import Batch, Network
from panelbench.methods.agl.optimizers import Rule, SmallAdam
from panelbench.methods.agl.pearson import Targets, pearson_losses

from panelbench.nn import one_thread

N_GENES, N_PRIMARY, N_CELLS, N_FEATURES, TAU = 30, 5, 16, 7, 0.1


# The mask


def test_mask_falls_with_rank_and_rises_with_the_cut() -> None:
    mask = soft_mask(0.4, 101, 0.05)
    assert ((mask >= 0) & (mask <= 1)).all()
    assert (np.diff(mask) < 0).all()
    assert (soft_mask(0.41, 101, 0.05) > mask).all()
    assert mask[40] == pytest.approx(0.5, abs=1e-12)


def test_mask_is_the_softmax_of_the_paper_and_stable_beyond_it() -> None:
    cut, tau = 0.3, 0.05
    both = np.exp(np.stack([np.full(200, cut), positions(200)]) / tau)
    np.testing.assert_allclose(soft_mask(cut, 200, tau), both[0] / both.sum(axis=0), atol=1e-12)
    with np.errstate(all="raise", under="ignore"):
        sharp = soft_mask(0.5, 1000, 1e-5)  # exp(0.5 / 1e-5) is not a number
    assert sharp.sum() == pytest.approx(500, abs=1e-6)


@pytest.mark.parametrize("n", [100, 1000, 15_000])
def test_sum_of_the_mask_follows_the_cut(n: int) -> None:
    tau = 0.01
    for cut in (10 * tau, 0.37, 0.5, 1 - 10 * tau):
        mask = soft_mask(cut, n, tau)
        assert mask.sum() == pytest.approx(cut * (n - 1) + 0.5, abs=0.01)
        assert mask_slope(mask, tau).sum() == pytest.approx(n - 1, rel=0.01)
        assert abs(n_kept(mask) - mask.sum()) <= 1


def test_slope_of_the_mask_is_its_derivative() -> None:
    step = 1e-6
    found = mask_slope(soft_mask(0.4, 50, 0.05), 0.05)
    difference = soft_mask(0.4 + step, 50, 0.05) - soft_mask(0.4 - step, 50, 0.05)
    np.testing.assert_allclose(found, difference / (2 * step), rtol=1e-6, atol=1e-9)


def test_tau_is_raised_for_few_genes() -> None:
    assert usable_tau(0.01, 15_000) == 0.01
    assert usable_tau(0.01, 21) == pytest.approx(0.1)


# The loss


def _draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_loss_is_one_minus_pearson() -> None:
    predictions, targets = _draw(0, 20, 3), _draw(1, 20, 3)
    losses = pearson_losses(predictions, targets)
    expected = [1 - np.corrcoef(predictions[:, j], targets[:, j])[0, 1] for j in range(3)]
    np.testing.assert_allclose(losses, expected, atol=1e-7)
    np.testing.assert_allclose(pearson_losses(3 * predictions + 5, targets), losses, atol=1e-7)
    np.testing.assert_allclose(pearson_losses(targets, targets), 0, atol=1e-7)
    np.testing.assert_allclose(pearson_losses(-targets, targets), 2, atol=1e-7)


@pytest.mark.parametrize("level", [0.0, 0.1, 12.3])
def test_constant_targets_and_predictions_have_loss_one_and_no_bad_gradient(level: float) -> None:
    predictions = _draw(0, 20, 2).float().requires_grad_()
    losses = pearson_losses(predictions, torch.full((20, 2), level))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.tolist() == [1, 1]
    assert predictions.grad is not None
    assert not predictions.grad.any()
    flat = torch.zeros(20, 2, requires_grad=True)
    losses = pearson_losses(flat, _draw(1, 20, 2).float())
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.tolist() == [1, 1]
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="two cells"):
        pearson_losses(_draw(0, 1, 3), _draw(1, 1, 3))


def test_a_cell_without_one_output_keeps_the_others() -> None:
    predictions, targets = _draw(0, 20, 3).requires_grad_(), _draw(1, 20, 3)
    observed = torch.ones(20, 3)
    observed[:4, 1] = 0
    losses = pearson_losses(predictions, targets, observed)
    full = pearson_losses(predictions, targets)
    assert losses[[0, 2]].tolist() == full[[0, 2]].tolist()
    known = np.corrcoef(predictions.detach()[4:, 1], targets[4:, 1])[0, 1]
    assert float(losses.detach()[1]) == pytest.approx(1 - known, abs=1e-7)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert predictions.grad is not None
    assert not predictions.grad[:4, 1].any()
    assert predictions.grad[:4, 0].all()


def test_centring_within_groups_rewards_no_group_means() -> None:
    members = torch.zeros(2, 20).double()
    members[0, :8] = members[1, 8:] = 1
    targets = _draw(1, 20, 3)
    by_group = members[1].unsqueeze(1) * torch.ones(1, 3)
    shifted = targets + 100 * by_group
    np.testing.assert_allclose(pearson_losses(by_group, shifted, members=members), 1, atol=1e-3)
    predictions = _draw(0, 20, 3)
    np.testing.assert_allclose(
        pearson_losses(predictions + 7 * by_group, shifted, members=members),
        pearson_losses(predictions, targets, members=members),
        atol=1e-6,
    )


# Steps and derivatives


def _network(**options: Any) -> Network:
    rng = np.random.default_rng(0)
    shape = (N_FEATURES, 9, 6), N_PRIMARY, N_GENES - N_PRIMARY, rng
    return Network(*shape, dtype=torch.float64, **options)


def _batch(seed: int, *, missing: bool = False, grouped: bool = False) -> Batch:
    observed = (_draw(seed + 50, N_GENES, N_CELLS) > -1).double() if missing else None
    codes = torch.arange(N_CELLS) % 2
    members = torch.stack([(codes == g).double() for g in range(2)]) if grouped else None
    targets = Targets.of(_draw(seed + 25, N_GENES, N_CELLS), members, observed)
    return Batch(_draw(seed, N_CELLS, N_FEATURES), targets)


def _weights(cut: float) -> tuple[torch.Tensor, torch.Tensor]:
    mask = soft_mask(cut, N_GENES - N_PRIMARY, TAU)
    w = np.concatenate([np.ones(N_PRIMARY), mask])
    slope = np.concatenate([np.zeros(N_PRIMARY), mask_slope(mask, TAU)])
    return torch.from_numpy(w), torch.from_numpy(slope)


def _losses(
    network: Network, trunk: Sequence[torch.Tensor], weight: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """Losses of all genes, by the book."""
    targets = batch.targets
    observed = None if targets.observed is None else targets.observed.T
    predictions = network.hidden(trunk, batch.inputs) @ weight.T
    return pearson_losses(predictions, targets.values.T, observed, targets.members)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_training_steps_are_those_of_torch(missing: bool, grouped: bool) -> None:
    network, batch = _network(), _batch(1, missing=missing, grouped=grouped)
    w = _weights(0.4)[0]
    trunk = [part.clone().requires_grad_() for part in network.trunk]
    weight = network.weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([*trunk, weight], lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        losses = _losses(network, trunk, weight, batch)
        (w * losses).sum().backward()  # type: ignore[no-untyped-call]
        found = network.train(batch, w, 1e-2)
        np.testing.assert_allclose(found, losses.detach(), atol=1e-9)
        optimizer.step()
    np.testing.assert_allclose(network.weight, weight.detach(), atol=1e-7)
    for ours, theirs in zip(network.trunk, trunk, strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-7)


CASES: list[tuple[Rule, int, float]] = [("sgd", 1, 0.1), ("sgd", 5, 0.1), ("adam", 4, 1e-2)]


@pytest.mark.parametrize(("rule", "steps", "lr"), CASES)
@pytest.mark.parametrize("how", ["sum", "attached"])
@pytest.mark.parametrize("missing", [False, True])
def test_unrolled_derivative_is_that_of_differences(
    rule: Rule, steps: int, lr: float, how: Normalizer, missing: bool
) -> None:
    network = _network()
    batches = _batch(1, missing=missing, grouped=missing), _batch(2, missing=missing)

    def at(cut: float) -> tuple[float, float]:
        w = normalised(*_weights(cut), how)
        return unrolled(network, *batches, *w, steps=steps, lr=lr, rule=rule)

    step = 1e-5  # smaller ones show rounding: Adam's first step is nearly a sign
    difference = (at(0.4 + step)[0] - at(0.4 - step)[0]) / (2 * step)
    assert at(0.4)[1] == pytest.approx(difference, rel=1e-5)


def test_unrolled_derivative_is_that_of_recorded_steps() -> None:
    """Reverse mode through a recorded Adam, weights divided by their sum as a constant."""
    network, train, validation = _network(), _batch(1), _batch(2)
    cut = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    mask = torch.sigmoid((cut - torch.from_numpy(positions(N_GENES - N_PRIMARY))) / TAU)
    w = torch.cat([torch.ones(N_PRIMARY).double(), mask])
    w = w / w.sum().detach()
    values = [part.clone().requires_grad_() for part in [*network.trunk, network.weight]]
    moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in values]
    for step in range(1, 4):
        loss = (w * _losses(network, values[:-1], values[-1], train)).sum()
        gradients = torch.autograd.grad(loss, values, create_graph=True)
        moments = [
            (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2)
            for (m, v), g in zip(moments, gradients, strict=True)
        ]
        values = [
            value - 1e-2 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step) + 1e-40).sqrt() + 1e-8)
            for value, (m, v) in zip(values, moments, strict=True)
        ]
    loss = _losses(network, values[:-1], values[-1], validation)[:N_PRIMARY].mean()
    (expected,) = torch.autograd.grad(loss, cut)
    found = unrolled(
        network, train, validation, *normalised(*_weights(0.4), "detached"), steps=3, lr=1e-2
    )
    assert found == pytest.approx((loss.item(), expected.item()), rel=1e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_alignments_are_the_limit_of_one_small_step(missing: bool) -> None:
    network = _network()
    train, validation = _batch(1, missing=missing, grouped=missing), _batch(2, missing=missing)
    w, slope = _weights(0.4)
    lr = 1e-6
    _, exact = unrolled(network, train, validation, w, slope, steps=1, lr=lr, rule="sgd")
    c = alignments(network, train, validation, slice(N_PRIMARY, None))
    assert -lr * float(slope[N_PRIMARY:] @ c) == pytest.approx(exact, rel=1e-3)


def test_alignments_are_those_of_the_full_jacobian() -> None:
    network, train, validation = _network(), _batch(1), _batch(2)

    def flat(batch: Batch) -> torch.Tensor:
        found = torch.func.jacrev(lambda trunk: _losses(network, trunk, network.weight, batch))(
            network.trunk
        )
        return torch.cat([part.reshape(N_GENES, -1) for part in found], dim=1)

    expected = flat(train) @ flat(validation)[:N_PRIMARY].mean(dim=0)
    found = alignments(network, train, validation, slice(0, N_GENES))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    part = alignments(network, train, validation, slice(9, 12))
    np.testing.assert_allclose(part, expected[9:12], atol=1e-12)


class Unshared(Network):
    """Nothing trainable below the rows."""

    def hidden(self, trunk: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return inputs + 0 * trunk[0].sum()


@pytest.mark.parametrize(("rule", "steps", "lr"), CASES)
def test_without_a_shared_layer_auxiliary_genes_change_nothing(
    rule: Rule, steps: int, lr: float
) -> None:
    shape = (1, N_FEATURES), N_PRIMARY, N_GENES - N_PRIMARY, np.random.default_rng(0)
    network = Unshared(*shape, dtype=torch.float64)
    w = normalised(*_weights(0.4), "detached")
    batches = _batch(1), _batch(2)
    assert unrolled(network, *batches, *w, steps=steps, lr=lr, rule=rule)[1] == 0
    assert not alignments(network, *batches, slice(N_PRIMARY, None)).any()
    with pytest.raises(ValueError, match="hidden layer"):
        Network((N_FEATURES,), 1, 1, np.random.default_rng(0))


def test_moving_the_weights_leaves_the_network_as_it_is() -> None:
    network = _network()
    before = network.copy()
    w = normalised(*_weights(0.4), "detached")
    unrolled(network, _batch(1), _batch(2), *w, steps=3, lr=1e-2)
    alignments(network, _batch(1), _batch(2), slice(N_PRIMARY, None))
    assert torch.equal(network.weight, before.weight)
    assert all(map(torch.equal, network.trunk, before.trunk))


def test_without_weight_auxiliary_genes_change_no_step() -> None:
    shape = (N_FEATURES, 9, 6), N_PRIMARY
    alone = Network(*shape, 0, np.random.default_rng(0), dtype=torch.float64)
    among = _network()
    assert torch.equal(alone.weight, among.weight[:N_PRIMARY])
    batch = _batch(1)
    first = Batch(batch.inputs, batch.targets.rows(slice(N_PRIMARY)))
    w = torch.zeros(N_GENES, dtype=torch.float64)
    w[:N_PRIMARY] = 1
    for _ in range(5):
        alone.train(first, w[:N_PRIMARY], 1e-2)
        among.train(batch, w, 1e-2)
    # Where the gradient is 0, Adam turns the rounding of it into steps of 1e-10.
    np.testing.assert_allclose(among.weight[:N_PRIMARY], alone.weight, atol=1e-8)
    for ours, theirs in zip(among.trunk, alone.trunk, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


# Where the cut goes, on one shared feature


class OneFeature(Network):
    """The same linear feature for every gene; its sign and size do not matter to the rows."""

    def hidden(self, trunk: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return (inputs @ trunk[0]).unsqueeze(1)


N_HELPING, N_RANKED = 60, 200


class Toy:
    """5 primary genes z + 2 e; 60 auxiliary ones z + e / 2, and 140 that are -z + e / 2."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.inputs = rng.normal(size=(1536, 16))
        z = (self.inputs @ (rng.normal(size=16) / 4))[:, None]
        helping = np.where(np.arange(N_RANKED) < N_HELPING, 1, -1)
        primary = z + 2 * rng.normal(size=(1536, 5))
        auxiliary = z * helping + 0.5 * rng.normal(size=(1536, N_RANKED))
        self.outputs = np.concatenate([primary, auxiliary], axis=1).T.copy()
        self.network = OneFeature((16, 1), 5, N_RANKED, rng, dtype=torch.float64)
        self.network.trunk = [torch.from_numpy(rng.normal(size=16) / 4)]
        self.network.weight = torch.ones(5 + N_RANKED, 1, dtype=torch.float64)

    def gradient(self, cut: float, hyper: str) -> float:
        """Derivative of the validation loss on random batches."""
        mask = soft_mask(cut, N_RANKED, 0.02)
        w = torch.from_numpy(np.concatenate([np.ones(5), mask]))
        slope = torch.from_numpy(np.concatenate([np.zeros(5), mask_slope(mask, 0.02)]))
        train = self._batch(self.rng.choice(1024, 64, replace=False))
        validation = self._batch(1024 + self.rng.choice(512, 64, replace=False))
        if hyper == "jvp":
            c = alignments(self.network, train, validation, slice(5, None))
            return -float(slope[5:] @ c) / float(w.sum())
        rule: Rule = "adam" if hyper == "adam" else "sgd"
        steps, lr = (12, 1e-3) if hyper == "adam" else (1, 0.1)
        w, slope = normalised(w, slope, "detached")
        return unrolled(self.network, train, validation, w, slope, steps=steps, lr=lr, rule=rule)[1]

    def _batch(self, rows: np.ndarray) -> Batch:
        targets = Targets.of(torch.from_numpy(self.outputs[:, rows]))
        return Batch(torch.from_numpy(self.inputs[rows]), targets)

    def learn(self, start: float, hyper: str, steps: int = 300) -> list[float]:
        """Genes kept after each step."""
        cut, adam, kept = start, SmallAdam(1e-2), []
        with one_thread():
            for _ in range(steps):
                cut += float(adam.change(np.asarray(self.gradient(cut, hyper))))
                cut = min(max(cut, 0.0), 1.0)
                kept.append(n_kept(soft_mask(cut, N_RANKED, 0.02)))
        return kept


@pytest.mark.parametrize("hyper", ["jvp", "sgd"])
def test_the_gradient_points_to_the_planted_cut(hyper: str) -> None:
    toy = Toy(0)
    assert np.mean([-toy.gradient(0.15, hyper) for _ in range(20)]) > 0
    assert np.mean([-toy.gradient(0.6, hyper) for _ in range(20)]) < 0


@pytest.mark.parametrize("hyper", ["jvp", "sgd"])
@pytest.mark.parametrize("start", [0.5, 0.1])
def test_the_cut_reaches_the_planted_one(hyper: str, start: float) -> None:
    assert 54 <= Toy(1).learn(start, hyper)[-1] <= 66


@pytest.mark.slow
def test_the_cut_comes_near_the_planted_one_by_unrolled_adam() -> None:
    assert 40 <= Toy(2).learn(0.5, "adam")[-1] <= 90
