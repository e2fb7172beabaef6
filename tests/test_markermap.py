"""MarkerMap and its relatives as methods: networks, losses, training, stopping, predictors."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods import markermap
from panelbench.methods.markermap import params as parameters
from panelbench.methods.markermap.data import Cells
from panelbench.methods.markermap.lr_finder import find_lr, steepest
from panelbench.methods.markermap.model import Model, Objective, reconstruction_loss
from panelbench.methods.markermap.selector import Concrete, RunningLogits
from panelbench.methods.markermap.stopping import EarlyStop
from panelbench.methods.markermap.subset import gumbel, rounds
from panelbench.methods.markermap.training import Trained, build, train

from panelbench.errors import NotApplicable
from panelbench.method import Selection, Target, Task, frozen_mapping
from panelbench.nn import drop

N_CELLS, N_GENES, K = 400, 60, 6
SELECT = {
    "markermap": (markermap.select_supervised, markermap.SupervisedParams),
    "markermap-joint": (markermap.select_joint, markermap.JointParams),
    "markermap-unsup": (markermap.select_unsupervised, markermap.MarkerMapParams),
    "concrete-vae": (markermap.select_concrete, markermap.ConcreteParams),
    "gumbel-vae": (markermap.select_gumbel, markermap.Params),
}
SUPERVISED = ("markermap", "markermap-joint")
RECONSTRUCTING = ("markermap-joint", "markermap-unsup", "concrete-vae", "gumbel-vae")


def make_task(id: str = "markermap", seed: int = 0, **given: Any) -> Task:
    """Three classes marked by two genes each, z-scored, a tenth of the cells for validation."""
    rng = np.random.default_rng(5)
    codes = rng.integers(3, size=N_CELLS)
    X = rng.normal(size=(N_CELLS, N_GENES))
    X[np.arange(N_CELLS), 2 * codes] += 3
    X[np.arange(N_CELLS), 2 * codes + 1] += 3
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    X.setflags(write=False)
    target = Target("type", "classification", codes.astype(np.int64), ("a", "b", "c"))
    options: dict[str, Any] = {
        "X": X,
        "genes": np.array([f"g{i:02d}" for i in range(N_GENES)]),
        "targets": frozen_mapping({"type": target} if id in SUPERVISED else {}),
        "k": K,
        "seed": seed,
        "validation": np.arange(N_CELLS) % 10 == 0,
    }
    return Task(**(options | given))


def settings(id: str, n_genes: int = N_GENES, **given: Any) -> parameters.Settings:
    short: dict[str, Any] = {"preset": "paper", "lr": 1e-3, "min_epochs": 2, "max_epochs": 2}
    return parameters.settings(id, SELECT[id][1](**(short | given)), n_genes)  # type: ignore[arg-type]


def run(id: str, task: Task | None = None, **given: Any) -> Selection:
    select, params = SELECT[id]
    short: dict[str, Any] = {"preset": "paper", "lr": 1e-3, "min_epochs": 3, "max_epochs": 3}
    return select(task or make_task(id), params(**(short | given)))  # type: ignore[operator]


def columns(found: Selection, k: int = K) -> list[int]:
    return [int(gene[1:]) for gene in list(found.ranking)[:k]]


@pytest.fixture(scope="module", params=list(SELECT))
def trained(request: pytest.FixtureRequest) -> tuple[str, Task, Selection, Trained]:
    """A short training, and what the method makes of it."""
    id = request.param
    task = make_task(id)
    return id, task, run(id, task), train(task, settings(id, min_epochs=3, max_epochs=3))


# -- networks and losses -------------------------------------------------------------------


def test_number_of_parameters() -> None:
    task = make_task("markermap-joint")
    wide = replace(
        task,
        X=np.zeros((10, 500), np.float32),
        targets=frozen_mapping(
            {"type": replace(task.target, classes=tuple("abcde"), values=np.zeros(10, np.int64))}
        ),
    )
    model = build(wide, settings("markermap-joint", 500))
    assert sum(p.numel() for p in model.parameters()) == 180_673
    encoder = [type(layer).__name__ for layer in flat(model.layers["encoder"])]
    block = ["BatchNorm1d", "LeakyReLU"]
    assert encoder == [*block, "Linear", *block, "Linear", "LeakyReLU"]
    assert isinstance(model.selector, RunningLogits)
    upper = [type(layer).__name__ for layer in flat(model.selector.upper)]
    assert upper == ["Linear", *block, "LeakyReLU"]


def flat(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in module.modules() if not list(m.children())]


def test_what_the_loss_does_not_need_is_not_built() -> None:
    names = {id: set(build(make_task(id), settings(id)).layers) for id in SELECT}
    common = {"first", "encoder", "mean"}
    decoder = {"decoder", "decoder_log_variance", "log_variance"}
    assert names["markermap"] == common | {"classifier"}
    assert names["markermap-joint"] == common | {"classifier"} | decoder
    for id in ("markermap-unsup", "concrete-vae", "gumbel-vae"):
        assert names[id] == common | decoder


def test_every_parameter_has_a_gradient() -> None:
    for id in SELECT:
        task = make_task(id)
        model = build(task, settings(id))
        x = torch.tensor(np.asarray(task.X[:32]))
        y = torch.from_numpy(task.target.values[:32]) if id in SUPERVISED else None
        model.training_loss(x, y, 1.0, torch.Generator().manual_seed(0)).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert all(p.grad.abs().max() > 0 for p in model.selector.parameters())


def test_loss_and_gradients_are_those_of_the_textbook_form() -> None:
    """Masked cells, logits of every cell, recorded top-k: the same numbers, step by step."""
    task = make_task("markermap-joint")
    model = build(task, settings("markermap-joint"))
    selector = model.selector
    assert isinstance(selector, RunningLogits)
    for part in (model.layers, selector.lower, selector.upper, selector.out):
        part.double()
    selector.logits = selector.logits.double()
    x, y = torch.tensor(np.asarray(task.X[:50])).double(), torch.from_numpy(task.target.values[:50])

    def textbook(noise: torch.Generator) -> torch.Tensor:
        lower = drop(selector.lower(x), 0.5, noise, "bernoulli")
        logits = selector.out(selector.upper(lower))
        keys = 0.05 * logits.mean(0) + gumbel((N_GENES,), noise)
        mask = torch.zeros(N_GENES, dtype=torch.float64)
        for _ in range(K):
            p = torch.softmax(keys / 1.3, 0)
            mask, keys = mask + p, keys + torch.log(1 - p)
        return model.loss(model.first(x * mask), x, y, noise)

    results = []
    for form in (textbook, lambda noise: model.training_loss(x, y, 1.3, noise)):
        for parameter in model.parameters():
            parameter.grad = None
        loss = form(torch.Generator().manual_seed(3))
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters()]))  # type: ignore[union-attr]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert (a - b).abs().max() < 1e-8 * max(1.0, a.abs().max().item())


def test_running_logits_are_an_average_and_the_past_has_no_gradient() -> None:
    selector = RunningLogits(
        N_GENES, K, 8, 0.95, torch.Generator().manual_seed(0), torch.device("cpu")
    )
    x = torch.randn(20, N_GENES, generator=torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(2)
    state = noise.get_state()
    logits = selector.update(x, noise)
    noise.set_state(state)
    each = selector.out(selector.upper(drop(selector.lower(x), 0.5, noise, "bernoulli")))
    assert torch.allclose(logits, 0.05 * each.mean(0), atol=1e-6)
    with torch.no_grad():
        selector.out.weight.zero_()
        selector.logits.zero_()
    for _ in range(7):
        logits = selector.update(x, noise)
    assert torch.allclose(logits, (1 - 0.95**7) * selector.out.bias, atol=1e-6)
    assert not selector.logits.requires_grad
    logits.sum().backward()
    assert selector.out.bias.grad is not None
    assert torch.allclose(selector.out.bias.grad, torch.full((N_GENES,), 0.05))


def test_loss_is_linear_in_the_tradeoff() -> None:
    task = make_task("markermap-joint")
    x, y = torch.tensor(np.asarray(task.X)), torch.from_numpy(task.target.values)
    losses = []
    for a in (0.2, 0.5, 0.8):
        model = build(task, settings("markermap-joint", tradeoff=a))
        losses.append(model.training_loss(x, y, 1.0, torch.Generator().manual_seed(0)).item())
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
    assert losses[2] > 2 * losses[0]


def test_reconstruction_loss_has_its_closed_forms() -> None:
    plain = Objective(1.0, 0.1, per_gene=False, variance_limit=None)
    x, zero = torch.randn(7, 30), torch.zeros(7, 4)
    floor = reconstruction_loss(x, x, torch.zeros_like(x), zero, zero, plain)
    assert floor.item() == pytest.approx(30 * 0.5 * math.log(2 * math.pi), rel=1e-6)

    mean, spread = torch.randn(7, 4), torch.randn(7, 4)
    normal = torch.distributions.Normal(mean, (0.5 * spread).exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    found = reconstruction_loss(x, x, torch.zeros_like(x), mean, spread, plain) - floor
    assert found.item() == pytest.approx(0.1 * divergence.sum().item() / 7, rel=1e-3)

    expected, scale = torch.randn(7, 30), torch.randn(7, 30)
    likelihood = torch.distributions.Normal(expected, (0.5 * scale).exp()).log_prob(x)
    found = reconstruction_loss(x, expected, scale, zero, zero, plain)
    assert found.item() == pytest.approx(-likelihood.sum().item() / 7, rel=1e-5)
    shared = reconstruction_loss(x, expected, scale, zero, zero, replace(plain, per_gene=True))
    assert shared.item() == pytest.approx(found.item() / 30, rel=1e-5)

    far = torch.full_like(x, -80.0)
    bounded = replace(plain, variance_limit=10.0)
    assert reconstruction_loss(x, x, far, zero, zero, bounded).item() == pytest.approx(
        reconstruction_loss(x, x, far / 8, zero, zero, plain).item()
    )


def test_classification_loss_is_cross_entropy_without_noise() -> None:
    task = make_task()
    model = build(task, settings("markermap"))
    x, y = torch.tensor(np.asarray(task.X)), torch.from_numpy(task.target.values)
    noise = torch.Generator().manual_seed(0)
    genes, weight = model.selector.hard(model.first.weight, 1.0, noise)
    first = model.panel_loss(x, y, genes, weight, noise)
    assert first.item() == model.panel_loss(x, y, genes, weight, noise).item()
    mask = torch.zeros(N_GENES)
    mask[genes] = 1
    model.layers.eval()
    mean = model.layers["mean"](model.layers["encoder"](model.first(x * mask)))
    logs = torch.log_softmax(model.layers["classifier"](mean), 1)
    assert first.item() == pytest.approx(-logs[torch.arange(N_CELLS), y].mean().item(), rel=1e-5)


def test_validation_changes_nothing(trained: tuple[str, Task, Selection, Trained]) -> None:
    _, task, _, result = trained
    model, noise = copy.deepcopy(result.model), torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in model.layers.state_dict().items()}
    genes, weight = model.selector.hard(model.first.weight, 1.0, noise)
    scores = model.selector.scores().clone()
    x = torch.tensor(np.asarray(task.X))
    y = torch.from_numpy(task.target.values) if task.targets else None
    model.panel_loss(x, y, genes, weight, noise)
    assert torch.equal(scores, model.selector.scores())
    for name, value in model.layers.state_dict().items():
        assert torch.equal(before[name], value)
    assert model.layers.training


# -- selectors ------------------------------------------------------------------------------


def test_panel_is_the_top_k_of_the_scores(trained: tuple[str, Task, Selection, Trained]) -> None:
    id, _, found, result = trained
    assert sorted(result.genes.tolist()) == list(range(N_GENES))
    assert columns(found) == result.genes[:K].tolist()
    scores = np.asarray(found.scores)
    assert (np.diff(scores) <= 0).all()
    by_gene = result.model.selector.scores().numpy()
    assert set(np.argsort(-by_gene)[:K]) == set(columns(found))
    if id != "concrete-vae":
        first = result.model.first.weight.detach().numpy()
        np.testing.assert_array_equal(result.weight, first[:, columns(found)])


def concrete(readout: str, k: int = 4, d: int = 9) -> Concrete:
    generator = torch.Generator().manual_seed(0)
    return Concrete(d, k, readout, generator, torch.device("cpu"))  # type: ignore[arg-type]


def test_concrete_rows_are_independent_choices() -> None:
    selector = concrete("argmax")
    first = torch.randn(3, 4)
    noise = torch.Generator().manual_seed(1)
    state = noise.get_state()
    found = selector.weight(first, torch.empty(0), 0.7, noise)
    noise.set_state(state)
    rows = torch.softmax((selector.logits + gumbel((4, 9), noise)) / 0.7, dim=1)
    x = torch.randn(5, 9)
    assert torch.allclose(x @ found.T, (x @ rows.T) @ first.T, atol=1e-5)


def test_concrete_readout_removes_duplicates_and_keeps_what_the_rows_read() -> None:
    selector = concrete("argmax")
    with torch.no_grad():
        selector.logits.zero_()
        selector.logits[[0, 1, 2, 3], [5, 5, 2, 7]] = 9.0
        selector.logits[0, 8] = 3.0
    first = torch.randn(3, 4)
    genes, weight = selector.hard(first, 1.0, torch.Generator())
    assert genes[:1].tolist() == [5]
    assert set(genes.tolist()) == {5, 2, 7, 8}, "two rows agree: the next best fills the place"
    x = torch.randn(6, 9)
    assert torch.allclose(x[:, genes] @ weight.T, x[:, [5, 5, 2, 7]] @ first.T, atol=1e-6)
    assert torch.equal(genes, selector.hard(first, 0.1, torch.Generator())[0])


def test_concrete_noisy_readout_is_a_draw() -> None:
    selector = concrete("noisy", d=200)
    noise = torch.Generator().manual_seed(0)
    panels = [selector.hard(torch.randn(3, 4), 2.0, noise)[0].tolist() for _ in range(2)]
    assert panels[0] != panels[1]
    assert set(selector.scores().topk(4).indices.tolist()) == set(panels[1])


# -- learning rate, stopping, schedules --------------------------------------------------------


def test_search_finds_where_the_loss_falls_fastest() -> None:
    rates = []

    def step(rate: float) -> float:
        rates.append(rate)
        return 1 / (1 + math.exp((rate - 4e-4) / 2e-5))

    found = find_lr(step, 1e-3, 500)
    assert rates[0] == 1e-8
    assert rates[-1] == 1e-3
    assert len(rates) == 500
    assert np.diff(rates)[1:] == pytest.approx(1e-3 / 500, rel=1e-4)
    # Smoothing over 50 steps delays it by at most as many.
    assert 4e-4 < found < 5e-4


def test_search_leaves_out_both_ends_and_stops_when_it_diverges() -> None:
    falls = [5.0] * 5 + [1.0] * 30 + [0.9] * 5 + [-50.0]
    rates = [float(i) for i in range(len(falls))]
    assert steepest(rates, falls) == 34
    assert steepest(rates[:11], falls[:11]) is None
    steps = iter(range(1000))
    find_lr(lambda rate: 1.0 if next(steps) < 100 else 1e6, 1e-3, 1000)
    assert next(steps) < 110
    assert find_lr(lambda rate: 1.0, 1e-3, 5) == 5e-4


@pytest.mark.parametrize("id", ["markermap", "markermap-unsup", "concrete-vae"])
def test_the_found_rate_is_used_and_the_search_leaves_nothing_behind(id: str) -> None:
    searched = run(id, lr=None, lr_steps=60, max_epochs=8)
    cap = parameters.PRESETS["paper"][id]["max_lr"]  # type: ignore[index]
    assert 1e-8 < searched.info["lr"] <= cap
    given = run(id, lr=searched.info["lr"], max_epochs=8)
    other = run(id, lr=1.5 * searched.info["lr"], max_epochs=8)
    assert list(searched.scores) == list(given.scores)  # type: ignore[arg-type]
    assert searched.info["curves"] == given.info["curves"]
    assert given.info["curves"]["train loss"] != other.info["curves"]["train loss"]


FALLS_THEN_RISES = [5.0, 4.0, 4.0, 4.5, 3.0, 2.0, 1.0, 1.5, 1.5, 1.0, 0.5, 0.4]


@pytest.mark.parametrize(
    ("form", "patience", "min_epochs", "losses", "stops"),
    [
        ("sticky", 2, 1, FALLS_THEN_RISES, 4),
        ("sticky", 2, 6, FALLS_THEN_RISES, 6),  # triggered at 4, remembered
        ("rolling", 2, 6, FALLS_THEN_RISES, 9),  # forgotten; again after 8 and 9
        ("rolling", 2, 4, FALLS_THEN_RISES, 4),
        ("late", 2, 6, FALLS_THEN_RISES, 9),
        ("late", 2, 4, FALLS_THEN_RISES, 9),  # epoch 3 is not looked at
        ("sticky", 9, 1, FALLS_THEN_RISES, None),
        ("sticky", 9, 3, [5.0, math.nan, 4.0, 3.0], 3),
        ("rolling", 9, 3, [5.0, math.nan, 4.0, 3.0], None),
        ("rolling", 9, 1, [5.0, math.inf, 4.0, 3.0], 2),
    ],
)
def test_early_stopping(
    form: Any, patience: int, min_epochs: int, losses: Sequence[float], stops: int | None
) -> None:
    rule = EarlyStop(form, patience, min_epochs)
    answers = [rule.update(epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    assert (answers.index(True) + 1 if True in answers else None) == stops


def test_training_keeps_to_its_epochs() -> None:
    for form in ("sticky", "rolling", "late"):
        # With random labels validation soon gets worse.
        values = np.random.default_rng(0).integers(3, size=N_CELLS)
        task = make_task()
        target = replace(task.target, values=values)
        found = run(
            "markermap",
            replace(task, targets=frozen_mapping({"type": target})),
            early_stop=form,
            patience=1,
            min_epochs=4,
            max_epochs=40,
        )
        assert 4 <= found.info["epochs"] < 40
        assert found.info["stopped"] == "early stopping"
    full = run("markermap", patience=100, min_epochs=4, max_epochs=5)
    assert (full.info["epochs"], full.info["stopped"]) == (5, "max_epochs")


def test_temperatures() -> None:
    def after(id: str, epochs: int) -> float:
        return parameters.temperature(settings(id), epochs)

    assert after("markermap", 0) == after("concrete-vae", 0) == 3.0
    assert after("markermap", 25) == pytest.approx(0.8322, abs=1e-4)
    assert after("markermap", 100) == pytest.approx(0.0178, abs=1e-4)
    assert after("markermap", 500) == 1e-4
    assert after("concrete-vae", 25) == pytest.approx(2.333, abs=1e-3)
    assert after("concrete-vae", 100) == pytest.approx(1.098, abs=1e-3)
    assert after("gumbel-vae", 500) == 1e-3


def test_the_temperature_falls_from_epoch_to_epoch_and_before_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, list[float]] = {"training": [], "validation": []}
    draw, hard = Model.training_loss, RunningLogits.hard

    def training(self: Any, x: Any, y: Any, tau: float, noise: Any) -> Any:
        seen["training"].append(round(tau, 6))
        return draw(self, x, y, tau, noise)

    def validation(self: Any, weight: Any, tau: float, noise: Any) -> Any:
        seen["validation"].append(round(tau, 6))
        return hard(self, weight, tau, noise)

    monkeypatch.setattr(Model, "training_loss", training)
    monkeypatch.setattr(RunningLogits, "hard", validation)
    found = run("markermap", lr=1e-3, min_epochs=3, max_epochs=3)
    taus = [3.0, 2.85, 2.7075, 2.572125]
    assert list(dict.fromkeys(seen["training"])) == taus[:3]
    assert seen["validation"] == taus[1:]
    assert found.info["curves"]["temperature"] == taus[:3]


@pytest.mark.parametrize(
    ("id", "max_lr", "patience", "t_decay"),
    [
        ("markermap", 1e-3, 3, 0.95),
        ("markermap-joint", 1e-4, 3, 0.95),
        ("markermap-unsup", 1e-4, 4, 0.95),
        ("concrete-vae", 1e-4, 3, 0.99),
        ("gumbel-vae", 1e-5, 10, 0.95),
    ],
)
def test_the_papers_preset(id: str, max_lr: float, patience: int, t_decay: float) -> None:
    paper = parameters.settings(id, SELECT[id][1](preset="paper"), 500)  # type: ignore[arg-type]
    assert (paper.max_lr, paper.patience, paper.t_decay) == (max_lr, patience, t_decay)
    assert (paper.lr, paper.lr_steps, paper.t_start) == (None, 500, 3.0)
    assert (paper.min_epochs, paper.max_epochs, paper.batch_size) == (25, 100, 64)
    assert (paper.early_stop, paper.kl_weight, paper.latent) == ("sticky", 0.1, 16)
    assert not paper.clamp_variance and not paper.per_gene
    given = SELECT[id][1](preset="paper", patience=7)
    assert parameters.settings(id, given, 500).patience == 7  # type: ignore[arg-type]


def test_widths_are_the_papers() -> None:
    sizes = {500: 64, 3074: 256, 4000: 256, 4293: 500, 4581: 500, 7115: 500}
    assert {d: parameters.width(d) for d in sizes} == sizes


# -- training ---------------------------------------------------------------------------------


def test_finds_the_markers_and_classifies_with_them() -> None:
    task = make_task()
    found = run("markermap", task, max_epochs=25, min_epochs=25)
    assert set(columns(found)) == set(range(6))
    assert isinstance(found.predictor, markermap.MarkerMapPredictor)
    proba = found.predictor.predict_proba("type", np.asarray(task.X)[:, columns(found)])
    assert (proba.argmax(1) == task.target.values).mean() > 0.95


def test_validation_cells_are_not_trained_on() -> None:
    task = make_task()
    held = task.validation
    assert held is not None
    spoiled = np.where(held, 0, task.target.values)
    other = replace(task, targets=frozen_mapping({"type": replace(task.target, values=spoiled)}))
    a, b = run("markermap", task), run("markermap", other)
    assert list(a.scores) == list(b.scores)  # type: ignore[arg-type]
    losses = [found.info["curves"]["validation loss"] for found in (a, b)]
    assert losses[0] != losses[1]


def test_a_tenth_is_held_out_where_the_split_has_no_validation_cells() -> None:
    cells = Cells.of(make_task(validation=None), labelled=True)
    assert len(cells.validation) == N_CELLS / 10
    assert sorted([*cells.training, *cells.validation]) == list(range(N_CELLS))


def test_a_last_batch_of_one_cell_is_left_out() -> None:
    held = np.arange(N_CELLS) >= 129  # 129 = 2 x 64 + 1 cells to train on
    found = run("markermap", make_task(validation=held))
    assert np.isfinite(found.info["curves"]["train loss"]).all()
    with pytest.raises(NotApplicable, match="found 1 and"):
        run("markermap", make_task(validation=np.arange(N_CELLS) > 0))


def test_nan_is_an_error_that_says_what_to_do() -> None:
    X = np.array(make_task().X)
    X[3, 3] = np.nan
    with pytest.raises(ValueError, match=r"became nan in epoch 1.*learning rate"):
        run("markermap", make_task(X=X))


def test_info_tells_the_course_of_the_training(
    trained: tuple[str, Task, Selection, Trained],
) -> None:
    _, _, found, _ = trained
    info = json.loads(json.dumps(dict(found.info), allow_nan=False))
    names = {"train loss", "validation loss", "temperature", "panel turnover"}
    assert set(info["curves"]) == names
    assert {len(curve) for curve in info["curves"].values()} == {info["epochs"]} == {3}
    assert (info["preset"], info["lr"], info["stopped"]) == ("paper", 1e-3, "max_epochs")
    assert info["temperature"] == pytest.approx(info["curves"]["temperature"][-1])


def test_progress_is_told() -> None:
    told: list[tuple[float, str]] = []
    run("markermap", make_task(progress=lambda *line: told.append(line)))
    assert [fraction for fraction, _ in told] == pytest.approx([1 / 3, 2 / 3, 1])
    assert "tau" in told[-1][1]


def test_one_mask_serves_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from panelbench.methods.markermap import subset

    seen = []

    def spied(keys: torch.Tensor, k: int, tau: float) -> torch.Tensor:
        seen.append(tuple(keys.shape))
        return rounds(keys, k, tau)

    monkeypatch.setattr(subset, "rounds", spied)
    run("markermap", min_epochs=1, max_epochs=1)
    assert seen == [(N_GENES,)] * math.ceil(0.9 * N_CELLS / 64)


# -- predictors -------------------------------------------------------------------------------


def test_predictor_is_the_network_behind_the_hard_mask(
    trained: tuple[str, Task, Selection, Trained],
) -> None:
    id, task, found, result = trained
    predictor = found.predictor
    assert isinstance(predictor, markermap.MarkerMapPredictor)
    assert predictor.genes == list(found.ranking)[:K]
    X = np.asarray(task.X)[:, columns(found)]
    layers = result.model.layers.eval()
    with torch.no_grad():
        hidden = torch.tensor(X) @ torch.tensor(result.weight).T + result.model.first.bias
        mean = layers["mean"](layers["encoder"](hidden))
        if id in SUPERVISED:
            whole = torch.softmax(layers["classifier"](mean), 1).numpy()
            assert np.abs(predictor.predict_proba("type", X) - whole).max() < 1e-5
        if id in RECONSTRUCTING:
            found_all = predictor.reconstruct(X)
            assert found_all.dtype == np.float32
            assert np.abs(found_all - layers["decoder"](mean).numpy()).max() < 1e-4


def test_predictor_survives_saving(trained: tuple[str, Task, Selection, Trained]) -> None:
    id, task, found, _ = trained
    predictor = found.predictor
    assert isinstance(predictor, markermap.MarkerMapPredictor)
    arrays, facts = predictor.save()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert arrays["encoder0.weight"].shape == (K, 64), "nothing of other genes is kept"
    twin = markermap.MarkerMapPredictor.load(arrays, json.loads(json.dumps(facts)))
    X = np.asarray(task.X)[:, columns(found)]
    if id in SUPERVISED:
        np.testing.assert_array_equal(
            predictor.predict_proba("type", X), twin.predict_proba("type", X)
        )
    if id in RECONSTRUCTING:
        np.testing.assert_array_equal(predictor.reconstruct(X), twin.reconstruct(X))


def test_drawn_reconstructions_are_noisy_and_repeatable() -> None:
    found = run("markermap-unsup", sample=True)
    mean = run("markermap-unsup").predictor
    predictor = found.predictor
    assert isinstance(predictor, markermap.MarkerMapPredictor)
    assert isinstance(mean, markermap.MarkerMapPredictor)
    X = np.asarray(make_task().X)[:, columns(found)]
    drawn = predictor.reconstruct(X)
    np.testing.assert_array_equal(drawn, predictor.reconstruct(X))
    assert np.abs(drawn - mean.reconstruct(X)).mean() > 0.01
    twin = markermap.MarkerMapPredictor.load(*predictor.save())
    np.testing.assert_array_equal(drawn, twin.reconstruct(X))


def test_predictor_refuses_what_it_cannot_do(
    trained: tuple[str, Task, Selection, Trained],
) -> None:
    id, _, found, _ = trained
    predictor = found.predictor
    assert isinstance(predictor, markermap.MarkerMapPredictor)
    X = np.zeros((2, K))
    with pytest.raises(ValueError, match="regression"):
        predictor.predict("type", X)
    if id not in SUPERVISED:
        with pytest.raises(ValueError, match="without labels"):
            predictor.predict_proba("type", X)
        return
    with pytest.raises(ValueError, match="6 genes"):
        predictor.predict_proba("type", np.zeros((2, K + 1)))
    with pytest.raises(ValueError, match="no task"):
        predictor.predict_proba("other", X)
    if id not in RECONSTRUCTING:
        with pytest.raises(ValueError, match="without a reconstruction"):
            predictor.reconstruct(X)
