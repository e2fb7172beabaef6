"""The report: what tables say, and that the same records give the same bytes."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.data.catalogue import load_catalogues
from panelbench.errors import ConfigError, UnknownName
from panelbench.registry import discover
from panelbench.report import build, terminal_table
from panelbench.report.grid import Cell, Grid, markdown, to_csv
from panelbench.report.latex import escape, latex
from panelbench.report.panels import panels
from panelbench.report.published import COLUMNS, beside, read
from panelbench.report.ranks import rankings, ranks_grid
from panelbench.report.results import EvaluatorRef, Results
from panelbench.report.summary import Entrant, Summary
from panelbench.report.tables import RECORD_COLUMNS, metric_grid, specs
from panelbench.scoring.metrics import METRICS
from panelbench.suite.plan import make_plan
from panelbench.suite.request import load_suite
from panelbench.suite.runs import Row
from tests.reports import (
    DECLARED,
    REFERENCE,
    ROWS,
    compile_latex,
    fake_results,
    no_score,
)
from tests.tools import real_data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the report of the fake results as they are."""
    folder = tmp_path_factory.mktemp("report")
    build(fake_results(), folder, REFERENCE)
    return folder


def grid_of(results: Results, number: int = 0) -> Grid:
    summary = Summary(results)
    return metric_grid(summary, specs(summary)[number])


def column(grid: Grid, *header: str) -> dict[str, Any]:
    place = grid.header.index(header)
    return {row[0].text: row[place] for row in grid.rows}


def test_cells_are_mean_and_sample_deviation_in_percent() -> None:
    cells = column(grid_of(fake_results()), "cell_types_25", "k = 64")
    # Seeds give 0.75 - 0.5/64 + (-0.01, 0, 0.01): sample deviation 0.01.
    assert cells["mRMR-f"].text == "74.2 ± 1.0"


def test_best_and_second_are_marked_and_controls_do_not_compete() -> None:
    cells = column(grid_of(fake_results()), "cell_types_25", "k = 16")
    assert cells["YOTO"].mark == "best"
    assert cells["PERSIST†"].mark == "second"
    assert cells["All genes"].mark == ""
    assert float(cells["All genes"].text.split()[0]) > float(cells["YOTO"].text.split()[0])


def test_rows_that_print_the_same_share_the_mark() -> None:
    def level(line: dict[str, Any]) -> dict[str, Any]:
        # 0.00001 apart: not seen in a table of one decimal.
        if line["row"].variant in ("persist", "yoto"):
            offset = 0.00001 if line["row"].variant == "yoto" else 0.0
            line["metrics"] = {"f1_macro": 0.81 + offset}
        return line

    cells = column(grid_of(fake_results(change=level)), "cell_types_25", "k = 64")
    assert cells["YOTO"].mark == cells["PERSIST†"].mark == "best"
    assert cells["mRMR-f"].mark == "second"


def test_lower_is_better_turns_the_marks_around() -> None:
    def regress(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"kind": "regression", "metrics": {"mse": line["metrics"]["f1_macro"]}}

    suite = {"tables": [{"name": "errors", "metrics": ["mse"], "ks": [64]}]}
    grid = grid_of(fake_results(suite, regress))
    assert column(grid, "cell_types_25")["Seurat"].mark == "best"
    assert column(grid, "cell_types_25")["mRMR-f"].mark == "second"
    assert "lower is better" in grid.caption
    assert "percent" not in grid.caption


def test_an_uncut_control_fills_every_k_with_a_footnote() -> None:
    grid = grid_of(fake_results())
    control = next(row for row in grid.rows if row[0].text == "All genes")
    assert [control[i].text for i in (1, 2, 3)] == ["94.9 ± 1.0"] * 3
    assert "Keeps all genes" in grid.notes[control[0].notes[0] - 1]


def test_a_method_that_lost_a_seed_shows_how_many_and_does_not_compete() -> None:
    change = no_score("timeout", "limit of 60 s", variant="yoto", seed=1, k=64)
    grid = grid_of(fake_results(change=change))
    cells = column(grid, "cell_types_25", "k = 64")
    assert cells["YOTO"].mark == ""
    assert cells["PERSIST†"].mark == "best"
    assert grid.notes[cells["YOTO"].notes[0] - 1] == "2 of 3 seeds (timed out: limit of 60 s)"


@pytest.mark.parametrize(
    ("status", "reason", "note"),
    [
        ("oom", "held 20 GB, 16 GB allowed", "Out of memory: held 20 GB, 16 GB allowed"),
        ("failed", "ValueError: X\nTraceback", "Failed: ValueError: X"),
        ("missing", "", "Not run yet"),
        ("skipped", "needs counts", "Skipped: needs counts"),
    ],
)
def test_a_method_without_any_score_shows_a_dash_that_says_why(
    status: str, reason: str, note: str
) -> None:
    grid = grid_of(fake_results(change=no_score(status, reason, variant="mrmr-f")))
    cells = column(grid, "cell_types_25", "k = 64")
    assert cells["mRMR-f"].text == "–"
    assert grid.notes[cells["mRMR-f"].notes[0] - 1] == note


def test_a_metric_that_is_undefined_says_so() -> None:
    def without(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"metrics": {n: v for n, v in line["metrics"].items() if n != "auroc"}}

    suite = {"tables": [{"name": "t", "metrics": ["auroc"], "ks": [16]}]}
    grid = grid_of(fake_results(suite, without))
    assert column(grid, "cell_types_25")["YOTO"].text == "–"
    assert any("Not defined" in note for note in grid.notes)


def test_models_are_counted_per_data_set_k_and_seed() -> None:
    suite = {
        "datasets": [{"dataset": "visp", "tasks": ["a", "b", "c"]}],
        "tables": [{"name": "t", "ks": [64], "n_models": True}],
    }
    counts = column(grid_of(fake_results(suite)), "#models")
    # The YOTO paper's Table 3: four for Seurat, six for mRMR, three for PERSIST, one for YOTO.
    found = {name: cell.text for name, cell in counts.items()}
    assert found == {"Seurat": "4", "mRMR-f": "6", "PERSIST†": "3", "YOTO": "1", "All genes": "4"}


def test_only_what_varies_becomes_a_header_level() -> None:
    suite = {
        "datasets": [{"dataset": "one", "tasks": ["a"]}, {"dataset": "two", "tasks": ["b"]}],
        "tables": [{"name": "t", "ks": [64], "metrics": ["accuracy", "f1_weighted"]}],
    }
    grid = grid_of(fake_results(suite))
    # One task per data set: its name adds nothing to the data set's.
    assert grid.header[1:] == (
        ("one", "Accuracy"), ("one", "Weighted F1"), ("two", "Accuracy"), ("two", "Weighted F1"),
    )  # fmt: skip
    assert grid.spans(0) == [("", 1), ("one", 2), ("two", 2)]
    assert "K = 64" in grid.caption


def test_evaluators_are_named_where_they_tell_rows_apart() -> None:
    results = fake_results()
    summary = Summary(results)
    mrmr, yoto = ROWS[1], ROWS[3]
    own, forest = Entrant(yoto, EvaluatorRef.of("builtin")), Entrant(yoto, EvaluatorRef.of("rf"))
    other = Entrant(mrmr, EvaluatorRef.of("rf"))
    assert summary.label(own, [own, other]) == "YOTO"
    assert summary.label(other, [own, other]) == "mRMR-f"
    assert summary.label(forest, [own, forest, other]) == "YOTO, RF"
    neighbours = Entrant(mrmr, EvaluatorRef.of("knn", {"n_neighbors": 3}))
    labels = [summary.label(entrant, [other, neighbours]) for entrant in (other, neighbours)]
    assert labels == ["mRMR-f, RF", "mRMR-f, kNN[n_neighbors=3]"]


@pytest.mark.parametrize(
    "table",
    [
        {"metrics": ["f1_makro"]},
        {"datasets": ["vips"]},
        {"tasks": ["cell_types_52"]},
        {"ks": [17]},
        {"evaluators": ["rff"]},
    ],
)
def test_a_table_that_names_what_is_not_there_is_an_error(table: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match="table odd"):
        grid_of(fake_results({"tables": [{"name": "odd"} | table]}))


def test_two_tables_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same"):
        build(fake_results({"tables": [{"name": "same"}, {"name": "same"}]}), tmp_path)


def test_csv_carries_all_metrics_with_their_number_of_seeds() -> None:
    results = fake_results(change=no_score("failed", "no", variant="yoto", seed=2))
    text = to_csv(grid_of(results).records, RECORD_COLUMNS)
    lines = list(csv.DictReader(io.StringIO(text)))
    chosen = [
        x for x in lines if (x["method"], x["task"], x["k"]) == ("yoto", "cell_types_25", "64")
    ]
    by_metric = {x["metric"]: x for x in chosen}
    assert {"accuracy", "balanced_accuracy", "f1_macro", "auroc"} <= set(by_metric)
    assert (by_metric["accuracy"]["n"], by_metric["accuracy"]["planned"]) == ("2", "3")
    assert float(by_metric["accuracy"]["mean"]) == pytest.approx(0.85 - 0.5 / 64 - 0.005)
    assert by_metric["accuracy"]["problems"] == "failed: no"
    assert [x["k"] for x in lines if x["method"] == "all-genes" and x["metric"] == "auroc"] == [
        "0", "0",
    ]  # fmt: skip


ANOTHER_DAY = """
import importlib.util, pathlib, random, sys, time
from dataclasses import replace

time.time = lambda: 86400.0
spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)
results = fakes.fake_results()
shuffled = replace(
    results,
    scores=random.Random(1).sample(results.scores, len(results.scores)),
    selections=random.Random(2).sample(results.selections, len(results.selections)),
)
fakes.build(shuffled, pathlib.Path(sys.argv[2]), fakes.REFERENCE)
"""


def test_the_report_does_not_depend_on_order_day_process_or_matplotlibrc(
    tmp_path: Path, report: Path
) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.fonttype: none\n")
    environment = os.environ | {
        "PYTHONHASHSEED": "5", "SOURCE_DATE_EPOCH": "86400", "MATPLOTLIBRC": str(tmp_path),
        "TZ": "Pacific/Apia",
    }  # fmt: skip
    out = tmp_path / "out"
    command = [sys.executable, "-c", ANOTHER_DAY, __file__, str(out)]
    subprocess.run(command, check=True, env=environment, timeout=120)
    names = {path.relative_to(report) for path in report.rglob("*") if path.is_file()}
    assert names == {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert {path.suffix for path in names} == {
        ".md",
        ".tex",
        ".csv",
        ".svg",
        ".png",
        ".bib",
        ".html",
        ".json",
    }
    for name in names:
        assert (report / name).read_bytes() == (out / name).read_bytes(), name


def test_costs_stay_out_of_the_metric_tables(tmp_path: Path, report: Path) -> None:
    results = fake_results()
    slower = replace(
        results,
        scores=[
            replace(line, seconds=99.0, cpu_seconds=99.0, peak_memory_mb=1.0)
            for line in results.scores
        ],
        selections=[
            replace(line, seconds=77.0, started="2030-01-01T00:00:00Z", host="elsewhere")
            for line in results.selections
        ],
    )
    files = build(slower, tmp_path, REFERENCE)
    same = [f for f in files if f.name != "report.html" and f.stem != "cost"]
    assert len(same) > 10
    for path in same:
        other = report / path.relative_to(tmp_path)
        assert path.read_bytes() == other.read_bytes(), path.name
    assert "77.0" in (tmp_path / "cost.md").read_text()


def test_the_page_is_self_contained_and_escapes_what_it_shows(tmp_path: Path) -> None:
    reason = "<script>alert('x')</script>"
    results = fake_results(change=no_score("failed", reason, variant="seurat"))
    build(results, tmp_path, REFERENCE)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script") == 1 and "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "NK &lt;50% &amp; more&gt;" in page
    # Nothing is fetched: sources are data URLs, links stay on the page.
    still = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", still)
    assert addresses
    inside = ("data:image/svg+xml;base64,", "data:text/csv;charset=utf-8;base64,", "#")
    assert all(address.startswith(inside) for address in addresses)
    for word in ("Tasic 2018", "scikit-learn", "node1", "abababababab", "Training", "Overlap"):
        assert word in page


def test_every_run_without_a_result_is_listed(tmp_path: Path) -> None:
    results = fake_results(change=no_score("failed", "no\nmore", variant="mrmr-f", k=16))
    build(results, tmp_path)
    lines = list(csv.DictReader((tmp_path / "failures.csv").open()))
    assert len(lines) == 6
    assert {line["seed"] for line in lines} == {"0", "1", "2"}
    assert {line["reason"] for line in lines} == {"no\nmore"}
    text = (tmp_path / "failures.md").read_text()
    assert text.count("mRMR-f") == 1
    assert "0, 1, 2" in text


def test_markdown_marks_and_escapes() -> None:
    results = fake_results(rows=(replace(ROWS[0], label="A|B*"), *ROWS[1:]))
    text = markdown(grid_of(results))
    assert "A\\|B\\*" in text
    assert re.search(r"\*\*8\d\.\d ± 1\.0\*\*", text)
    assert re.search(r"<ins>\d\d\.\d ± 1\.0</ins>", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_latex_escapes_everything_pdflatex_cannot_take() -> None:
    texts = ["a_b & 5% #1 ~ ^ {x} $y$ \\z", "81.1 ± 2.0", "β-cell, café, 日", ""]
    escaped = escape(texts)
    assert escaped[0] == (
        r"a\_b \& 5\% \#1 \textasciitilde \space \textasciicircum \space \{x\} \$y\$ "
        r"\textbackslash z"
    )
    assert escaped[1] == r"81.1 $\pm$ 2.0"
    assert escaped[2] == r"\ensuremath{\beta}-cell, café, ?"
    assert escaped[3] == ""


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_and_no_table_is_wider_than_the_text(tmp_path: Path) -> None:
    odd = replace(ROWS[0], label="[50%] A_b & β ± ~x^2 {y} \\z #1 $3")
    long = [
        replace(odd, variant=f"mrmr-f[a={i}]", label=f"A method & more_of {i}") for i in range(60)
    ]
    change = no_score("failed", "KeyError: 'a_b' ≥ 3 % of γ", variant="yoto", seed=1)
    spec = {"tables": [
        {"name": "fits", "ks": [64], "tasks": ["cell_types_25"]},
        {"name": "shrunk", "tasks": ["cell_types_25"], "n_models": True},
        {"name": "turned", "n_models": True},
        {"name": "broken", "metrics": ["f1_macro", "accuracy", "auroc"]},
    ]}  # fmt: skip
    build(fake_results(spec, change, rows=(odd, *ROWS[1:])), tmp_path)
    names = [f"tables/{table['name']}.tex" for table in spec["tables"]]
    names += ["methods.tex", "ranks.tex"]
    rows = tuple(replace(row, method="mrmr-f") for row in long)
    (tmp_path / "long.tex").write_text(latex(grid_of(fake_results(rows=rows))), encoding="utf-8")
    text = compile_latex(tmp_path, [*names, "long.tex"])
    assert not re.findall(r"Overfull .hbox.*|Float too large.*|Missing character.*", text)
    texts = [(tmp_path / name).read_text() for name in names[:4]]
    assert ["resizebox" in text for text in texts] == [False, True, True, True]
    assert ["sidewaystable" in text for text in texts] == [False, False, True, False]
    assert [text.count("(continued)") for text in texts] == [0, 0, 0, 5]
    assert [text.splitlines()[0].partition("{")[2] for text in texts] == [
        "booktabs}", "booktabs,graphicx}", "booktabs,graphicx,rotating}", "booktabs,graphicx}",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_no_table_of_the_demo_is_wider_than_the_text(tmp_path: Path) -> None:
    suite = load_suite("demo")
    nothing = make_plan(suite, load_catalogues(), discover(), lambda _: "")
    shown = [replace(row, method="mrmr-f") for row in nothing.rows]
    spec = {"tables": [table.model_dump() for table in suite.tables], "ks": suite.ks}
    spec |= {"datasets": [entry.model_dump() for entry in suite.datasets]}
    files = build(fake_results(spec, rows=tuple(shown)), tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in files if path.suffix == ".tex"]
    assert {"tables/f1.tex", "tables/metrics.tex", "methods.tex", "ranks.tex"} == {*names}
    text = compile_latex(tmp_path, names)
    assert not re.findall(r"Overfull .hbox.*|Float too large.*", text)


def test_latex_has_booktabs_rules_and_spanning_headers() -> None:
    text = latex(grid_of(fake_results()))
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert r"\multicolumn{3}{c}{cell\_types\_25}" in text
    assert r"\cmidrule(lr){2-4}" in text
    assert re.search(r"\\textbf\{8\d\.\d \$\\pm\$ 1\.0\}", text)


def test_the_terminal_table_holds_the_first_table() -> None:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=160).print(terminal_table(fake_results()))
    text = stream.getvalue()
    assert "YOTO" in text
    assert "74.2 ± 1.0" in text


def test_properties_are_the_papers_table_1(report: Path) -> None:
    lines = {x["Method"]: x for x in csv.DictReader((report / "methods.csv").open())}
    assert lines["YOTO"]["Task type"] == "multi-task"
    assert lines["YOTO"]["End-to-end"] == "yes"
    assert lines["PERSIST"]["Sparse selection"] == "no"
    assert lines["Seurat"]["Supervised"] == "no"
    assert lines["Seurat"]["Task type"] == "–"


def test_panels_of_a_nested_ranking_are_cut_at_every_k_and_controls_have_none() -> None:
    found = panels(fake_results())
    assert {g.k for g in found if g.row.variant == "mrmr-f"} == {16, 32, 64}
    assert {g.row.variant for g in found} == {"seurat", "mrmr-f", "persist", "yoto"}
    assert all(len(panel) == g.k for g, seeds in found.items() for panel in seeds.values())


def test_stability_of_random_panels_is_near_zero(report: Path) -> None:
    lines = list(csv.DictReader((report / "stability.csv").open()))
    values = [float(line["stability"]) for line in lines if line["k"] == "64"]
    assert abs(np.mean(values)) < 0.1
    overlap = list(csv.DictReader((report / "overlap-visp.csv").open()))
    # 64 of 200 genes at random: 20 in common of 108.
    assert float(overlap[0]["YOTO"]) == pytest.approx(20.5 / 107.5, abs=0.06)
    assert overlap[0]["Seurat"] == "1.00"


def test_published_numbers_stand_beside_ours_when_the_protocol_is_the_same() -> None:
    published = read(REFERENCE)
    lines = beside(Summary(fake_results()), published)
    f1 = {(x["method"], x["k"], x["task"]): x for x in lines if x["metric"] == "f1_macro"}
    line = f1["mrmr-f", 64, "cell_types_25"]
    # The paper prints the same cell three times.
    assert (line["published_mean"], line["table"]) == (0.811, "3, 5, 7")
    assert line["difference"] == pytest.approx(0.75 - 0.5 / 64 - 0.811)
    # The paper's accuracy stands beside both of ours.
    both = {x["metric"] for x in lines if x["published_metric"] == "accuracy"}
    assert both == {"accuracy", "balanced_accuracy"}
    split = {"test": 0.2, "validation": 0.1, "stratify": False}
    other = {"datasets": [{"dataset": "visp", "tasks": ["cell_types_25"], "split": split}]}
    assert beside(Summary(fake_results(other)), published) == []
    noisy = {"noise": {"fractions": 0.2}}
    assert beside(Summary(fake_results(noisy)), published) == []


def test_reference_files_are_tidy() -> None:
    published = read(REFERENCE)
    assert len(published) > 500
    distances = {"l1", "l2", "l2_cell"}
    assert all(0 <= item.mean <= 1 for item in published if item.metric not in distances)
    assert all(item.mean > 0 for item in published if item.metric in distances)
    assert {item.protocol for item in published} == {"yoto", "markermap", "markermap-generative"}
    # A class is a class of one table: Table 4 has nine, and all cells, of two methods.
    by_class = [item for item in published if item.cell_class]
    assert {item.table for item in by_class} == {"4"}
    assert len({item.cell_class for item in by_class}) == 9 and len(by_class) == 9 * 2 * 3


def test_reference_files_agree_with_the_papers_tables() -> None:
    lines = list(csv.DictReader(real_data("reference/yoto_tables.csv").open()))
    ours = [item for item in read(REFERENCE) if item.protocol == "yoto" and item.table != "4"]
    assert len(ours) == len(lines)
    for item, line in zip(ours, lines, strict=True):
        assert item.method == line["method"].replace("_", "-")
        assert (item.place.dataset, item.place.task) == (line["dataset"], line["task"])
        assert 100 * item.mean == pytest.approx(float(line["mean_percent"]))
        assert 100 * item.sd == pytest.approx(float(line["std_percent"]))


MARKERMAP = {
    "MarkerMap unsup": "markermap-unsup[preset=paper]", "MarkerMap sup": "markermap",
    "MarkerMap joint": "markermap-joint[preset=paper]", "Random Markers": "random",
    "PERSIST unsup": "persist-unsup", "SMaSH": "smash", "PERSIST sup": "persist",
    "Scanpy HVGs": "seurat", "RankCorr": "rankcorr[mode=parity]", "LassoNet": "lassonet",
    "COSG": "cosg", "Wilcoxon": "wilcoxon", "scVI": "scvi", "CITE-seq": "citeseq",
    "Mouse Brain": "mouse-brain", "Paul": "paul15", "Zeisel": "zeisel",
    "Mouse Brain (subtypes)": "mouse-brain-subtypes", "Zeisel (subtypes)": "zeisel-subtypes",
    "SSv4": "ssv4", "accuracy": "accuracy", "weighted_f1": "f1_weighted", "l2": "l2", "l1": "l1",
}  # fmt: skip


@pytest.mark.parametrize(("table", "evaluator"), [("1", "knn"), ("2", "reconstruct"), ("3", "rf")])
def test_reference_files_agree_with_markermaps_tables(table: str, evaluator: str) -> None:
    lines = list(csv.DictReader(real_data(f"reference/markermap_table{table}.csv").open()))
    ours = {
        (item.place.dataset, item.method, item.metric): item.mean
        for item in read(REFERENCE)
        if (item.protocol, item.table) == ("markermap", table)
        and (item.evaluator, item.place.k) == (evaluator, 50)
    }
    assert len(ours) == 2 * len(lines)
    known = [line for line in lines if line["method"] in MARKERMAP]
    assert len(known) >= 28
    for line in known:
        for name in (*line,)[2:]:
            key = (MARKERMAP[line["dataset"]], MARKERMAP[line["method"]], MARKERMAP[name])
            assert ours[key] == float(line[name])


def test_a_number_of_a_variant_stands_beside_that_variant_only() -> None:
    rows = tuple(
        Row(variant, variant, "rankcorr", DECLARED)
        for variant in ("rankcorr", "rankcorr[mode=parity]", "rankcorr[lamda=4.7]")
    )
    split = {"test": 0.2, "validation": 0.1, "stratify": False}
    suite = {
        "datasets": [{"dataset": "citeseq", "tasks": ["cell_type"], "split": split}],
        "ks": [50],
    }
    lines = beside(Summary(fake_results(suite, rows=rows)), read(REFERENCE))
    assert {line["method"] for line in lines} == {"rankcorr[mode=parity]"}
    assert {line["metric"] for line in lines} == {"accuracy", "f1_weighted"}


def test_a_reference_file_that_cannot_be_read_names_its_line(tmp_path: Path) -> None:
    from panelbench.errors import DataError

    good = "a,yoto,1,d,m,rf,t,64,f1_macro,0.5,"
    (tmp_path / "x.csv").write_text(",".join(COLUMNS) + f"\n{good}\n{good.replace('0.5', 'n/a')}\n")
    with pytest.raises(DataError, match=r"x\.csv, line 3"):
        read(tmp_path)
    assert read(tmp_path / "absent") == []


def test_the_report_of_a_suite_that_has_not_run_says_so(tmp_path: Path) -> None:
    results = fake_results(change=no_score("missing", ""))
    empty = replace(results, selections=[], datasets={})
    build(empty, tmp_path)
    assert "Not run yet" in (tmp_path / "tables/f1-macro.md").read_text()


def test_a_single_k_gives_a_figure_too(tmp_path: Path) -> None:
    build(fake_results({"ks": [64]}), tmp_path)
    assert (tmp_path / "figures/f1-macro-by-k.png").read_bytes().startswith(b"\x89PNG")


# -- numbers that would mislead ------------------------------------------------------------


def test_two_seeds_have_no_interval(tmp_path: Path) -> None:
    for seeds, wanted in (([0, 1], {""}), ([0, 1, 2], None)):
        build(fake_results({"seeds": seeds}), tmp_path)
        lines = list(csv.DictReader((tmp_path / "stability.csv").open()))
        assert {line["stability"] for line in lines}.isdisjoint({""})
        low = {line["stability_low"] for line in lines}
        assert low == wanted if wanted else "" not in low


def test_what_keeps_all_genes_selects_none(report: Path) -> None:
    lines = {x["Method"]: x for x in csv.DictReader((report / "methods.csv").open())}
    assert lines["All genes"]["Sparse selection"] == "–"


def test_methods_are_ranked_within_an_evaluator() -> None:
    results = fake_results({"evaluators": ["rf", "knn", "builtin"]})
    worse = [
        replace(
            line,
            evaluator=EvaluatorRef.of("knn"),
            metrics={name: 0.5 - value / 10 for name, value in line.metrics.items()},
        )
        for line in results.scores
        if not line.evaluator.own
    ]
    both = Summary(replace(results, scores=[*results.scores, *worse]))
    found = rankings(both, METRICS["f1_macro"])
    assert [(r.evaluator.id, list(r.compared.mean_rank.index)) for r in found] == [
        ("rf", ["mRMR-f", "Seurat"]),
        ("knn", ["Seurat", "mRMR-f"]),
        ("builtin", ["YOTO", "PERSIST"]),
    ]
    rows = [[cell.text for cell in row] for row in ranks_grid(found, METRICS["f1_macro"]).rows]
    assert [row[:3] for row in rows] == [
        ["RF", "mRMR-f", "1.00"], ["", "Seurat", "2.00"], ["kNN", "Seurat", "1.00"],
        ["", "mRMR-f", "2.00"], ["own predictor", "YOTO", "1.00"], ["", "PERSIST", "2.00"],
    ]  # fmt: skip
    alone = ranks_grid(found[:1], METRICS["f1_macro"])
    assert [column[0] for column in alone.header][:2] == ["Method", "Mean rank"]
    assert "scored by RF" in alone.caption


@pytest.mark.parametrize(
    ("columns", "rows", "shrunk", "turned", "parts"),
    [(4, 9, False, False, 1), (7, 9, True, False, 1), (9, 9, True, True, 1),
     (9, 30, True, False, 2), (30, 9, True, False, 5), (4, 60, False, False, 2)],
)  # fmt: skip
def test_latex_fits_tables_to_the_page(
    columns: int, rows: int, shrunk: bool, turned: bool, parts: int
) -> None:
    names = ["Method", *(f"c{i}" for i in range(columns))]
    body = [[f"m{i}", *["81.1 ± 2.0"] * columns] for i in range(rows)]
    text = latex(Grid.plain("t", "T", names, body))
    assert (r"\resizebox{\ifdim\width>\linewidth" in text) == shrunk
    assert (r"\begin{sidewaystable}" in text) == turned
    assert text.count(r"\caption") == text.count(r"\toprule") == parts
    assert text.count("Method &") == parts, "the names of the rows are in every part"
    assert text.count("81.1") == columns * rows
    assert all(text.count(rf"& {name} ") <= 2 for name in names[1:])


def test_groups_of_columns_stay_together() -> None:
    header = (("", "Method"), *((f"group {i // 4}", f"c{i % 4}") for i in range(16)))
    cells = tuple(Cell("81.1 ± 2.0") for _ in range(16))
    text = latex(Grid("t", "T", header, ((Cell("m"), *cells),) * 20))
    assert text.count(r"\multicolumn{4}{c}") == 4


def test_only_long_tables_scroll_up_and_down(tmp_path: Path) -> None:
    many = tuple(Row(f"mrmr-f[a={i}]", f"V{i}", "mrmr-f", DECLARED) for i in range(41))
    for rows, n in ((ROWS, 0), (many[:40], 0), (many, 1)):
        build(fake_results({"ks": [16], "seeds": [0]}, rows=rows), tmp_path)
        page = (tmp_path / "report.html").read_text()
        table = page[page.index('id="table-f1-macro"') :]
        assert table[: table.index("<table ")].count("scroll tall") == n
