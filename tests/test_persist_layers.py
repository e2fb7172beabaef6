"""The parts of PERSIST: mask, gates, losses, schedule and the search for the penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods.persist import gates, mask, network, search
from panelbench.methods.persist.data import Cells
from panelbench.methods.persist.noise import Noise
from panelbench.methods.persist.training import Settings, train

from panelbench.nn import one_thread

CPU = torch.device("cpu")


def noise(seed: int = 0) -> Noise:
    return Noise(seed, CPU)


def fresh_mask(n_rows: int = 8, n_genes: int = 50, seed: int = 0) -> mask.BinaryMask:
    return mask.BinaryMask(n_rows, n_genes, noise(seed))


def set_to(layer: Any, values: Any) -> None:
    with torch.no_grad():
        layer.theta.copy_(torch.as_tensor(values, dtype=torch.float32))


# Noise


def test_noise_has_its_distribution() -> None:
    uniform = noise().uniform_(torch.empty(3, 133_333))
    assert 0 < uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    counts = torch.histc(uniform, 100, 0, 1) / uniform.numel()
    assert (counts - 0.01).abs().max() < 0.001
    gumbel = -np.log(2) * noise().log2_exponential_(torch.empty(400_000))
    assert gumbel.mean() == pytest.approx(np.euler_gamma + np.log(np.log(2)), abs=0.01)
    assert gumbel.var() == pytest.approx(np.pi**2 / 6, abs=0.02)
    assert torch.isfinite(gumbel).all()
    logistic = noise().logistic(400_000)
    assert logistic.mean() == pytest.approx(0, abs=0.015)
    assert logistic.var() == pytest.approx(np.pi**2 / 3, abs=0.04)
    assert logistic.abs().max() <= 15.95


# Mask


@pytest.mark.parametrize("temperature", [10, 1, 0.01])
def test_rows_sum_to_one_and_masks_lie_between_one_and_k(temperature: float) -> None:
    layer = fresh_mask()
    assert (layer.logits == 0).all()
    assert (layer.rows(64, temperature).sum(dim=2) - 1).abs().max() < 1e-5
    total = layer.masks(64, temperature).sum(dim=1)
    assert total.min() >= 1 - 1e-4
    assert total.max() <= 8 + 1e-4


@pytest.mark.parametrize(("temperature", "mean"), [(10, 1.41), (1, 17.91), (0.01, 31.0)])
def test_mean_size_of_a_fresh_mask(temperature: float, mean: float) -> None:
    """Expectations for 32 rows and 500 genes, from 400 masks in float64."""
    total = fresh_mask(32, 500).masks(256, temperature).sum(dim=1)
    assert total.mean() == pytest.approx(mean, rel=0.01)


def test_saturated_rows_give_the_indicator_of_their_genes() -> None:
    layer, genes = fresh_mask(), torch.tensor([3, 1, 4, 15, 9, 2, 6, 5])
    set_to(layer, 20 * torch.eye(50)[genes])
    expected = torch.zeros(50)
    expected[genes] = 1
    assert (layer.masks(64, 0.01) - expected).abs().max() < 1e-4
    assert layer.genes.tolist() == genes.tolist()
    assert layer.converged(64, 0.01)


def test_every_cell_has_a_mask_of_its_own() -> None:
    found = fresh_mask().masks(64, 1.0)
    assert len(torch.unique(found, dim=0)) == 64


def plain_mask(theta: torch.Tensor, rows_noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """The textbook form, for autograd: softmax over genes, maximum over rows."""
    return torch.softmax((3 * theta + rows_noise) / temperature, dim=2).amax(dim=1)


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1, 0.01])
@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_mask_and_gradient_equal_the_textbook_form(
    temperature: float, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask, "_BLOCK", 2000)  # several blocks, the last one smaller
    layer = fresh_mask(n_rows, 40, seed=3)
    set_to(layer, 0.3 * torch.randn(n_rows, 40, generator=torch.Generator().manual_seed(1)))
    weights = torch.randn(50, 40, generator=torch.Generator().manual_seed(2))
    found = layer.sample(50, temperature)
    (found * weights).sum().backward()

    theta = layer.theta.detach().double().requires_grad_()
    drawn = -np.log(2) * noise(3).log2_exponential_(torch.empty(50, n_rows, 40)).double()
    expected = plain_mask(theta, drawn, temperature)
    (expected * weights).sum().backward()
    assert layer.theta.grad is not None and theta.grad is not None
    assert (found - expected).abs().max() < 1e-4
    scale = theta.grad.abs().max()
    assert (layer.theta.grad - theta.grad).abs().max() < 1e-3 * scale + 1e-6 / temperature


def test_both_forms_of_the_gradient_agree() -> None:
    """The one for the CPU, and the one whose sums have a fixed order on a GPU."""

    rows = torch.softmax(torch.randn(20, 6, 30, generator=torch.Generator().manual_seed(0)), dim=2)
    weighted = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    winners = rows.argmax(dim=1).to(torch.uint8)
    here = mask.gradient(rows, winners, weighted)
    assert (here - mask.gradient(rows, winners, weighted, ordered=True)).abs().max() < 1e-5


def test_repair_draws_all_but_the_last_holder_anew() -> None:
    layer = fresh_mask(4, 10)
    set_to(layer, 5 * torch.eye(10)[[3, 5, 3, 3]])
    before = layer.theta.detach().clone()
    assert layer.repair() == 2
    changed = (layer.theta.detach() != before).any(dim=1)
    assert changed.tolist() == [True, False, True, False]
    assert not layer.converged(64, 10.0)


def test_panel_keeps_the_surest_holder_and_fills_up() -> None:
    logits = np.full((4, 6), -9.0)
    logits[0, 2], logits[1, 2], logits[2, 5] = 1.0, 3.0, 2.0  # gene 2 twice
    logits[3, 5], logits[3, 1] = -8.0, -8.5  # gene 5 again; gene 1 next
    genes, scores, refilled = mask.panel(logits)
    assert genes.tolist() == [2, 5, 1, 0]
    assert refilled == 2
    assert scores[0] > scores[1] > scores[2] > scores[3] > 0


# Gates


def test_fresh_gates_are_open() -> None:
    layer = gates.BinaryGates(200_000, noise())
    assert layer.theta[0].item() == pytest.approx(2.29756, abs=1e-5)
    assert layer.probabilities[0].item() == pytest.approx(0.99, abs=1e-6)
    for temperature in (10.0, 1.0, 0.1):
        drawn = layer.sample(1, temperature)
        assert (drawn > 0.5).float().mean().item() == pytest.approx(0.99, abs=0.001)
    assert layer.sample(1, 10.0).mean().item() == pytest.approx(0.612, abs=0.002)
    assert layer.sample(1, 1.0).mean().item() == pytest.approx(0.963, abs=0.002)


def test_saturated_gates_count_themselves_and_converge() -> None:
    layer = gates.BinaryGates(10, noise())
    set_to(layer, [20.0] * 4 + [-20.0] * 6)
    assert layer.sample(64, 0.01).sum(dim=1).mean().item() == pytest.approx(4)
    assert layer.open.tolist() == [0, 1, 2, 3]
    assert layer.converged(64, 0.01)
    set_to(layer, [20.0] * 4 + [0.0] + [-20.0] * 5)
    assert not layer.converged(64, 0.01)


# Losses


def test_hurdle_loss_by_hand() -> None:
    output = torch.tensor([[0.5, 1.0, -1.0, 2.0]])  # values 0.5 and -1, logits of zero 1 and 2
    truth = torch.tensor([[2.0, 0.0]])
    surprise = np.log1p(np.exp(1.0)) + np.log1p(np.exp(-2.0))
    expected = 10 * surprise + (2.0 - 0.5) ** 2
    assert network.hurdle(output, truth).item() == pytest.approx(expected, rel=1e-6)
    both = network.hurdle(output.repeat(3, 1), truth.repeat(3, 1))
    assert both.item() == pytest.approx(expected, rel=1e-6), "mean over cells"


def test_hurdle_loss_wants_two_outputs_per_gene() -> None:
    with pytest.raises(ValueError, match="2 outputs per gene"):
        network.hurdle(torch.zeros(3, 4), torch.zeros(3, 4))


def test_values_of_absent_genes_have_no_gradient() -> None:
    output = torch.randn(5, 8, requires_grad=True)
    network.hurdle(output, torch.zeros(5, 4)).backward()
    assert output.grad is not None
    assert (output.grad[:, 0::2] == 0).all()
    assert (output.grad[:, 1::2] != 0).all()


def test_squared_error_sums_over_genes() -> None:
    assert network.squared_error(torch.ones(5, 3), torch.zeros(5, 3)).item() == 3


def test_network_shows_preselected_genes_as_they_are() -> None:
    net = network.Network([5, 4, 2], torch.Generator().manual_seed(0), CPU)
    x = torch.rand(6, 5)
    whole = net.forward(x, torch.ones(6, 5))
    assert torch.allclose(whole, net.forward(x, torch.ones(6, 3)), atol=1e-6)
    hidden = net.forward(torch.cat([x[:, :2], torch.zeros(6, 3)], dim=1), torch.ones(6, 5))
    assert torch.allclose(hidden, net.forward(x, torch.zeros(6, 3)), atol=1e-6)


# Training


def cells(
    seed: int = 0, *, n_genes: int = 100, n_cells: int = 2000, shuffled: bool = False
) -> Cells:
    """The first four genes, as a code, are the class."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2, (n_cells, n_genes))
    codes = X[:, :4] @ 2 ** np.arange(4)
    X = X ^ (rng.random(X.shape) < 0.05)
    codes = rng.permutation(codes) if shuffled else codes
    return Cells(
        torch.from_numpy(X.astype(np.uint8)),
        torch.from_numpy(codes),
        np.arange(n_cells),
        np.arange(0),
    )


def schedule(epochs: int, lr: float = 1e-3) -> Settings:
    return Settings(epochs, batch_size=64, lr=lr, t_start=10.0, t_end=0.01)


def trained(layer: Any, data: Cells, settings: Settings, seed: int = 0, **options: Any) -> Any:
    net = network.Network([data.inputs.shape[1], 64, 16], torch.Generator().manual_seed(seed), CPU)
    shuffle = np.random.default_rng(seed)
    options = {"progress": lambda fraction, text: None} | options
    # As in a method: threads wait for each other longer than such small matrices take.
    with one_thread():
        return train(layer, net, data, network.cross_entropy, settings, shuffle, **options)


def test_temperature_falls_with_every_step_from_start_to_end() -> None:
    settings = schedule(3)
    for fraction in np.linspace(0, 1, 7):
        assert settings.temperature(fraction) == pytest.approx(10 * 1e-3**fraction)
    used: list[float] = []
    layer = fresh_mask(4, 100)
    plain: Callable[..., torch.Tensor] = layer.sample
    layer.sample = lambda n, t: used.append(t) or plain(n, t)  # type: ignore[assignment,func-returns-value]
    history = trained(layer, cells(), settings)
    assert history.steps == len(used) == 3 * (2000 // 64)
    assert used[0] == 10
    np.testing.assert_allclose(np.diff(np.log(used)), np.log(1e-3) / history.steps, rtol=1e-6)
    assert history.temperature == pytest.approx(0.01, rel=1e-6)


def test_no_row_is_drawn_anew_after_the_last_epoch() -> None:
    layer = fresh_mask(40, 60)
    history = trained(layer, cells(n_genes=60), schedule(2))
    assert history.repaired[0] > 0
    assert history.repaired[1] == 0
    assert len(set(layer.genes.tolist())) < 40, "rows still agree"


def test_training_ends_when_the_layer_has_converged() -> None:
    layer = fresh_mask(4, 100)
    set_to(layer, 20 * torch.eye(100)[:4])
    history = trained(layer, cells(), schedule(50))
    assert history.converged
    assert len(history.loss) < 50


def test_fewer_cells_than_a_batch_are_one_batch() -> None:
    few = cells(n_cells=20)
    assert trained(fresh_mask(4, 100), few, schedule(3)).steps == 3


@pytest.mark.slow
def test_gates_keep_exactly_the_planted_genes() -> None:
    """At a penalty of 0.1, in 100 epochs."""
    layer = gates.BinaryGates(100, noise())
    trained(layer, cells(), schedule(100), penalty=0.1)
    assert layer.open.tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_gates_close_where_there_is_nothing_to_learn() -> None:
    layer = gates.BinaryGates(100, noise())
    trained(layer, cells(shuffled=True), schedule(100), penalty=0.1)
    assert len(layer.open) == 0


def test_gates_stay_open_under_a_small_penalty() -> None:
    layer = gates.BinaryGates(100, noise())
    trained(layer, cells(), schedule(40), penalty=1e-4)
    assert len(layer.open) == 100


# Search


def test_penalties_of_the_published_traces() -> None:
    step = search.next_penalty
    assert step([(0, 10_000)], 1e-4, 138, 500) == pytest.approx(2.6726e-5, rel=1e-4)
    assert step([(0, 10_000)], 0.01, 6733, 500) == pytest.approx(0.1)
    assert step([(0, 10_000), (0.01, 6733)], 0.1, 3063, 500) == pytest.approx(0.884737, rel=1e-5)
    assert step([(0, 1838)], 1e-4, 391, 500) == pytest.approx(7.23496e-5, rel=1e-5)


def test_a_penalty_that_comes_back_stays_finite() -> None:
    seen = [(0, 10_000), (0.01, 9000), (0.1, 300)]
    assert 0 < search.next_penalty(seen, 0.01, 8900, 500) <= 0.1
    assert 0 < search.next_penalty([(0.01, 9000)], 0.01, 8900, 500) <= 0.1


def gate_counts(count: Callable[[float], int], n_genes: int = 1000) -> Any:
    """A training that leaves open as many gates as a function of the penalty says."""
    calls: list[tuple[float, bool]] = []

    def training(penalty: float, fresh: bool) -> np.ndarray:
        calls.append((penalty, fresh))
        n_open = count(penalty)
        return np.r_[np.linspace(0.99, 0.6, n_open), np.linspace(0.4, 0.1, n_genes - n_open)]

    training.calls = calls  # type: ignore[attr-defined]
    return training


def run_search(training: Any, **options: Any) -> search.Found:
    given: dict[str, Any] = {"at_least": 8, "tol": 0.2, "max_trials": 10, "start": 1e-4}
    return search.search(training, 1000, 100, **(given | options))


def test_search_finds_a_smooth_target() -> None:
    training = gate_counts(lambda penalty: round(1000 / (1 + penalty * 1e4)))
    found = run_search(training)
    assert found.fallback == "none"
    assert 80 <= len(found.genes) <= 120
    assert found.genes.tolist() == list(range(len(found.genes)))


def test_a_trial_that_closed_too_much_is_followed_by_a_fresh_one() -> None:
    training = gate_counts(lambda penalty: round(1000 / (1 + penalty * 1e4)))
    found = run_search(training, start=0.1)
    for trial, (_, fresh) in zip(found.trials, training.calls[1:], strict=False):
        assert fresh == (trial.n_open < 80)
    assert training.calls[0][1]


def test_bisection_finds_what_secants_miss() -> None:
    """A window that is narrow on the scale of the penalty, beside a cliff."""
    steps = [(0.02, 1000), (0.03, 950), (0.034, 100), (1e9, 4)]
    training = gate_counts(lambda penalty: next(n for edge, n in steps if penalty < edge))
    found = run_search(training, max_trials=4, start=0.01)
    assert found.fallback == "bisection"
    assert len(found.genes) == 100


def test_on_a_cliff_the_nearest_trial_serves() -> None:
    training = gate_counts(lambda penalty: 990 if penalty < 0.03 else 4)
    found = run_search(training)
    assert found.fallback == "nearest"
    assert len(found.trials) == 10 + search.BISECTIONS
    assert found.genes.tolist() == list(range(120)), "the surest of too many"


def test_too_few_open_gates_never_serve() -> None:
    training = gate_counts(lambda penalty: 4)
    assert run_search(training).genes.tolist() == list(range(8)), "filled up to what is needed"


def test_middle_of_the_bracket() -> None:
    assert search.between([(0, 1000), (0.01, 900), (0.04, 50), (0.09, 4)], 100) == pytest.approx(
        0.02
    )
    assert search.between([(0, 1000), (0.04, 50)], 100) == pytest.approx(0.004)
    assert search.between([(0, 1000), (0.04, 500)], 100) == pytest.approx(0.4)
