"""Classical selectors: parity with the libraries, the merging rule, known markers, odd data."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

from panelbench.contract import tasks
from panelbench.errors import NotApplicable
from panelbench.method import Method, Target, Task
from panelbench.ranking import gene_variances
from panelbench.registry import discover
from tests.tools import real_data

METHODS = discover().methods
TESTS = ("t-test", "t-test-overestim", "wilcoxon", "wilcoxon-tie")
SCANPY = {
    "t-test": {"method": "t-test"},
    "t-test-overestim": {"method": "t-test_overestim_var"},
    "wilcoxon": {"method": "wilcoxon"},
    "wilcoxon-tie": {"method": "wilcoxon", "tie_correct": True},
}
rank_genes = importlib.import_module("panelbench.methods.rank_genes")


def ranking(id: str, task: Task | None = None) -> list[str]:
    method = METHODS[id]
    return list(method.select(task or tasks.make_task(method), method.params()).ranking)


def annotated(task: Task) -> Any:
    import pandas as pd
    from anndata import AnnData

    data = AnnData(np.array(task.dense()))
    data.var_names = task.genes
    if task.targets:
        data.obs["type"] = pd.Categorical(task.target.values.astype(str))
    return data


# The rule of MarkerMap, as its authors apply it for one k.


def panel_by_rule(lists: list[list[int]], worst: Any, strength: Any, k: int) -> set[int]:
    """The k genes of the rule: whole rounds while they fit, then the best of the next round.

    `worst` and `strength` give the sort keys of (class, rank): the smallest `worst` first, ties
    to the largest `strength`, then to the first class.
    """
    chosen: set[int] = set()
    for rank in range(len(lists[0])):
        row = [genes[rank] for genes in lists]
        if len(chosen | set(row)) <= k:
            chosen |= set(row)
            continue
        for code in sorted(
            range(len(lists)), key=lambda c: (worst[c][rank], -strength[c][rank], c)
        ):
            if len(chosen) < k:
                chosen.add(row[code])
        return chosen
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_first_k_genes_are_the_rules_panel_for_every_k(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_classes, n_genes = int(rng.integers(2, 9)), int(rng.integers(5, 30))
    # Few distinct values: ties within lists, within rounds, and genes best in many classes.
    scores = rng.integers(-3, 6, (n_classes, n_genes)).astype(float)
    scores[:, : n_genes // 3] += 4
    worst = np.round(np.exp(-np.abs(scores)), 2)
    variances = rng.integers(1, 3, n_genes).astype(float)
    names = tuple(f"T{c}" for c in range(n_classes))
    target = Target("t", "classification", np.arange(n_classes), names)
    task = Task(
        X=np.zeros((n_classes, n_genes), np.float32),
        genes=np.array([str(g) for g in range(n_genes)]),
        targets={"t": target},
        k=n_genes,
        seed=0,
    )
    found = rank_genes.merge(task, np.arange(n_classes), scores, worst, variances)
    order = [
        sorted(range(n_genes), key=lambda g, c=c: (-scores[c, g], -variances[g], g))
        for c in range(n_classes)
    ]
    by_rank = [[worst[c, g] for g in order[c]] for c in range(n_classes)]
    strength = [[abs(scores[c, g]) for g in order[c]] for c in range(n_classes)]
    for k in range(1, n_genes + 1):
        panel = {int(gene) for gene in found.ranking[:k]}
        assert panel == panel_by_rule(order, by_rank, strength, k), f"k = {k}"


def test_rule_on_a_table_worked_out_by_hand() -> None:
    # Lists: class A: 0 1 2 3, class B: 0 2 1 3, class C: 3 0 1 2 (scores 9 8 7 6 each).
    scores = np.array([[9, 8, 7, 6], [9, 7, 8, 6], [8, 7, 6, 9]], dtype=float)
    worst = np.array([[0.2, 0.3, 0.9, 0.9], [0.1, 0.9, 0.2, 0.9], [0.9, 0.9, 0.9, 0.15]])
    target = Target("t", "classification", np.zeros(4, np.int64), ("A", "B", "C"))
    task = Task(np.zeros((4, 4), np.float32), np.array(list("wxyz")), {"t": target}, k=4, seed=0)
    found = rank_genes.merge(task, np.arange(3), scores, worst, np.ones(4))
    # Round 1: B brings w (p 0.1), C brings z (0.15), A's w is a duplicate.
    # Round 2: B brings y (0.2), A brings x (0.3), C's w is a duplicate.
    assert list(found.ranking) == ["w", "z", "y", "x"]
    assert found.info["marker_of"] == ["B", "C", "B", "A"]


# Parity with the libraries.


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("id", TESTS)
def test_panels_follow_from_scanpys_tables(id: str) -> None:
    import scanpy as sc

    task = tasks.make_task(METHODS[id])
    data = annotated(task)
    sc.tl.rank_genes_groups(data, "type", use_raw=False, **SCANPY[id])
    table = data.uns["rank_genes_groups"]
    silent = task.genes[tasks.SILENT]
    lists, pvals, scores = [], [], []
    for code in ("0", "1", "2"):
        keep = table["names"][code] != silent
        lists.append(table["names"][code][keep].tolist())
        pvals.append(table["pvals"][code][keep])
        scores.append(np.abs(table["scores"][code][keep]))
    found = ranking(id, task)
    for k in (1, 2, 3, 10, 25):
        assert set(found[:k]) == panel_by_rule(lists, pvals, scores, k)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [0.0, -0.7])
def test_rank_sum_scores_are_scanpys(ties: bool, shift: float) -> None:
    import scanpy as sc
    from scipy.sparse import csr_matrix

    task = tasks.make_task(METHODS["wilcoxon"])
    # Shifted down, the data hold negative values, ties and no zero.
    data = annotated(task)
    data.X = data.X + np.float32(shift)
    sc.tl.rank_genes_groups(data, "type", use_raw=False, method="wilcoxon", tie_correct=ties)
    table = data.uns["rank_genes_groups"]
    X = csr_matrix(data.X)
    found = rank_genes.rank_sum_scores(X, task.target.values, np.arange(3), ties)
    place = {gene: i for i, gene in enumerate(task.genes.tolist())}
    for code in range(3):
        genes = [place[gene] for gene in table["names"][str(code)]]
        assert np.allclose(found[code, genes], table["scores"][str(code)], rtol=1e-6, atol=1e-6)


def test_cosg_scores_follow_the_papers_formula() -> None:
    task = tasks.make_task(METHODS["cosg"])
    X, codes = task.dense().astype(np.float64), task.target.values
    norms = np.maximum(np.linalg.norm(X, axis=0), 1e-12)
    cosines = np.array(
        [X[codes == c].sum(axis=0) / (norms * np.sqrt((codes == c).sum())) for c in range(3)]
    )
    total = np.maximum((cosines**2).sum(axis=0), 1e-30)
    expected = rank_genes.merge(
        task, np.arange(3), cosines**3 / total, -(cosines**3) / total, gene_variances(task.X)
    )
    found = METHODS["cosg"].select(task, METHODS["cosg"].params())
    assert list(found.ranking) == list(expected.ranking)
    assert np.allclose(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("id", "flavor"),
    [("seurat", "seurat"), ("cell-ranger", "cell_ranger"), ("seurat-v3", "seurat_v3")],
)
def test_hvg_panels_are_scanpys(id: str, flavor: str) -> None:
    import scanpy as sc

    task = tasks.make_task(METHODS[id], matrix=wide())
    found = ranking(id, task)
    for k in (10, 50):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = sc.pp.highly_variable_genes(
                annotated(task), flavor=flavor, n_top_genes=k, inplace=False
            )
        assert set(found[:k]) == set(task.genes[table["highly_variable"].to_numpy()])


def wide(n_genes: int = 300, silent: int = 0) -> np.ndarray:
    """Counts of 150 cells with over-dispersed genes, and some that nobody expresses."""
    rng = np.random.default_rng(2)
    means = rng.gamma(1.5, 1.0, n_genes)
    shape = rng.uniform(0.5, 20, n_genes)
    found = rng.negative_binomial(shape, shape / (shape + means), (150, n_genes))
    found[:, :silent] = 0
    return found.astype(np.float32)


def test_forest_ranks_by_scikit_learns_importance() -> None:
    from sklearn.ensemble import RandomForestClassifier

    method = METHODS["rf-importance"]
    task = tasks.make_task(method)
    params = method.params(n_estimators=20)
    forest = RandomForestClassifier(n_estimators=20, random_state=task.int_seed("forest"))
    importance = forest.fit(task.dense(), task.target.values).feature_importances_
    found = method.select(task, params)
    assert list(found.ranking)[:10] == task.genes[np.argsort(-importance)[:10]].tolist()


def test_forest_takes_regression_targets() -> None:
    task = tasks.make_task(METHODS["rf-importance"], target=tasks.expression())
    # Genes 0 and 4 are the targets themselves.
    assert set(ranking("rf-importance", task)[:2]) == set(task.genes[[0, 4]].tolist())


# What a selection is for.


@pytest.mark.parametrize("id", [*TESTS, "cosg", "rf-importance"])
def test_planted_markers_are_found(id: str) -> None:
    task = tasks.make_task(METHODS[id])
    planted = set(task.genes[: tasks.MARKERS * tasks.N_CLASSES].tolist())
    assert set(ranking(id, task)[: len(planted)]) == planted


def test_random_depends_on_the_seed_alone() -> None:
    method = METHODS["random"]
    first = [ranking("random", tasks.make_task(method, seed=seed)) for seed in range(4)]
    assert len({tuple(order) for order in first}) == 4
    noise = np.random.default_rng(0).poisson(3, tasks.counts().shape).astype(np.float32)
    noise[:, tasks.SILENT] = 0
    assert ranking("random", tasks.make_task(method, matrix=noise)) == first[0]


def test_all_genes_keeps_every_gene_by_variance() -> None:
    task = tasks.make_task(METHODS["all-genes"])
    variances = dict(zip(task.genes.tolist(), gene_variances(task.X), strict=True))
    order = [variances[gene] for gene in ranking("all-genes", task)]
    assert len(order) == task.n_genes and order == sorted(order, reverse=True)
    assert not METHODS["all-genes"].cut


# Odd data.


def test_cell_ranger_copes_with_many_silent_genes() -> None:
    task = tasks.make_task(METHODS["cell-ranger"], matrix=wide(300, silent=100))
    found = METHODS["cell-ranger"].select(task, METHODS["cell-ranger"].params())
    assert found.info["constant_genes_left_out"] == 100
    assert set(found.ranking[200:]) == set(task.genes[:100].tolist())


@pytest.mark.parametrize(("id", "hint"), [("cell-ranger", "seurat-v3"), ("seurat-v3", "span")])
def test_too_few_distinct_genes_is_explained(id: str, hint: str) -> None:
    # Twelve copies of one gene: every mean is the same.
    same = np.tile(np.random.default_rng(0).poisson(3, (150, 1)), (1, 12)).astype(np.float32)
    with pytest.raises(NotApplicable, match=hint):
        ranking(id, tasks.make_task(METHODS[id], matrix=same, X=tasks.locked(same)))


def test_data_without_any_variance_are_explained() -> None:
    flat = np.ones((20, 12), np.float32)
    with pytest.raises(NotApplicable, match="no gene varies"):
        ranking("cell-ranger", tasks.make_task(METHODS["cell-ranger"], matrix=flat))


@pytest.mark.parametrize("id", [*TESTS, "cosg"])
def test_one_class_cannot_be_compared(id: str) -> None:
    alone = tasks.cell_type(np.zeros(tasks.N_CELLS, np.int64))
    with pytest.raises(NotApplicable, match="cell_type"):
        ranking(id, tasks.make_task(METHODS[id], target=alone))


@pytest.mark.parametrize(
    ("id", "left_out"),
    [("t-test", ["T 3", "T 4"]), ("wilcoxon", ["T 3", "T 4"]), ("cosg", ["T 3"])],
)
def test_classes_that_cannot_be_tested_are_named(id: str, left_out: list[str]) -> None:
    codes = tasks.labels().copy()
    codes[0] = 4
    task = tasks.make_task(METHODS[id], target=tasks.cell_type(codes, classes=5))
    found = METHODS[id].select(task, METHODS[id].params())
    assert found.info["classes_left_out"] == left_out
    assert not set(left_out) & set(found.info["marker_of"])


def test_a_forest_that_uses_few_genes_warns() -> None:
    method = METHODS["rf-importance"]
    with pytest.warns(UserWarning, match="order of variance"):
        method.select(tasks.make_task(method, k=40), method.params(n_estimators=2, max_depth=1))


@pytest.mark.parametrize("id", ["seurat", "cell-ranger", "seurat-v3", *TESTS, "cosg"])
def test_usual_data_raise_no_warnings(id: str) -> None:
    task = tasks.make_task(METHODS[id], matrix=wide(tasks.N_GENES, silent=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        ranking(id, task)


# Real data.

MARKERS = {
    "B cells": {"CD79A", "CD79B", "MS4A1", "CD19", "CD74", "HLA-DRA", "TCL1A", "BANK1", "CD37"},
    "CD14+ Monocytes": {"CD14", "LYZ", "S100A8", "S100A9", "S100A12", "FCN1", "VCAN"},
    "CD4 T cells": {"IL7R", "CCR7", "LDHB", "LEF1", "TCF7", "CD3D", "CD3E", "LTB", "MAL", "NOSIP"},
    "CD8 T cells": {"CD8A", "CD8B", "GZMK", "CCL5", "GZMH", "CD3D", "CD3E", "IL32", "KLRG1"},
    "Dendritic cells": {"FCER1A", "CLEC10A", "CST3", "CD1C", "HLA-DQA1", "HLA-DQB1", "SERPINF1"},
    "FCGR3A+ Monocytes": {"FCGR3A", "MS4A7", "LST1", "CDKN1C", "RHOC", "IFITM3", "AIF1", "HES4"},
    "Megakaryocytes": {"PPBP", "PF4", "GNG11", "SDPR", "GP9", "ITGA2B", "TUBB1", "NRGN"},
    "NK cells": {"GNLY", "NKG7", "GZMB", "PRF1", "FGFBP2", "SPON2", "KLRD1", "CST7"},
}
"""Textbook markers of the eight types; a gene may stand for two related types."""


@pytest.fixture(scope="module")
def pbmc3k() -> tuple[np.ndarray, np.ndarray, Target]:
    """2,000 highly variable genes of pbmc3k: log-normalised matrix, genes, cell types."""
    path = real_data("data/pbmc3k.h5ad")
    import anndata
    import scanpy as sc

    data = anndata.read_h5ad(path)
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    sc.pp.highly_variable_genes(data, n_top_genes=2000, subset=True)
    types = data.obs["celltype"].astype("category").cat
    codes = types.codes.to_numpy().astype(np.int64)
    target = Target("celltype", "classification", codes, tuple(types.categories))
    return data.X.toarray().astype(np.float32), data.var_names.to_numpy().astype(str), target


@pytest.mark.parametrize("id", ["wilcoxon", "mrmr-f"])
def test_panels_of_32_hold_known_markers_of_pbmc3k(id: str, pbmc3k: Any) -> None:
    if id not in METHODS:
        pytest.skip(f"no method {id}")
    method: Method = METHODS[id]
    X, genes, target = pbmc3k
    task = Task(X=X, genes=genes, targets={target.name: target}, k=32, seed=0)
    panel = set(ranking(id, task)[:32])
    hit = {name for name in target.classes if MARKERS[name] & panel}
    assert method.supervised and len(hit) >= 6, f"no marker of {set(target.classes) - hit}"
