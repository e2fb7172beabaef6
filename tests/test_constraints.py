"""What a panel keeps to: which genes are candidates, and how a ranking becomes a panel."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from panelbench.errors import ConfigError, ConstraintError, InputError
from panelbench.ranking import auroc, class_means
from panelbench.report.html import constraint_lines
from panelbench.schema import parse
from panelbench.stages.candidates import candidates
from panelbench.stages.completion import Rules, complete
from panelbench.stages.constraints import Constraints
from panelbench.suite.constraint_options import read_constraints, read_costs
from tests.tools import Bench

GENES = [f"g{i}" for i in range(8)]
RANKING = GENES


def wanted(**given: Any) -> Constraints:
    return parse(Constraints, given, "constraints")


# -- candidates ----------------------------------------------------------------------------

CODES = np.array([0, 0, 1, 1, -1])
COUNTS = np.array(
    [  # MT-1  RPL3  A  B  C
        [1, 0, 4, 0, 9],
        [1, 2, 6, 0, 9],
        [1, 0, 0, 3, 9],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 9],
    ],
    dtype=np.float32,
)
NAMES = ["MT-1", "RPL3", "A", "B", "C"]


def allowed(matrix: Any = COUNTS, **given: Any) -> list[str]:
    found = candidates(wanted(**given), NAMES, matrix, CODES, ["x", "y"], matrix)
    return [name for name, kept in zip(NAMES, found.allowed, strict=True) if kept]


@pytest.mark.parametrize("matrix", [COUNTS, sparse.csr_matrix(COUNTS)], ids=["array", "csr"])
@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ({}, NAMES),
        ({"exclude": ["mitochondrial", "ribosomal"]}, ["A", "B", "C"]),
        ({"exclude": ["RP[LS]*", "C"]}, ["MT-1", "A", "B"]),
        # Means 1, 0.4, 2, 0.8, 7.2; in the highest class 1, 1, 5, 2, 9.
        ({"mean": [0.8, 2]}, ["MT-1", "A", "B"]),
        ({"class_mean": [1.5, 5]}, ["A", "B"]),
        # Seen in 1, 0.2, 0.4, 0.4, 0.8; in the highest class 1, 0.5, 1, 1, 1.
        ({"detection": [None, 0.4]}, ["RPL3", "A", "B"]),
        ({"class_detection": [0.6, None]}, ["MT-1", "A", "B", "C"]),
        ({"costs": {"A": 1, "B": 2}, "budget": 2}, ["A", "B"]),
        # What is included is not asked for its expression.
        ({"include": ["C"], "mean": [0.8, 2]}, ["MT-1", "A", "B", "C"]),
    ],
)
def test_candidates(matrix: Any, given_: dict[str, Any], kept: list[str]) -> None:
    assert allowed(matrix, **given_) == kept


def test_what_is_left_out_is_counted() -> None:
    asked = wanted(exclude=["A"], mean=[0.8, 2])
    found = candidates(asked, NAMES, COUNTS, CODES, ["x", "y"], COUNTS)
    assert found.left_out == {"exclude": 1, "mean": 2}


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (
            {"include": ["AA"]},
            r"AA is to be included and not among the 5 genes .* \(near: A",
        ),
        ({"include": ["A"], "exclude": ["A"]}, "included are excluded too: A"),
        ({"include": ["A"], "costs": {"B": 1}, "budget": 2}, "included are without a cost: A"),
        ({"markers": 2}, r"2 markers of each class .* x has 1, y has 1 \(AUROC above 0.8"),
    ],
)
def test_candidates_that_cannot_be(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(ConstraintError, match=words):
        allowed(**given_)


def test_classes_are_needed_for_what_is_about_classes() -> None:
    with pytest.raises(ConstraintError, match="need a task with classes"):
        candidates(wanted(markers=1), NAMES, COUNTS, None, [])


def test_counts_are_needed_for_means() -> None:
    with pytest.raises(ConstraintError, match="need counts"):
        candidates(wanted(mean=[1, None]), NAMES, COUNTS, CODES, ["x", "y"])


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"budget": 5}, "costs and budget belong together"),
        ({"costs": {"A": 1}}, "costs and budget belong together"),
        ({"mean": [2, 1]}, "lower bound 2 is above the upper bound 1"),
        ({"include": ["A", "A"]}, "every gene only once"),
    ],
)
def test_constraints_that_make_no_sense(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wanted(**given_)


def test_markers_by_hand() -> None:
    found = candidates(wanted(markers=1), NAMES, COUNTS, CODES, ["x", "y", "without cells"])
    assert found.marks == {"x": {"A"}, "y": {"B"}}
    strict = wanted(markers=1, marker_detection=0.99, exclude=["A"], marker_auroc=0.75)
    with pytest.raises(ConstraintError, match="x has 0"):
        candidates(strict, NAMES, COUNTS, CODES, ["x", "y"])


def test_auroc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    values, codes = rng.poisson(1.0, (60, 7)).astype(np.float32), rng.integers(-1, 3, 60)
    columns, known = np.array([0, 3, 6]), codes >= 0
    found = auroc(sparse.csr_matrix(values), codes, 4, columns, block=2)
    for code, (place, column) in itertools.product(range(3), enumerate(columns)):
        expected = roc_auc_score(codes[known] == code, values[known, column])
        assert found[code, place] == pytest.approx(expected, abs=1e-12)
    assert (found[3] == 0.5).all(), "a class without cells"


def test_class_means_by_hand() -> None:
    found = class_means(COUNTS, CODES, 3)
    assert found.tolist() == [[1, 1, 5, 0, 9], [1, 0, 0, 2, 4.5], [0, 0, 0, 0, 0]]


# -- completion ----------------------------------------------------------------------------


def test_without_rules_the_panel_is_the_ranking() -> None:
    found = complete(RANKING, 3, Rules())
    assert (found.panel, found.moved_in, found.moved_out) == (("g0", "g1", "g2"), {}, ())


def test_included_genes_come_first_and_count() -> None:
    found = complete(RANKING, 3, Rules(include=("g6", "g1")))
    assert found.panel == ("g1", "g6", "g0")
    assert found.moved_in == {"g6": "to be included"} and found.moved_out == ("g2",)


def test_classes_get_their_best_markers() -> None:
    marks = {"common": frozenset({"g0", "g1", "g7"}), "rare": frozenset({"g5", "g7"})}
    found = complete(RANKING, 3, Rules(markers=1, marks=marks))
    assert found.panel == ("g0", "g1", "g5")
    assert found.moved_in == {"g5": "marks rare"} and found.moved_out == ("g2",)
    both = complete(RANKING, 3, Rules(markers=2, marks=marks))
    assert both.panel == ("g0", "g5", "g7"), "g7 counts for both classes"


def test_a_budget_passes_over_what_is_too_expensive() -> None:
    costs = dict.fromkeys(GENES, 1.0) | {"g1": 5.0}
    found = complete(RANKING, 3, Rules(costs=costs, budget=6))
    assert found.panel == ("g0", "g2", "g3")
    assert found.moved_in == {"g3": "cheaper than what it replaces"}
    assert complete(RANKING, 3, Rules(costs=costs, budget=7)).panel == ("g0", "g1", "g2")


@pytest.mark.parametrize(
    ("k", "rules", "words"),
    [
        (1, Rules(include=("g0", "g1")), "2 genes are to be included, and k is 1"),
        (9, Rules(), "8 genes are candidates, and k is 9"),
        (2, Rules(costs=dict.fromkeys(GENES, 2.0), budget=3), "cost 4 for k = 2, 1 more than"),
        (
            2,
            Rules(include=("g0",), costs=dict.fromkeys(GENES, 1.0) | {"g0": 9.0}, budget=3),
            "the genes to be included and the cheapest others cost 10 for k = 2, 7 more",
        ),
        (
            1,
            Rules(markers=1, marks={"a": frozenset({"g0"}), "b": frozenset({"g1"})}),
            r"take more than k = 1 genes \(2 when it came to b\)",
        ),
        (
            2,
            Rules(markers=1, marks={"a": frozenset({"g4"})},
                  costs=dict.fromkeys(GENES, 1.0) | {"g4": 3.0}, budget=3),
            "a lacks 1 of 1 markers: those left do not fit into the budget of 3",
        ),
    ],
)  # fmt: skip
def test_panels_that_cannot_be(k: int, rules: Rules, words: str) -> None:
    with pytest.raises(ConstraintError, match=words):
        complete(RANKING, k, rules)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], int, Rules]:
    ranking = draw(st.permutations(GENES))
    k = draw(st.integers(1, 6))
    subset = st.sets(st.sampled_from(GENES), max_size=3)
    marks = draw(st.dictionaries(st.sampled_from("abc"), subset, max_size=3))
    prices = draw(st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=8, max_size=8)))
    return (
        ranking,
        k,
        Rules(
            include=tuple(draw(subset)),
            markers=draw(st.integers(1, 2)),
            marks={name: frozenset(genes) for name, genes in marks.items()},
            costs={} if prices is None else dict(zip(GENES, map(float, prices), strict=True)),
            budget=None if prices is None else float(draw(st.integers(1, 14))),
        ),
    )


def _keeps(panel: tuple[str, ...], rules: Rules) -> bool:
    return (
        set(rules.include) <= set(panel)
        and all(len(genes & set(panel)) >= rules.markers for genes in rules.marks.values())
        and (rules.budget is None or sum(rules.costs[g] for g in panel) <= rules.budget)
    )


@settings(max_examples=300, deadline=None)
@given(cases())
def test_a_panel_keeps_to_all_of_it(case: tuple[list[str], int, Rules]) -> None:
    ranking, k, rules = case
    some = any(_keeps(panel, rules) for panel in itertools.combinations(ranking, k))
    try:
        found = complete(ranking, k, rules)
    except ConstraintError:
        # Without classes to cover, a panel is found where there is one.
        assert not some or rules.marks
        return
    assert some and _keeps(found.panel, rules)
    assert len(set(found.panel)) == len(found.panel) == k
    assert found == complete(ranking, k, rules)
    assert set(found.moved_in) == set(found.panel) - set(ranking[:k])
    assert set(found.moved_out) == set(ranking[:k]) - set(found.panel)
    if _keeps(tuple(ranking[:k]), rules) and rules.budget is None:
        assert set(found.panel) == set(ranking[:k]), "nothing moves without need"


# -- through the stages --------------------------------------------------------------------


def _select(lab: Any, method: str = "spy", k: int = 3, **given_: Any) -> dict[str, Any]:
    """A selection in this process; the spy ranks genes backwards, from g39 to g0."""
    from panelbench.stages.selection import select_panel

    question = replace(lab.select(k=k), method=method, constraints=wanted(**given_))
    return select_panel(question, lab.tools()).result


def test_the_method_sees_candidates_only(lab: Any) -> None:
    result = _select(lab, exclude=["g3[0-9]"])
    assert result["genes"] == 30
    assert result["ranking"][:3] == ["g29", "g28", "g27"] and "g30" not in result["ranking"]
    assert result["constraints"]["left_out"] == {"exclude": 10}
    assert result["predictor"] is not None, "nothing moved: the predictor is that of the panel"


def test_what_moved_is_said_and_the_predictor_goes(lab: Any) -> None:
    result = _select(lab, include=["g5", "g38"])
    assert result["ranking"][:3] == ["g38", "g5", "g39"]
    told = result["constraints"]
    assert told["moved_in"] == {"g5": "to be included"} and told["moved_out"] == ["g37"]
    assert result["predictor"] is None


def test_costs_and_markers_are_in_the_record(lab: Any) -> None:
    costs = {f"g{i}": 1.0 for i in range(40)}
    result = _select(lab, k=6, costs=costs, budget=6, markers=1, marker_auroc=0.6)
    told = result["constraints"]
    assert told["cost"] == 6 and all(len(genes) >= 1 for genes in told["markers"].values())
    panel = set(result["ranking"][:6])
    assert {gene for genes in told["markers"].values() for gene in genes} <= panel


def test_scaled_cells_are_judged_by_what_was_scaled(lab: Any) -> None:
    """Scaled values have no zero for a gene that is not seen."""
    from panelbench.registry import discover
    from panelbench.stages.constrained import constrain
    from panelbench.stages.task import expression

    cells, _ = lab.tools().training_cells("fold", 1)
    bound = wanted(detection=[0.5, None])
    usual = constrain(cells, bound, discover().get("random"), 3).found.allowed
    scaled = cells.copy()
    scaled.layers["lognorm"] = cells.layers.get("lognorm", cells.X)
    scaled.X = np.asarray(expression(cells, "lognorm").todense()) + 1.0
    scaled.uns["x"] = "scaled"
    found = constrain(scaled, bound, discover().get("random"), 3).found.allowed
    assert not usual.all() and (found == usual).all()


def test_too_few_candidates_say_by_how_much(lab: Any) -> None:
    with pytest.raises(ConstraintError, match=r"2 of 40 genes are candidates, 1 fewer than k = 3"):
        _select(lab, exclude=["g[2-9]*", "g1[0-9]"])


def test_persist_builds_on_what_is_included(lab: Any) -> None:
    from panelbench.stages.selection import select_panel

    params = {"select_epochs": 1, "target": 10}
    question = replace(lab.select(k=4, params=params), method="persist")
    question = replace(question, constraints=wanted(include=["g20", "g21"]))
    result = select_panel(question, lab.tools()).result
    assert set(result["ranking"][:2]) == {"g20", "g21"}
    assert result["constraints"]["moved_in"] == {} and result["predictor"] is not None


def test_they_are_in_the_key(planned: Any) -> None:
    def keys(**given_: Any) -> set[str]:
        extra = {"constraints": given_} if given_ else {}
        return {run.key for run in planned(**extra).selections}

    every = [keys(), keys(exclude=["g1"]), keys(exclude=["g2"]), keys(markers=1), keys(markers=2)]
    assert all(not first & second for first, second in itertools.combinations(every, 2))
    assert keys(exclude=["g1"]) == keys(exclude=["g1"])


def test_a_nested_ranking_serves_one_size_where_sizes_matter(planned: Any) -> None:
    plain, by_size = planned(ks=[2, 4]), planned(ks=[2, 4], constraints={"markers": 1})
    nested = {run.row.method for run in plain.selections if run.question.nested}
    assert nested and not any(run.question.nested for run in by_size.selections)
    asked = {run.k for run in by_size.selections if run.row.method in nested}
    assert asked == {2, 4}
    with pytest.raises(ConfigError, match="3 genes to include, and k = 2"):
        planned(ks=[2, 4], constraints={"include": ["g1", "g2", "g3"]})


# -- as options ----------------------------------------------------------------------------


def test_options(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("g1\ng2\n")
    (tmp_path / "out.csv").write_text("gene\ng3\n")
    (tmp_path / "costs.csv").write_text("gene,cost\ng1,1\ng2,2.5\n")
    found = read_constraints(
        {"include": [tmp_path / "in.txt"], "exclude": [str(tmp_path / "out.csv"), "MT-*"],
         "class_mean": "0.5:", "detection": ":0.9", "costs": tmp_path / "costs.csv", "budget": 9.0,
         "marker_auroc": 0.7},
        wanted(markers=2, exclude=["g9"]),
    )  # fmt: skip
    assert found == wanted(
        include=["g1", "g2"], exclude=["g3", "MT-*"], class_mean=[0.5, None],
        detection=[None, 0.9], costs={"g1": 1, "g2": 2.5}, budget=9, markers=2,
        marker_auroc=0.7,
    )  # fmt: skip
    assert read_constraints({}, None) is None


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"mean": "5"}, "--mean 5: write MIN:MAX"),
        ({"class_mean": "a:b"}, "--class-mean a:b: write MIN:MAX"),
        ({"include": ["none.txt"]}, r"--include none\.txt: no such file"),
        ({"costs": "none.csv"}, r"--costs none\.csv: no such file"),
        ({"budget": 3.0}, "costs and budget belong together"),
    ],
)
def test_options_that_do_not_fit(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_constraints(given_, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gene,price\ng1,1\n", "columns gene and cost"),
        ("gene,cost\ng1,x\n", "line 2: the cost of g1 is 'x'"),
        ("gene,cost\ng1,-1\n", "line 2: the cost of g1 is '-1'"),
        ("gene,cost\ng1,1\ng1,2\n", "line 3: g1 stands there twice"),
    ],
)
def test_costs_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_costs(tmp_path / "c.csv")


def test_from_the_command_line_to_an_ordered_panel(bench: Bench) -> None:
    (bench.folder / "must.txt").write_text("g30\n")
    args = ["--data", str(bench.data), "--label", "cell_type", "--method", "rf-importance",
            "--k", "4", "--include", "must.txt", "--exclude", "g0"]  # fmt: skip
    made = bench.call("select", *args, "--out", "panel.csv")
    assert made.code == 0, made.err
    rows = list(csv.DictReader((bench.folder / "panel.csv").open()))
    assert len(rows) == 4 and "g0" not in {row["gene"] for row in rows}
    assert {row["gene"]: row["note"] for row in rows if row["note"]} == {"g30": "to be included"}
    failed = bench.call("select", *args, "--exclude", "g30")
    assert failed.code == 1 and "genes to be included are excluded too: g30" in failed.out


def test_the_page_says_what_panels_keep_to() -> None:
    lines = constraint_lines(
        wanted(include=["LYZ\x1b[31m"], exclude=[f"g{i}" for i in range(14)], class_mean=[0.5, 5],
               detection=[None, 0.9], costs={"LYZ": 1}, budget=9, markers=2)
    )  # fmt: skip
    assert lines == [
        "always on it: LYZ",
        "never on it: " + ", ".join(f"g{i}" for i in range(12)) + " and 2 more",
        "mean count per cell of the class where it is highest: at least 0.5 and at most 5",
        "share of cells with the gene: at most 0.9",
        "cost together: at most 9",
        "markers of each class: at least 2 (AUROC above 0.8, seen in more than 20% of its cells)",
    ]
    assert constraint_lines(None) == []
