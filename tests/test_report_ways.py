"""Ways to score side by side, and how they agree: every number is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.data.specs import SplitSpec
from panelbench.errors import ConfigError, UnknownName
from panelbench.report import build
from panelbench.report.grid import Grid
from panelbench.report.results import EvaluatorRef, Results
from panelbench.report.summary import Summary
from panelbench.report.tables import metric_grid
from panelbench.report.ways import agreement_grid, ways_grid
from panelbench.suite.request import Request
from panelbench.suite.specs import TableSpec
from tests.reports import fake_results

#          Seurat  mRMR-f  PERSIST  YOTO  All genes
F1 = {"seurat": 0.1, "mrmr-f": 0.2, "persist": 0.3, "yoto": 0.4, "all-genes": 0.9}
OVERLAP = {"seurat": 0.4, "mrmr-f": 0.3, "persist": 0.2, "yoto": 0.1, "all-genes": 1.0}
ALIKE = {"seurat": 0.3, "mrmr-f": 0.2, "persist": 0.4, "yoto": 0.5, "all-genes": 0.6}
GIVEN = {
    "rf": {"f1_macro": F1},
    "neighbours": {"knn_overlap": OVERLAP},
    "redundancy": {"redundancy": ALIKE},
}
METRICS = ["f1_macro", "knn_overlap", "redundancy"]


def several(tasks: tuple[str, ...] = ("cell_types_25",), ks: tuple[int, ...] = (16,)) -> Results:
    """Results with an evaluation of every panel by each of three evaluators."""
    suite = {
        "datasets": [{"dataset": "visp", "tasks": list(tasks)}],
        "ks": list(ks), "seeds": [0, 1], "evaluators": [*GIVEN],
        "tables": [
            {"name": "ways", "kind": "ways", "metrics": METRICS},
            {"name": "agreement", "kind": "agreement", "metrics": METRICS},
        ],
    }  # fmt: skip
    found = fake_results(suite)
    lines = []
    for line in found.scores:
        for id, given in GIVEN.items():
            value = {name: by[line.row.method] for name, by in given.items()}
            ref = EvaluatorRef.of(id)
            lines.append(replace(line, evaluator=ref, metrics=value, beyond=False))
    return replace(found, scores=lines)


def table(kind: str, results: Results | None = None, **more: Any) -> Grid:
    spec = TableSpec(name=kind, kind=kind, **{"metrics": tuple(METRICS), **more})
    return (ways_grid if kind == "ways" else agreement_grid)(Summary(results or several()), spec)


def texts(grid: Grid) -> list[list[str]]:
    return [[cell.text for cell in row] for row in grid.rows]


def test_methods_by_all_ways_with_mean_ranks() -> None:
    grid = table("ways")
    assert grid.header[1:] == (
        ("Macro F1",), ("Neighbours kept",), ("Redundancy",),
        ("Mean rank, with labels",), ("Mean rank, without labels",),
    )  # fmt: skip
    # Without labels: overlap ranks Seurat first, redundancy mRMR-f, then Seurat.
    assert texts(grid) == [
        ["Seurat", "10.0 ± 0.0", "40.0 ± 0.0", "0.300 ± 0.000", "4.0", "1.5"],
        ["mRMR-f", "20.0 ± 0.0", "30.0 ± 0.0", "0.200 ± 0.000", "3.0", "1.5"],
        ["PERSIST", "30.0 ± 0.0", "20.0 ± 0.0", "0.400 ± 0.000", "2.0", "3.0"],
        ["YOTO", "40.0 ± 0.0", "10.0 ± 0.0", "0.500 ± 0.000", "1.0", "4.0"],
        ["All genes", "90.0 ± 0.0", "100.0 ± 0.0", "0.600 ± 0.000", "–", "–"],
    ]
    assert [row[1].mark for row in grid.rows] == ["", "", "second", "best", ""]
    assert [row[3].mark for row in grid.rows] == ["second", "best", "", "", ""]
    assert "lower is better: Redundancy" in grid.caption
    assert "visp, cell_types_25, k = 16" in grid.caption
    assert "Without labels: Neighbours kept, Redundancy" in grid.caption
    assert {line["metric"] for line in grid.records} == set(METRICS)
    assert len(grid.records) == 15


def test_several_places_stand_below_each_other() -> None:
    grid = table("ways", several(("cell_types_25", "cell_types_50")))
    assert [row[0].text for row in grid.rows[::5]] == [
        "visp, cell_types_25, k = 16", "visp, cell_types_50, k = 16"
    ]  # fmt: skip
    assert grid.rows[6][0].text == "" and grid.rows[6][1].text == "mRMR-f"
    assert grid.rows[8][2].mark == "best" and grid.stubs == 2


def test_ways_agree_by_rank_over_methods_that_compete() -> None:
    grid = table("agreement")
    # Overlap turns the order by F1 around. Redundancy, turned so that more is better, is
    # -0.3, -0.2, -0.4, -0.5: ranks 3, 4, 2, 1 against 1 to 4, rho = 1 - 6 (4 + 4 + 1 + 9) / 60.
    assert texts(grid) == [
        ["1 Macro F1", "1", "-1.00", "-0.80"],
        ["2 Neighbours kept", "-1.00", "1", "+0.80"],
        ["3 Redundancy", "-0.80", "+0.80", "1"],
    ]
    assert "up to 4 methods" in grid.caption, "all genes do not compete"
    first = grid.records[1]
    assert (first["one"], first["other"], first["methods"]) == ("Macro F1", "Redundancy", 4)
    assert first["kendall"] == pytest.approx(-2 / 3)


def test_agreement_is_the_mean_over_places_and_needs_three_methods() -> None:
    results = several(("cell_types_25", "cell_types_50"))
    turned = [
        replace(line, metrics={"knn_overlap": F1[line.row.method]})
        if line.task == "cell_types_50" and line.evaluator.id == "neighbours"
        else line
        for line in results.scores
    ]
    assert texts(table("agreement", replace(results, scores=turned)))[0][2] == "+0.00"
    two = [line for line in results.scores if line.row.method in ("yoto", "seurat")]
    assert texts(table("agreement", replace(results, scores=two)))[0][2] == "–"
    missing = [
        replace(line, status="failed", reason="x", metrics={})
        if line.evaluator.id == "neighbours" and line.row.method == "yoto"
        else line
        for line in several().scores
    ]
    grid = table("agreement", replace(several(), scores=missing))
    assert [line["methods"] for line in grid.records] == [3, 4, 3]
    assert texts(table("ways", replace(several(), scores=missing)))[3][-2:] == ["1.0", "–"]


def test_the_parameters_of_an_evaluator_tell_its_ways_apart() -> None:
    results = several()
    more = [
        replace(line, evaluator=EvaluatorRef.of("rf", {"n_estimators": 7}))
        for line in results.scores
        if line.evaluator.id == "rf"
    ]
    grid = table("ways", replace(results, scores=[*results.scores, *more]), metrics=("f1_macro",))
    assert [text for (text,) in grid.header[1:3]] == ["Macro F1, RF", "Macro F1, n_estimators=7"]
    assert len(grid.header) == 4, "labels have part in all: one column of ranks"


def test_a_metric_that_nothing_gives_is_named() -> None:
    with pytest.raises(UnknownName, match="gene_prediction"):
        table("ways", metrics=("gene_prediction",))
    with pytest.raises(UnknownName, match="f1_makro"):
        table("agreement", metrics=("f1_makro",))


def test_tables_say_that_groups_were_not_trained_on() -> None:
    said = "Scored on groups of cells that were not trained on: visp (donor)."
    for scheme in ("groups", "leave-one-group-out", "holdout"):
        facts = {"visp": {"split": {"scheme": scheme, "group": "donor", "test": 0.2}}}
        results = replace(several(), datasets=facts)
        usual = metric_grid(Summary(results), TableSpec(name="f1"))
        for caption in (table("ways", results).caption, usual.caption):
            assert (said in caption) == (scheme != "holdout")


def test_other_groups_are_asked_for_on_the_command_line() -> None:
    asked = {"dataset": ("pbmc3k",), "split": "leave-one-group-out"}
    (entry,) = Request(**asked, group="donor").resolve().datasets
    assert entry.split == SplitSpec(scheme="leave-one-group-out", group="donor")
    suite = Request(**asked, suite="panel-quality", group="donor").resolve()
    assert [item.split for item in suite.datasets] == [entry.split]
    with pytest.raises(
        ConfigError, match=r"--split leave-one-group-out, data set pbmc3k.*needs 'gr"
    ):
        Request(**asked).resolve()
    (known,) = Request(dataset=("her2st",), split="groups").resolve().datasets
    assert known.split is not None and known.split.group == "section"
    (other,) = Request(dataset=("her2st",), split="groups", group="patient").resolve().datasets
    assert other.split is not None and other.split.group == "patient"


def test_a_report_holds_both(tmp_path: Path) -> None:
    build(several(), tmp_path)
    assert "Mean rank, without labels" in (tmp_path / "tables/ways.md").read_text()
    lines = (tmp_path / "tables/agreement.csv").read_text().splitlines()
    assert lines[0] == "dataset,task,k,one,other,methods,spearman,kendall" and len(lines) == 4
    assert "-1.000000" in lines[1] and np.isclose(float(lines[2].split(",")[6]), -0.8)
