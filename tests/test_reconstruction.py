"""Reconstructed expression, predictors with modes, views: numbers, and the way through a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from panelbench.scoring import embeddings as views
from panelbench.scoring import reconstruction
from tests.tools import Bench

RNG = np.random.default_rng(0)
CELLS = RNG.normal(size=(200, 30))


def test_least_squares_finds_what_is_linear() -> None:
    panel = CELLS[:, :4]
    X = panel @ RNG.normal(size=(4, 30)) + 3.0
    again = reconstruction.linear(panel[:150], X[:150], panel[150:])
    np.testing.assert_allclose(again, X[150:], atol=1e-8)


def test_the_mean_scores_one_on_standardised_cells() -> None:
    X = (CELLS - CELLS.mean(axis=0)) / CELLS.std(axis=0)
    found = reconstruction.distances(X, np.zeros_like(X))
    assert found["l2"] == pytest.approx(1.0)
    assert found["explained_variance"] == pytest.approx(0.0)
    assert found["l1"] == pytest.approx(np.abs(X).mean())
    assert found["l2_cell"] == pytest.approx(np.linalg.norm(X, axis=1).mean())


def test_variances_of_the_same_cells_agree() -> None:
    X = CELLS * np.arange(1, 31)
    assert reconstruction.variance_agreement(X, X) == {
        "jaccard_variable": 1.0, "spearman_variance": pytest.approx(1.0),
    }  # fmt: skip
    # The six genes that vary most on one side vary least on the other.
    turned = reconstruction.variance_agreement(X, CELLS * np.arange(30, 0, -1))
    assert turned["jaccard_variable"] == 0.0 and turned["spearman_variance"] < -0.9
    assert reconstruction.variance_agreement(X[:1], X[:1]) == {}
    assert "spearman_variance" not in reconstruction.variance_agreement(X, np.zeros_like(X))


def test_counts_are_compared_by_logarithms_standardised_as_a_whole() -> None:
    counts = RNG.poisson(3.0, size=(50, 20)).astype(float)
    near = reconstruction.standardised_logs(counts, counts)
    assert near.mean() == pytest.approx(0.0, abs=1e-9) and near.std() == pytest.approx(1.0)
    # A sample may be anything: what is below zero counts as zero.
    assert np.isfinite(reconstruction.standardised_logs(counts - 10, counts)).all()


def test_views_are_the_same_each_time() -> None:
    X = np.concatenate([CELLS[:60], CELLS[:60] + 8.0])
    first, again = (views.umap(X, n_neighbors=50, min_dist=0.1, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    # Two clouds stay two clouds.
    gap = np.linalg.norm(first[:60].mean(axis=0) - first[60:].mean(axis=0))
    assert gap > 2 * first[:60].std(axis=0).max()
    assert views.umap(X[:5], n_neighbors=50, min_dist=0.1, seed=3).shape == (5, 2)


def test_components_are_those_of_the_true_cells() -> None:
    stretched = CELLS * np.array([9.0, 5.0, *[0.1] * 28])
    true, again = views.principal_components(stretched, np.zeros_like(stretched))
    np.testing.assert_allclose(np.abs(true[:, 0]), np.abs(stretched[:, 0] - stretched[:, 0].mean()),
                               rtol=0.05, atol=0.3)  # fmt: skip
    assert np.ptp(again, axis=0).max() < 1e-5


PREDICTOR = '''
class Reader:
    """Knows the mean profile; predicts by the first gene, or by the panel's mean."""

    def __init__(self, profile, panel, classes, mode="all"):
        self.profile, self.panel, self.classes, self.mode = profile, panel, classes, mode
        names = [f"g{i}" for i in range(len(profile))]
        self.genes = names if mode == "all" else panel

    def predict_proba(self, task, X):
        code = (X[:, 0] > 0).astype(int) if self.mode == "all" else np.zeros(len(X), int)
        return np.eye(self.classes)[code]

    def reconstruct(self, X):
        return np.tile(self.profile, (len(X), 1))

    def in_mode(self, mode):
        return Reader(self.profile, self.panel, self.classes, mode)

    def save(self):
        return {"profile": self.profile}, {"panel": self.panel, "classes": self.classes}

    @classmethod
    def load(cls, arrays, facts):
        return cls(arrays["profile"], facts["panel"], facts["classes"])
'''


def test_modes_and_reconstructions_are_scored(bench: Bench) -> None:
    body = """
        panel = task.genes[: task.k].tolist()
        reader = Reader(task.dense().mean(axis=0), panel, len(task.target.classes))
        return Selection(ranking=task.genes.tolist(), predictor=reader)
    """
    declared = (
        'predictor=Reader, modes=("all", "panel"), reconstructs=True, supervised=True, nested=False'
    )
    path = bench.add_method("reader", body, declared)
    text = path.read_text()
    path.write_text(text.replace("\n@method", PREDICTOR + "\n\n@method", 1))
    bench.add_method("in-order")
    methods = ["--method", "reader", "--method", "in-order"]
    evaluators = ["rf", "builtin", "reconstruct", "builtin-reconstruct", "umap"]
    options = [arg for name in evaluators for arg in ("--evaluator", name)]
    found = bench.call("run", *bench.own("--k", "4", "--seed", "0", *methods, *options))
    assert found.code == 0, found.err + found.out
    records = bench.read()
    scores = {(r.address.method, r.asked["evaluator"]): r for r in records if r.stage == "evaluate"}
    assert {name for method, name in scores if method == "reader"} == {
        "rf", "builtin", "builtin[mode=panel]", "reconstruct", "builtin-reconstruct", "umap",
    }  # fmt: skip
    assert {name for method, name in scores if method == "in-order"} == {
        "rf", "reconstruct", "umap",
    }  # fmt: skip
    soft, hard = (scores["reader", name].result for name in ("builtin", "builtin[mode=panel]"))
    assert (soft["genes_read"], hard["genes_read"]) == (40, 4)
    assert soft["metrics"] != hard["metrics"]
    own = scores["reader", "builtin-reconstruct"].result
    # It reconstructs the mean of the training cells: next to nothing is explained.
    assert abs(own["metrics"]["explained_variance"]) < 0.15
    assert "spearman_variance" not in own["metrics"]
    assert set(own["by_class"]) == {"type 0", "type 1", "type 2"}
    linear = scores["reader", "reconstruct"].result["metrics"]
    assert linear["l2"] < own["metrics"]["l2"]
    # Pictures are computed once and stored; the page shows the mode and the dagger.
    npz = [p for p in bench.results.glob("runs/*/*/*/*.npz") if "umap" in np.load(p)]
    assert len(npz) == 2 and np.load(npz[0])["umap"].shape == (24, 2)
    page = (bench.results / "reports" / "own" / "report.html").read_text()
    assert "reader†" in page and "reader (panel)" in page and "reader (panel)†" not in page


def test_a_mode_that_no_method_has_is_an_error_with_near_ones(bench: Bench) -> None:
    suite = {
        "name": "s", "datasets": ["synthetic-small"], "methods": ["persist"], "ks": [4],
        "evaluators": [{"evaluator": "builtin", "params": {"mode": "hrd"}}],
    }  # fmt: skip
    (bench.folder / "s.yaml").write_text(json.dumps(suite))
    found = bench.call_here("run", "--suite", "s.yaml")
    assert found.code == 2 and "hard" in found.err


def test_a_data_set_without_a_recipe_is_named_and_stops_nobody(bench: Bench) -> None:
    suite = {
        "name": "s", "datasets": ["synthetic-small", "planned"], "methods": ["random"], "ks": [4],
        "seeds": [0], "tables": [{"name": "t"}],
    }  # fmt: skip
    shipped = yaml.safe_load((Path(__file__).parent.parent / "datasets.yaml").read_text())
    catalogue = {
        "synthetic-small": shipped["synthetic-small"],
        "planned": {"missing": "a reader for another format", "tasks": [{"name": "kind"}]},
    }
    (bench.folder / "mine.yaml").write_text(json.dumps(catalogue))
    (bench.folder / "s.yaml").write_text(json.dumps(suite))
    found = bench.call("run", "--suite", "s.yaml", "--datasets", "mine.yaml")
    assert found.code == 3, found.err
    table = (bench.results / "reports" / "s" / "tables" / "t.md").read_text()
    assert "planned" in table and "a reader for another format" in table
