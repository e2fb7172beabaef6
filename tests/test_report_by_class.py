"""Tables with classes in rows, and published numbers of classes beside ours."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.data.specs import SplitSpec
from panelbench.report import build
from panelbench.report.by_class import by_class_grid
from panelbench.report.grid import Grid, markdown
from panelbench.report.published import beside, protocol_of, published_grid, read
from panelbench.report.results import EvaluatorRef, Results
from panelbench.report.summary import Summary
from panelbench.report.tables import specs
from panelbench.suite.runs import Row
from tests.reports import DECLARED, REFERENCE, fake_results

ROWS = (
    Row("yoto", "MarkerMap", "yoto", replace(DECLARED, predictor=True)),
    Row("persist", "scVI", "persist", replace(DECLARED, predictor=True)),
)
METRICS = ("jaccard_variable", "l2_cell")
TABLE = {"name": "t4", "by_class": True, "metrics": METRICS}
SUITE = {
    "datasets": [{"dataset": "visp", "tasks": ["types"]}],
    "ks": [64],
    "seeds": [0, 1, 2],
    "evaluators": ["builtin-reconstruct"],
    "tables": [TABLE],
}
VALUES = {"b": 0.2, "a": 0.4, "c": 0.6}


def reconstructed(line: dict[str, Any]) -> dict[str, Any]:
    """Seeds 0.01 apart; the first method has more of each, and seed 0 has no cell of class c."""
    more = (0.1 if line["row"].variant == "yoto" else 0.0) + 0.01 * (line["seed"] - 1)
    return line | {
        "kind": "expression", "evaluator": EvaluatorRef.of("builtin-reconstruct"), "confusion": [],
        "classes": list(VALUES), "beyond": False, "metrics": dict.fromkeys(METRICS, 0.5 + more),
        "by_class": {
            name: dict.fromkeys(METRICS, value + more)
            for name, value in VALUES.items()
            if name != "c" or line["seed"]
        },
    }  # fmt: skip


def results(suite: dict[str, Any] | None = None, change: Any = reconstructed) -> Results:
    return fake_results(SUITE | (suite or {}), change, rows=ROWS)


def grid(found: Results) -> Grid:
    summary = Summary(found)
    return by_class_grid(summary, specs(summary)[0])


def test_rows_are_classes_by_name_then_all_cells() -> None:
    found = grid(results())
    assert found.stubs == 2 and [column[-1] for column in found.header] == [
        "Class", "Method", "Jaccard of variable genes", "ℓ2 per cell",
    ]  # fmt: skip
    texts = [[cell.text for cell in row] for row in found.rows]
    # The name of a class stands at the first of its rows.
    assert [row[0] for row in texts] == ["a", "", "b", "", "c", "", "All", ""]
    assert [row[1] for row in texts] == ["MarkerMap", "scVI"] * 4
    assert texts[0][2:] == ["0.500 ± 0.010"] * 2 and texts[1][2:] == ["0.400 ± 0.010"] * 2
    assert texts[6][2:] == ["0.600 ± 0.010"] * 2
    assert "reconstructed by what the methods trained" in found.caption


def test_the_best_of_every_class_is_marked() -> None:
    for first, second in zip(*[iter(grid(results()).rows)] * 2, strict=True):
        assert [cell.mark for cell in first[2:]] == ["best", "second"]
        assert [cell.mark for cell in second[2:]] == ["second", "best"]


def test_a_class_without_test_cells_in_a_seed_says_so() -> None:
    found = grid(results())
    cell = found.rows[4][2]
    # Seeds 1 and 2: 0.7 and 0.71.
    assert cell.text == "0.705 ± 0.007"
    assert found.notes[cell.notes[0] - 1].startswith("2 of 3 seeds (not defined on the test cells")


def test_what_keeps_all_genes_has_its_classes_and_does_not_compete() -> None:
    control = replace(ROWS[1], declared=replace(ROWS[1].declared, cut=False))

    def only_control(line: dict[str, Any]) -> dict[str, Any]:
        line = reconstructed(line)
        lost = {"status": "failed", "reason": "", "metrics": {}, "by_class": {}}
        return line | lost if line["row"].variant == "yoto" else line

    found = grid(fake_results(SUITE, only_control, rows=(ROWS[0], control)))
    assert [row[0].text for row in found.rows[::2]] == ["a", "b", "c", "All"]
    assert found.rows[1][2].text == "0.400 ± 0.010"
    assert {cell.mark for row in found.rows for cell in row} == {""}
    assert any("Keeps all genes" in note for note in found.notes)


def test_data_sets_are_in_rows_too() -> None:
    datasets = [{"dataset": "visp", "tasks": ["types"]}, {"dataset": "other", "tasks": ["kinds"]}]

    def change(line: dict[str, Any]) -> dict[str, Any]:
        line = reconstructed(line)
        if line["dataset"] == "visp":
            return line
        return line | {"status": "skipped", "reason": "no reader", "by_class": {}, "metrics": {}}

    found = grid(results({"datasets": datasets}, change))
    assert found.stubs == 3
    first = [row[0].text for row in found.rows]
    assert [text for text in first if text] == ["visp", "other"] and first.index("other") == 8
    # What has no classes yet has one group, which says why.
    last = found.rows[8:]
    assert [row[1].text for row in last] == ["All", ""]
    assert found.notes[last[0][3].notes[0] - 1] == "Skipped: no reader"
    assert "visp" not in found.caption and "k = 64" in found.caption.lower()


def test_a_suite_that_has_not_run_gives_a_table(tmp_path: Path) -> None:
    def missing(line: dict[str, Any]) -> dict[str, Any]:
        lost = {"status": "missing", "reason": "not run yet", "metrics": {}, "by_class": {}}
        return reconstructed(line) | lost

    build(results(change=missing), tmp_path)
    assert "Not run yet" in (tmp_path / "tables/t4.md").read_text()


def test_files_hold_every_class(tmp_path: Path) -> None:
    build(results(), tmp_path)
    lines = list(csv.DictReader((tmp_path / "tables/t4.csv").open()))
    found = {(x["class"], x["method"], x["metric"]): x for x in lines}
    assert len(found) == len(lines) == 4 * 2 * 2
    assert float(found["b", "persist", "l2_cell"]["mean"]) == pytest.approx(0.2)
    assert found["c", "persist", "l2_cell"]["n"] == "2"
    assert float(found["", "yoto", "l2_cell"]["mean"]) == pytest.approx(0.6)
    assert (tmp_path / "tables/t4.md").read_text() == markdown(grid(results()))
    assert r"Class & Method" in (tmp_path / "tables/t4.tex").read_text()


# -- published numbers ---------------------------------------------------------------------

SPLIT = {"test": 0.2, "validation": 0.1, "stratify": False}
MATRIX = [{"name": "log1p"}, {"name": "scale", "options": {"by": "matrix"}}]


def paper(recipe: list[dict[str, Any]] | None) -> Results:
    """MarkerMap on the paper's mouse brain, the classes named as there."""
    entry = {"dataset": "mouse-brain", "tasks": ["cell_type"], "split": SPLIT, "recipe": recipe}

    def change(line: dict[str, Any]) -> dict[str, Any]:
        line = reconstructed(line)
        names = {"a": "Astro", "b": "Endo", "c": "no such class"}
        return line | {"by_class": {names[name]: v for name, v in line["by_class"].items()}}

    rows = (replace(ROWS[0], variant="markermap-unsup[preset=paper]", label="MarkerMap"),)
    return fake_results(SUITE | {"datasets": [entry], "ks": [50]}, change, rows=rows)


def test_numbers_of_classes_stand_beside_ours() -> None:
    lines = beside(Summary(paper(MATRIX)), read(REFERENCE))
    found = {(line["class"], line["metric"]): line for line in lines}
    assert {name for name, _ in found} == {"", "Astro", "Endo"} and len(lines) == 6
    astro = found["Astro", "jaccard_variable"]
    assert (astro["mean"], astro["published_mean"]) == (pytest.approx(0.4), 0.505)
    assert found["", "l2_cell"]["published_mean"] == 48.234
    table = published_grid(lines)
    assert [cell.text for cell in table.rows[0][:6]] == [
        "MarkerMap", "mouse-brain", "cell_type", "50", "Astro", "Jaccard of variable genes",
    ]  # fmt: skip
    assert table.stubs == 7 and {row[4].text for row in table.rows} == {"Astro", "Endo", "All"}


def test_cells_prepared_in_another_way_have_no_published_number() -> None:
    published = read(REFERENCE)
    assert beside(Summary(paper(None)), published) == []
    entry = paper(MATRIX).suite.datasets[0]
    assert protocol_of(SplitSpec.model_validate(SPLIT), entry) == "markermap-generative"
    assert protocol_of(SplitSpec(), entry) == ""
