"""YOTO's trainings of several runs at once: the same as alone, whatever differs between them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods import yoto
from panelbench.methods.yoto import batch, crossfit, training
from panelbench.methods.yoto.asking import Learn
from panelbench.methods.yoto.mask import TopK
from panelbench.methods.yoto.masks import TopKs
from panelbench.methods.yoto.model import Network
from panelbench.methods.yoto.networks import Networks
from panelbench.methods.yoto.optimizers import ScoreAdam
from panelbench.methods.yoto.options import Settings
from panelbench.methods.yoto.search import Search
from panelbench.methods.yoto.searches import Searches

from panelbench.contract import tasks
from panelbench.method import Task, frozen_mapping
from panelbench.nn import one_thread
from panelbench.registry import discover


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """One thread: more wait for each other on a busy machine."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that anyone with a GPU can run."""
    path = Path(__file__).parent / "perf" / "gpu.py"
    spec = importlib.util.spec_from_file_location("perf_gpu", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


# -- masks ---------------------------------------------------------------------------------

RAGGED = [
    ([300, 280, 300], [20, 150, 280], [0.1, 1.0, 0.02]),
    ([90, 40, 60], [1, 40, 60], [10.0] * 3),
    ([800, 800], [700, 16], [0.05, 0.05]),
]


@pytest.mark.parametrize(("sizes", "ks", "taus"), RAGGED)
def test_masks_of_several_models_are_those_of_each(
    sizes: list[int], ks: list[int], taus: list[float]
) -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.full((len(sizes), max(sizes)), -torch.inf)
    for row, size in zip(scores, sizes, strict=True):
        row[:size] = 0.1 * torch.randn(size, generator=g)
    upstream = torch.randn(scores.shape, generator=g)
    several = TopKs(scores, sizes, ks, taus)
    soft = several.soft()
    slopes = several.gradient(upstream.gather(1, several.order[:, : several.reach]))
    reaches = []
    for m, (size, k, tau) in enumerate(zip(sizes, ks, taus, strict=True)):
        alone = TopK(scores[m, :size], k, tau)
        reaches.append(alone.reach)
        assert several.order[m, :k].tolist() == alone.order[:k].tolist()
        torch.testing.assert_close(soft[m, :size], alone.soft(), rtol=0, atol=1e-7)
        wanted = alone.gradient(upstream[m][alone.order[: alone.reach]])
        bound = 1e-6 * float(wanted.abs().max())
        torch.testing.assert_close(slopes[m, :size], wanted, rtol=0, atol=bound)
        assert not soft[m, size:].any()
        assert not slopes[m, size:].any()
    assert several.reach == max(reaches), "as many ranks as any of them needs"


def test_masks_say_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"between 1 and the number of genes \(2\), not 3"):
        TopKs(torch.zeros(1, 3), [2], [3], [1.0])
    with pytest.raises(ValueError, match="tau must be positive"):
        TopKs(torch.zeros(1, 3), [3], [1], [0.0])


# -- networks ------------------------------------------------------------------------------


def test_networks_of_runs_are_put_together_and_taken_apart() -> None:
    def network(seed: int) -> Network:
        g = torch.Generator().manual_seed(seed)
        return Network(9, (6, 5), {"a": 3, "b": 1}, g, torch.device("cpu"))

    apart, again = [network(0), network(1)], [network(2), network(3)]
    together = Networks.of(apart)
    x = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(4))
    found = together.forward(x.flatten(1), kept=[])
    for number, one in enumerate(apart):
        for name, output in one.forward(x[:, number], torch.Generator()).items():
            torch.testing.assert_close(found[name][number], output)
    together.back_to(again)
    for one, other in zip(apart, again, strict=True):
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, its)
        for norm, copy in zip(one.norms, other.norms, strict=True):
            torch.testing.assert_close(norm.mean, copy.mean)


# -- trainings -----------------------------------------------------------------------------


def _several() -> list[Task]:
    """Tasks on other cells, of other sizes of the panel, with other genes that do not vary."""
    first = tasks.make_task(discover().get("yoto"), k=6)
    both = {**first.targets, "expression": tasks.expression()}
    first = replace(first, targets=frozen_mapping(both))
    other = np.array(first.X)[::-1].copy()
    other[:, 20:26] = 0
    fewer = replace(first, X=tasks.locked(other), k=8, seed=1)
    return [first, replace(first, k=17), fewer, tasks.first_cells(first, 130)]


SETTINGS = yoto.settings(yoto.Params(preset="paper", epochs=2, batch_size=32, hidden=(16, 8)))


@pytest.mark.parametrize("norm", [True, False])
def test_a_training_in_a_group_is_the_one_alone(norm: bool) -> None:
    several = _several()
    # No normalisation and no dropout, as in the ablation with PERSIST's network.
    common = replace(SETTINGS, batch_norm=norm, dropout=0.2 if norm else 0.0)
    settings = [common, replace(common, beta=0.3, tau_start=3.0, anneal=0.2), common, common]
    found = batch.train_together(several, settings)
    for task, s, together in zip(several, settings, found, strict=True):
        alone = training.train(task, s)
        assert together.genes[: task.k].tolist() == alone.genes[: task.k].tolist()
        np.testing.assert_allclose(together.scores, alone.scores, rtol=0, atol=2e-5)
        for name, curve in alone.curves.items():
            np.testing.assert_allclose(together.curves[name], curve, rtol=0, atol=1e-4)
        pairs = [*zip(together.layers, alone.layers, strict=True)]
        pairs += [(together.heads[name], alone.heads[name]) for name in alone.heads]
        for one, other in pairs:
            for mine, its in zip(one, other, strict=True):
                np.testing.assert_allclose(mine, its, rtol=0, atol=2e-3)


DEFAULT = yoto.settings(
    yoto.Params(epochs=1, batch_size=32, hidden=(8,), search_hidden=(6,), start=24, members=2)
)


def _defaults() -> tuple[list[Task], list[Settings]]:
    """The same with settings of their own, and one run that keeps groups of cells whole."""
    several = _several()
    grouped = replace(several[0], groups=np.arange(several[0].n_cells) % 3)
    return [*several, grouped], [
        DEFAULT,
        replace(DEFAULT, beta=0.3, tau_start=1.0, anneal=0.2),
        DEFAULT,
        DEFAULT,
        replace(DEFAULT, input_dropout=0.0, dropout=0.0),
    ]


def _search(task: Task, s: Settings) -> Search:
    """The search that a run asks for, before its first step."""
    run = crossfit._learned(task, s)
    asked = next(run)
    while not isinstance(asked, Learn):
        asked = run.send(asked.alone())
    return asked.search


def test_first_steps_of_searches_in_a_group_are_those_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slopes: list[torch.Tensor] = []
    plain = ScoreAdam.step

    def spied(self: ScoreAdam, gradient: torch.Tensor) -> None:
        slopes.append(gradient.clone())
        plain(self, gradient)

    monkeypatch.setattr(ScoreAdam, "step", spied)
    several, settings = (part[:3] for part in _defaults())
    together, alone = (
        [_search(task, s) for task, s in zip(several, settings, strict=True)] for _ in range(2)
    )
    Searches(together).run(1)
    both = slopes[:3]
    for m, one in enumerate(alone):
        slopes.clear()
        one.run(1)
        for mine, its in zip(slopes, both, strict=False):
            wanted = mine / mine.abs().max()
            found = its[m, : len(mine)] / mine.abs().max()
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
            assert not its[m, len(mine) :].any()


def test_a_default_in_a_group_is_the_one_alone() -> None:
    several, settings = _defaults()
    found = crossfit.train_together(several, settings)
    for task, s, together in zip(several, settings, found, strict=True):
        alone = crossfit.train(task, s)
        assert together.genes[: task.k].tolist() == alone.genes[: task.k].tolist()
        mine, its = (found.scores[np.argsort(found.genes)] for found in (together, alone))
        apart = np.abs(mine - its)
        # A gene with next to no gradient moves by a step of Adam all the same.
        assert np.median(apart) < 1e-5 and apart.max() < 0.02
        for name, curve in alone.curves.items():
            np.testing.assert_allclose(together.curves[name], curve, rtol=0, atol=1e-3)
        assert together.chosen == pytest.approx(alone.chosen, abs=1e-3)
        pairs = [*zip(together.layers, alone.layers, strict=True)]
        pairs += [(together.heads[name], alone.heads[name]) for name in alone.heads]
        for one, other in pairs:
            for mine, its in zip(one, other, strict=True):
                np.testing.assert_allclose(mine, its, rtol=0, atol=5e-3)


def test_what_a_gpu_does_in_step_leaves_the_cpu_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a CPU does one run after the other, to the last bit as alone")

    monkeypatch.setattr(batch, "train_together", never)
    monkeypatch.setattr(crossfit, "train_together", never)
    params = yoto.Params(preset="paper", epochs=1)
    several = _several()[:2]
    for task, one in zip(several, yoto.select_many(several, [params] * 2), strict=True):
        assert np.array_equal(one.scores, yoto.select(task, params).scores)  # type: ignore[arg-type]


def test_runs_on_the_same_cells_hold_them_once() -> None:
    first, second, third, _ = _several()
    s = replace(SETTINGS, standardize=False)
    one = training.Trainer(first, s)
    trainers = [one, training.Trainer(second, s, one.cells), training.Trainer(third, s)]
    together = batch.Batch(trainers)
    assert together.stacked.data.numel() == 2 * first.X.size


# -- on a GPU ------------------------------------------------------------------------------


def test_the_script_for_a_gpu_runs(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--device", "cpu", "--quick"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "| 4 models, 200 x 100 |" in said and "0 of 29 rows are not as they must be" in said


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(script: ModuleType) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU on this machine")
    table = script.Table()
    script.check(table, "cuda", quick=True)
    assert table.wrong == 0, table.rows
