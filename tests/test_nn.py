"""What neural methods share: global state, randomness, dropout, layers as arrays."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from panelbench import nn
from panelbench.contract import tasks
from panelbench.registry import discover


def layers(*widths: int, seed: int = 0) -> list[nn.Layer]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(a, b)), rng.normal(size=b)) for a, b in pairwise(widths)]


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, panelbench.nn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- global state --------------------------------------------------------------------------------


def state() -> list[object]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return [
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
    ]


@pytest.mark.parametrize("guard", [nn.one_thread, lambda: nn.seeded(5)])
def test_guards_put_everything_back_also_after_an_error(guard: object) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = state()
        with guard():  # type: ignore[operator]
            assert torch.get_num_threads() == 1
        assert state() == before
        with pytest.raises(RuntimeError), guard():  # type: ignore[operator]
            raise RuntimeError
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_what_is_drawn_inside_depends_on_the_seed_and_leaves_nothing_behind() -> None:
    def drawn(seed: int) -> tuple[float, float, float]:
        before = state()
        with nn.seeded(seed):
            found = torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002
        assert state() == before
        return found

    first = drawn(5)
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert drawn(5) == first
    assert all(a != b for a, b in zip(first, drawn(6), strict=True))


def test_generators_are_of_one_purpose() -> None:
    task = tasks.make_task(discover().methods["yoto"])

    def draw(purpose: str) -> list[float]:
        found: list[float] = torch.rand(4, generator=nn.generator(task, purpose)).tolist()
        return found

    assert draw("weights") == draw("weights") != draw("noise")


# -- tensors -------------------------------------------------------------------------------------


def test_a_read_only_array_is_shared_without_a_word() -> None:
    array = np.arange(4.0)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = nn.tensor_of(array)
    assert tensor.data_ptr() == array.ctypes.data


def test_values_of_a_tensor_are_a_copy_in_c_order() -> None:
    tensor = torch.arange(6.0).view(2, 3).requires_grad_()
    found = nn.to_numpy(tensor.T)
    assert found.dtype == np.float64 and found.flags.c_contiguous
    found[:] = 0
    assert tensor.sum() == 15


@pytest.mark.parametrize("draw", ["uniform", "bernoulli"])
@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_dropout_keeps_the_mean(draw: object, probability: float) -> None:
    def dropped(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return nn.drop(torch.ones(40_000), probability, generator, draw)  # type: ignore[arg-type]

    found = dropped(0)
    assert torch.equal(found, dropped(0)) and not torch.equal(found, dropped(1))
    assert found.unique().tolist() == [0, pytest.approx(1 / (1 - probability))]
    assert (found == 0).double().mean().item() == pytest.approx(probability, abs=0.01)
    assert found.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_is_off_in_evaluation() -> None:
    values = torch.ones(5)
    assert nn.drop(values, 0.5, None) is values
    assert nn.drop(values, 0.0, torch.Generator()) is values


# -- layers --------------------------------------------------------------------------------------


def test_activations_stand_between_layers_only() -> None:
    (w1, b1), (w2, b2) = parts = layers(3, 4, 2)
    X = np.random.default_rng(1).normal(size=(5, 3))
    hidden = X @ w1 + b1
    assert np.array_equal(nn.run(parts, X), np.where(hidden > 0, hidden, 0) @ w2 + b2)
    leaky = np.where(hidden > 0, hidden, 0.01 * hidden)
    assert np.array_equal(nn.run(parts, X, nn.leaky_relu), leaky @ w2 + b2)
    assert nn.run([], X) is X
    slope = torch.nn.LeakyReLU()(torch.from_numpy(X)).numpy()
    assert np.array_equal(nn.leaky_relu(X), slope)


def test_a_folded_normalisation_is_torchs() -> None:
    rng = np.random.default_rng(0)
    ((weight, bias),) = layers(3, 4)
    norm = torch.nn.BatchNorm1d(4, eps=0.01).double().eval()
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.data = torch.from_numpy(rng.uniform(0.5, 2, 4))  # type: ignore[union-attr]
    folded = nn.fold_norm(
        (weight, bias),
        mean=nn.to_numpy(norm.running_mean),  # type: ignore[arg-type]
        variance=nn.to_numpy(norm.running_var),  # type: ignore[arg-type]
        weight=nn.to_numpy(norm.weight),
        bias=nn.to_numpy(norm.bias),
        epsilon=norm.eps,
    )
    X = rng.normal(size=(6, 3))
    truth = norm(torch.from_numpy(X @ weight + bias)).detach().numpy()
    assert np.allclose(nn.run([folded], X), truth, rtol=1e-12)


def test_layers_survive_saving() -> None:
    parts = {"encoder": layers(3, 4, 4), "head": layers(4, 2), "empty": []}
    arrays = nn.layer_arrays(parts)
    assert list(arrays)[:3] == ["encoder0.weight", "encoder0.bias", "encoder1.weight"]
    for name, part in parts.items():
        found = nn.layers_from(arrays, name)
        assert len(found) == len(part)
        for layer, again in zip(part, found, strict=True):
            assert all(a is b for a, b in zip(layer, again, strict=True))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 5), (5, 4, 1)])
def test_other_shapes_than_cells_by_genes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"cells x 4 genes, found shape \({shape[0]},"):
        nn.expect_cells(np.zeros(shape), 4)
    assert nn.expect_cells(np.zeros((5, 4)), 4).shape == (5, 4)


@pytest.mark.parametrize(
    "id", [id for id, item in discover().methods.items() if item.predictor and id != "scvi"]
)
def test_predictors_refuse_other_shapes(id: str) -> None:
    method = discover().methods[id]
    task = tasks.make_task(method)
    predictor = method.select(task, tasks.quick_params(method)).predictor
    assert predictor is not None
    predict = predictor.predict if method.expression else predictor.predict_proba
    calls = [partial(predict, name) for name in task.targets]
    calls += [predictor.reconstruct] if method.reconstructs else []  # type: ignore[attr-defined]
    assert calls
    width = len(predictor.genes)
    if method.reads == "inputs":
        assert task.inputs is not None
        width = task.inputs.shape[1]
    for call in calls:
        with pytest.raises(ValueError, match="expected a matrix of cells x"):
            call(np.zeros((2, width + 1), np.float32))
