"""Auxiliary gene learning from images: what is found, derivatives, files, the suite."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from panelbench.methods import agl
from panelbench.methods.agl import imputation
from panelbench.methods.agl.hyper import alignments, normalised, unrolled
from panelbench.methods.agl.images import Encoder, encoder_for, weights_file
from panelbench.methods.agl.network import Batch, Network
from panelbench.methods.agl.pearson import Targets

from panelbench.data.catalogue import find_catalogue, load_catalogue
from panelbench.errors import NotApplicable
from panelbench.registry import discover
from panelbench.stages.evaluation import score_panel
from panelbench.suite.plan import make_plan
from panelbench.suite.request import load_suite
from tests.agl_planted import generators
from tests.test_agl_expression import entry, evaluation, prepared, selection, write_sections

ROOT = Path(__file__).parent.parent
SIDE, N_CELLS, N_GENES, N_PRIMARY = 16, 700, 40, 8
N_TRAIN, N_KNOWN = 400, 500


def crosses(seed: int = 0, n: int = N_CELLS, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a cross somewhere, as often brighter as darker; patches and its contrasts.

    The mean of every pixel is the same whatever the contrast, so no straight line finds it.
    """
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0, 2, size=n)
    images = rng.normal(128, 12, size=(n, side, side, 3))
    for i, (y, x) in enumerate(rng.integers(2, side - 2, size=(n, 2))):
        height = 30 * contrast[i] * rng.choice([-1, 1])
        images[i, y - 2 : y + 3, x] += height
        images[i, y, x - 2 : x + 3] += height
    return np.clip(np.rint(images), 0, 255).astype(np.uint8).reshape(n, -1), contrast


@pytest.fixture(scope="module")
def planted() -> tuple[agl.Problem, np.ndarray, np.ndarray]:
    """Genes that follow the contrast of the crosses under much noise; test patches and truth."""
    rng = np.random.default_rng(1)
    patches, contrast = crosses()
    noise = rng.normal(size=(N_CELLS, N_GENES)) * np.where(np.arange(N_GENES) < N_PRIMARY, 1, 0.5)
    values = (np.outer(contrast, rng.uniform(0.5, 1.5, N_GENES)) + noise).astype(np.float32)
    values -= values.min()
    genes = np.array([f"g{i}" for i in range(N_GENES)])
    problem = agl.Problem(
        patches[:N_KNOWN],
        values[:N_KNOWN],
        genes,
        np.arange(N_KNOWN) >= N_TRAIN,
        primary=tuple(genes[:N_PRIMARY].tolist()),
        auxiliary=tuple(genes[N_PRIMARY:].tolist()),
    )
    return problem, patches[N_KNOWN:], values[N_KNOWN:, :N_PRIMARY]


SMALL: dict[str, Any] = {
    "images": "cnn", "hidden": (), "epochs": 14, "patience": 14, "warmup": 2, "batch_size": 32,
    "batch_pass": 100, "lr": 4e-3,
}  # fmt: skip


def fit(problem: agl.Problem, **params: Any) -> agl.Fitted:
    return agl.fit(problem, agl.Params(**SMALL | params), generators(0))


def test_what_is_planted_in_images_is_found_and_not_by_a_line(planted: Any) -> None:
    problem, patches, truth = planted
    fitted = fit(problem)
    found = agl.mean_correlation(fitted.predictor.predict(patches), truth)
    primary = problem.expression[:, :N_PRIMARY]
    line = agl.fit_ridge(problem.inputs, primary, list(problem.primary), problem.validation)
    assert found > 0.35
    assert agl.mean_correlation(line.predict(patches), truth) < 0.1
    assert fitted.trace[-1]["cut"] != 0.5
    # The filters are trained, not the rows on top alone.
    start = encoder_for("cnn", problem.inputs[:N_TRAIN], "", generators(0)("agl images"))
    front: Any = fitted.predictor.front
    moved = [float((a - b).abs().max()) for a, b in zip(front.parameters, start.parameters(),
             strict=True)]  # fmt: skip
    assert min(moved) > 1e-3

    arrays, facts = fitted.predictor.save()
    loaded = agl.AglPredictor.load(arrays, json.loads(json.dumps(facts)))
    np.testing.assert_array_equal(loaded.predict(patches), fitted.predictor.predict(patches))
    np.testing.assert_allclose(loaded.predict(patches[:1]), loaded.predict(patches)[:1], rtol=1e-5)
    with pytest.raises(ValueError, match="patches of 16 pixels"):
        loaded.predict(crosses(n=2, side=8)[0])


def test_the_same_seed_gives_the_same_and_turning_is_an_option(planted: Any) -> None:
    problem = planted[0]
    few: dict[str, Any] = {"epochs": 2, "warmup": 1, "batch_size": 100}
    first = fit(problem, **few)
    assert first.trace == fit(problem, **few).trace
    assert first.trace != fit(problem, **few, augment=False).trace


# -- derivatives -------------------------------------------------------------------------------


def _encoder(kind: str = "cnn") -> tuple[Encoder, torch.Tensor]:
    patches = crosses(n=24, side=8)[0]
    encoder = encoder_for(kind, patches, "", np.random.default_rng(0))
    return replace(encoder, module=encoder.module.double()), torch.from_numpy(patches)


def test_derivatives_go_through_the_filters() -> None:
    encoder, patches = _encoder()
    rng = np.random.default_rng(1)
    network = Network((encoder.width,), 3, 9, rng, encoder=encoder, dtype=torch.float64)
    batches = [
        Batch(patches[rows], Targets.of(torch.from_numpy(rng.normal(size=(12, 12)))))
        for rows in (slice(12), slice(12, 24))
    ]
    slope = torch.from_numpy(np.where(np.arange(12) < 3, 0, rng.uniform(0.5, 2, 12)))

    def at(shift: float, lr: float, steps: int, rule: Any) -> Any:
        w = normalised(torch.ones(12).double() + shift * slope, slope, "sum")
        return unrolled(network, *batches, *w, steps=steps, lr=lr, rule=rule)

    for given in ((0.05, 4, "sgd"), (1e-3, 2, "adam")):
        difference = (at(1e-6, *given)[0] - at(-1e-6, *given)[0]) / 2e-6
        assert at(0, *given)[1] == pytest.approx(difference, rel=1e-4)
    lr = 1e-6
    _, exact = at(0, lr, 1, "sgd")
    c = alignments(network, *batches, slice(3, None))
    assert -lr * float(slope[3:] @ c) == pytest.approx(exact, rel=1e-3)


def test_features_do_not_depend_on_the_other_patches_of_a_batch() -> None:
    encoder, patches = _encoder()
    together = encoder(encoder.parameters(), patches)
    alone = torch.cat([encoder(encoder.parameters(), patches[i : i + 1]) for i in range(24)])
    np.testing.assert_allclose(together.detach(), alone.detach(), atol=1e-12)
    # Statistics are those of the patches, so features are neither dead nor large.
    assert 0.05 < float(together.detach().std()) < 5


def test_patches_are_turned_one_by_one_and_keep_their_pixels() -> None:
    encoder, patches = _encoder()
    turned = encoder.turned(patches, np.random.default_rng(0)).numpy().reshape(24, 8, 8, 3)
    forms = set()
    for before, after in zip(patches.numpy().reshape(24, 8, 8, 3), turned, strict=True):
        ways = [np.rot90(flip, k) for flip in (before, before[::-1]) for k in range(4)]
        same = [i for i, way in enumerate(ways) if np.array_equal(way, after)]
        assert len(same) == 1
        forms.add(same[0])
    assert forms == set(range(8))


# -- what does not fit, and files --------------------------------------------------------------


def test_inputs_that_are_no_patches_are_told(planted: Any) -> None:
    problem = planted[0]
    pixels = problem.inputs
    for inputs in (pixels.astype(np.float32), pixels[:, :-3], pixels[:, :3]):
        with pytest.raises(NotApplicable, match="square patches of 8 pixels or more"):
            fit(replace(problem, inputs=inputs), epochs=1)
    with pytest.raises(ValueError, match="weights belongs to images resnet18"):
        agl.Params(images="cnn", weights="a.pth")
    with pytest.raises(ValueError, match="from a panel, not from images"):
        imputation.Params(images="cnn")


def test_a_file_of_weights_is_called_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    content = b"parameters"
    digest = hashlib.sha256(content).hexdigest()[:8]
    with pytest.raises(NotApplicable, match="no file of weights"):
        weights_file("resnet18-00000000.pth")
    (folder / "resnet18-00000000.pth").write_bytes(content)
    with pytest.raises(NotApplicable, match=f"-{digest}.pth"):
        weights_file("resnet18-00000000.pth")
    named = (folder / "resnet18-00000000.pth").rename(folder / f"resnet18-{digest}.pth")
    assert weights_file(named.name) == weights_file(str(named)) == named


def test_a_missing_torchvision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(NotApplicable, match=r"panelbench\[images\]"):
        _encoder("resnet18")


def test_a_resnet_is_that_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    whole = models.resnet18(weights=None)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    path = (tmp_path / "w.pth").rename(tmp_path / f"w-{digest}.pth")
    patches = crosses(n=9, side=32)[0]
    encoder = encoder_for("resnet18", patches, str(path), np.random.default_rng(0))
    whole.fc = torch.nn.Identity()
    images = torch.from_numpy(patches.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2) / 255
    mean, scale = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        expected = whole.eval()((images - mean) / scale)
        found = encoder(encoder.parameters(), torch.from_numpy(patches))
    np.testing.assert_allclose(found, expected, atol=1e-5)


# -- through the stages ------------------------------------------------------------------------


def test_patches_reach_a_method_as_bytes_and_are_scored(tmp_path: Path) -> None:
    sections = anndata.read_h5ad(write_sections(tmp_path / "sections.h5ad"))
    sections.obsm["patches"] = crosses(n=sections.n_obs, side=8)[0]
    sections.write_h5ad(tmp_path / "sections.h5ad")
    assert entry(tmp_path / "sections.h5ad").inputs == "features"
    spec, cells = prepared(tmp_path, inputs="patches")
    assert cells.obsm["inputs"].dtype == np.uint8
    record = selection(tmp_path, spec, "agl", images="cnn")
    assert record.result["info"]["auxiliary"] == "learned"
    metrics = score_panel(*evaluation(tmp_path, spec, record)).result["metrics"]
    assert "outputs_pearson" in metrics
    plain = selection(tmp_path, spec, "ridge-expression")
    assert "outputs_mse" in score_panel(*evaluation(tmp_path, spec, plain)).result["metrics"]


def test_the_suite_trains_networks_on_patches() -> None:
    plan = make_plan(
        load_suite("agl-images"), load_catalogue(find_catalogue(ROOT / "datasets.yaml")),
        discover(), lambda _: "a",
    )  # fmt: skip
    assert {run.dataset.id for run in plan.selections} == {"her2st-images"}
    rows = [row for row in plan.rows if row.method.startswith("agl")]
    assert rows and all("images=cnn" in row.variant for row in rows)
