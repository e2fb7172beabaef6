"""Papers: their tables from their suites, what a run of one is said to take, a small rehearsal."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panelbench.data.catalogue import load_catalogues
from panelbench.errors import ConfigError, UnknownName
from panelbench.records.status import Status
from panelbench.records.store import Store
from panelbench.registry import discover
from panelbench.report import build
from panelbench.report.bar_figures import holding, label_distribution, metric_bars
from panelbench.report.build import table_grid
from panelbench.report.collect import collect
from panelbench.report.figures import Looks, save, style
from panelbench.report.page_figures import draw_training, training_curve
from panelbench.report.paper import Reported, build_paper
from panelbench.report.published import beside, read
from panelbench.report.summary import Summary
from panelbench.report.tables import specs
from panelbench.running.estimate import files_needed, in_time, work
from panelbench.running.states import State
from panelbench.suite.papers import PaperSpec, load_paper, paper_names, suite_of
from panelbench.suite.plan import make_plan
from panelbench.suite.request import load_suite
from panelbench.suite.runs import Plan
from panelbench.suite.specs import FigureSpec
from tests import rehearsal
from tests.reports import REFERENCE, fake_results
from tests.tools import Bench, real_data

# -- the papers that ship ------------------------------------------------------------------


def planned(name: str) -> Plan:
    return make_plan(load_suite(name), load_catalogues(), discover(), lambda _: "nothing is here")


@pytest.fixture(scope="module")
def summary_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Summary]:
    """What a suite that ships has to show before anything has run."""
    empty = Store(tmp_path_factory.mktemp("none"))
    return lambda name: Summary(collect(planned(name), empty))


@pytest.mark.parametrize("name", paper_names())
def test_a_paper_names_tables_and_figures_of_suites_that_ship(name: str) -> None:
    paper = load_paper(name)
    suites = {suite: load_suite(suite) for suite in paper.suites}
    for item in paper.items:
        suite = suites[item.suite]
        known = {x.name for x in (suite.tables if item.table else suite.figures)}
        assert (item.table or item.figure) in known, item.label
    for suite, minutes in paper.minutes.items():
        assert {entry.method for entry in suites[suite].methods} <= minutes.keys()
        used = {entry.evaluator for entry in suites[suite].evaluators}
        assert used <= paper.scoring.keys()


def test_every_table_of_the_yoto_paper_is_there() -> None:
    labels = [item.label for item in load_paper("yoto").items]
    assert labels[:8] == [f"Table {n}" for n in range(1, 9)]
    assert {label[:8] for label in labels[8:]} == {"Figure 2", "Figure 3", "Figure 4"}


MODELS = {
    "Seurat": "4", "Seurat v3": "4", "mRMR-f": "6", "mRMR-rf": "6", "Block HSIC Lasso": "6",
    "PERSIST": "3", "PERSIST (hard)": "3", "YOTO": "1", "YOTO (default)": "1",
}  # fmt: skip


@pytest.mark.parametrize(("suite", "table"), [("yoto-covid", "2"), ("yoto-visp", "3")])
def test_models_are_counted_from_the_plan(
    summary_of: Callable[[str], Summary], suite: str, table: str
) -> None:
    summary = summary_of(suite)
    (spec,) = [spec for spec in specs(summary) if spec.published == table]
    rows = table_grid(summary, spec, ()).rows
    assert {row[0].text.removesuffix("†"): row[-1].text for row in rows} == MODELS


@pytest.mark.parametrize(("suite", "table"), [("yoto-covid", "2"), ("yoto-visp", "3")])
def test_numbers_of_models_are_the_papers(suite: str, table: str) -> None:
    methods = discover()
    lines = csv.DictReader(real_data("reference/yoto_tables.csv").open())
    found = {line["method"]: line["n_models"] for line in lines if line["table"] == table}
    assert len(found) == 7
    for method, number in found.items():
        assert MODELS[methods.get(method.replace("_", "-")).label] == number


def test_table_1_is_the_papers(summary_of: Callable[[str], Summary]) -> None:
    summary = summary_of("yoto-visp")
    (spec,) = [spec for spec in specs(summary) if spec.kind == "properties"]
    grid = table_grid(summary, spec, ())
    assert [column[0] for column in grid.header] == [
        "Method", "Supervised", "Task type", "Built-in predictor", "Sparse selection", "End-to-end",
    ]  # fmt: skip
    ours = {row[0].text: [cell.text.replace("–", "-") for cell in row[1:]] for row in grid.rows}
    labels = {method.id: method.label for method in discover().methods.values()}
    lines = list(csv.DictReader(real_data("reference/yoto_table1_properties.csv").open()))
    assert len(lines) == len(ours) == 7
    for line in lines:
        method, *properties = line.values()
        assert ours[labels[method.replace("_", "-")]] == properties


def test_the_grid_is_the_papers() -> None:
    plan = planned("yoto-visp")
    assert (plan.suite.ks, plan.suite.seeds) == ((16, 32, 64, 128, 256), (0, 1, 2))
    assert planned("yoto-covid").suite.ks == (16, 32, 64)
    epochs = {run.question.params["epochs"] for run in plan.selections if run.method == "yoto"}
    assert epochs == {1000}
    # What the ablation shares with the benchmark is done once.
    both = {run.key for run in plan.selections} & {
        run.key for run in planned("yoto-ablation").selections
    }
    assert len(both) == 15


def test_numbers_of_the_ablation_agree_with_the_paper() -> None:
    lines = list(csv.DictReader(real_data("reference/yoto_table4_ablation.csv").open()))
    names = {"persist": "persist", "yoto_single_task_persist_architecture": "yoto-persist-arch"}
    ours = [item for item in read(REFERENCE) if (item.protocol, item.table) == ("yoto", "4")]
    assert len(ours) == len(lines)
    for item, line in zip(ours, lines, strict=True):
        assert (item.method, item.place.k) == (names[line["method"]], int(line["k"]))
        assert 100 * item.mean == pytest.approx(float(line["mean_percent"]))
    suite = load_suite("yoto-ablation")
    assert {entry.method for entry in suite.methods} == {*names.values()}


# -- what stands beside ours ---------------------------------------------------------------

BESIDE = {
    "datasets": [{"dataset": "visp", "tasks": ["cell_types_25", "cell_types_50"]}],
    "tables": [
        {"name": "multi", "metrics": ["f1_macro"], "ks": [64], "published": "3"},
        {"name": "alone", "metrics": ["f1_macro", "balanced_accuracy"], "ks": [64],
         "tasks": ["cell_types_25"], "published": "7"},
    ],
}  # fmt: skip


def test_cells_and_records_have_the_number_of_the_table_that_is_named(tmp_path: Path) -> None:
    results = fake_results(BESIDE)
    summary = Summary(results)
    numbers = beside(summary, read(REFERENCE))
    cells = {}
    for spec in specs(summary):
        rows = {row[0].text: row for row in table_grid(summary, spec, numbers).rows}
        cells[spec.name] = rows["YOTO"]
    # Two tables of the paper print different numbers for the same cell.
    assert cells["multi"][1].beside == "90.6 ± 0.9 (−6.4)"
    assert cells["alone"][1].beside == "90.1 ± 0.3 (−5.9)"
    assert cells["alone"][2].beside == "88.7 ± 0.2 (−4.5)"
    build(results, tmp_path, REFERENCE)
    lines = list(csv.DictReader((tmp_path / "tables" / "alone.csv").open()))
    (line,) = [x for x in lines if (x["method"], x["metric"], x["k"]) == ("yoto", "f1_macro", "64")]
    assert line["published_table"] == "YOTO, table 5, 7"
    assert float(line["published_mean"]) == pytest.approx(0.901)
    assert float(line["difference"]) == pytest.approx(float(line["mean"]) - 0.901, abs=2e-6)
    page = (tmp_path / "report.html").read_text()
    assert "<small>90.1 ± 0.3 (−5.9)</small>" in page
    assert "90.1 ± 0.3 (" not in (tmp_path / "tables" / "alone.md").read_text()


def test_the_own_predictor_alone_where_there_is_one() -> None:
    results = fake_results()
    scores = [
        replace(line, evaluator=replace(line.evaluator, variant="rf", id="rf", reads="panel"))
        for line in results.scores
    ]
    both = replace(results, scores=[*results.scores, *scores])
    for own_only, labels in ((False, {"YOTO", "YOTO, own predictor"}), (True, {"YOTO"})):
        tables = [{"name": "t", "own_only": own_only}]
        suite = both.suite.model_copy(
            update={"tables": tuple(type(specs(Summary(both))[0])(**t) for t in tables)}
        )
        summary = Summary(replace(both, suite=suite))
        found = [row[0].text for row in table_grid(summary, specs(summary)[0], ()).rows]
        assert len([label for label in found if label.startswith("YOTO")]) == len(labels)
        assert sum(label.startswith("mRMR-f") for label in found) == 1


# -- figures -------------------------------------------------------------------------------


def test_bars_are_means_of_each_metric_at_one_size() -> None:
    summary = Summary(fake_results())
    spec = FigureSpec(
        name="f", kind="metric-bars", metrics=("f1_macro", "auroc"), tasks=("cell_types_25",)
    )
    content = metric_bars(summary, spec, Looks(summary))
    assert content is not None
    ((title, (first, second)),) = content.lines
    assert title == "visp, cell_types_25, k = 64"
    assert (first.axis, second.axis) == ("Macro F1, %", "AUROC, %")
    yoto = content.labels.index("YOTO")
    assert first.means[yoto] == pytest.approx(100 * (0.85 - 0.5 / 64))
    assert first.sds[yoto] == pytest.approx(1.0)
    sizes = metric_bars(summary, spec.model_copy(update={"ks": (16,)}), Looks(summary))
    assert sizes is not None and sizes.lines[0][0].endswith("k = 16")
    with pytest.raises(UnknownName):
        metric_bars(summary, spec.model_copy(update={"tasks": ("none",)}), Looks(summary))


@pytest.mark.parametrize(
    ("counts", "n"), [([90, 10], 1), ([89, 11], 2), ([5], 1), ([4, 3, 2, 1], 3), ([1] * 10, 9)]
)
def test_classes_that_hold_ninety_percent(counts: list[int], n: int) -> None:
    assert holding(counts) == n


def test_label_distributions_are_sorted() -> None:
    results = fake_results()
    facts = {"visp": {"tasks": {"cell_types_25": {"a": 3, "b": 60, "c": 37}}}}
    summary = Summary(replace(results, datasets=facts))
    spec = FigureSpec(name="f", kind="label-distribution")
    content = label_distribution(summary, spec, Looks(summary))
    assert content is not None
    (panel,) = content.panels
    assert (panel.counts, panel.holding) == ((60, 37, 3), 2)
    assert label_distribution(Summary(replace(results, datasets={})), spec, Looks(summary)) is None


def test_a_training_curve_has_a_line_per_run() -> None:
    summary = Summary(fake_results())
    spec = FigureSpec(name="f", kind="training", curve="loss")
    content = training_curve(summary, spec, Looks(summary))
    assert content is not None
    ((dataset, lines),) = content.panels
    assert (dataset, content.axis) == ("visp", "loss")
    assert lines == 9 * (("YOTO", (1.0, 0.5, 0.2)),), "three seeds at three sizes"
    selections = summary.results.selections
    more = [replace(line, tasks=("another",)) for line in selections if line.seed == 0]
    several = Summary(replace(summary.results, selections=[*selections, *more]))
    panels = training_curve(several, spec, Looks(several)).panels  # type: ignore[union-attr]
    assert {title.split("\n")[1]: len(lines) for title, lines in panels}["another"] == 3
    assert len(panels) == 2
    others = spec.model_copy(update={"methods": ("seurat",)})
    assert training_curve(summary, others, Looks(summary)) is None
    with style():
        assert save(draw_training(content))["png"]


# -- the report of a paper -----------------------------------------------------------------

PAPER = PaperSpec.model_validate(
    {
        "name": "two",
        "title": "Two & more_of <it>",
        "suites": ["trial", "absent"],
        "items": [
            {"label": "Table 1 & <b>", "suite": "trial", "table": "multi"},
            {"label": "Figure 2", "suite": "trial", "figure": "f1-macro-by-k"},
            {"label": "Table 9", "suite": "absent", "table": "t"},
        ],
    }
)


def test_a_paper_gathers_what_its_suites_have(tmp_path: Path) -> None:
    results = fake_results(BESIDE)
    build(results, tmp_path / "trial", REFERENCE)
    suites = [
        Reported("trial", results, tmp_path / "trial"),
        Reported("absent", problem="no <net>"),
    ]
    out = tmp_path / "paper"
    files = build_paper(PAPER, suites, out, REFERENCE)
    assert {path.name for path in files} == {
        "table-1-b.md", "table-1-b.tex", "table-1-b.csv", "figure-2.svg", "figure-2.png",
        "tables.md", "tables.tex", "published.csv", "report.html",
    }  # fmt: skip
    assert (out / "figure-2.svg").read_bytes() == (
        tmp_path / "trial" / "figures" / "f1-macro-by-k.svg"
    ).read_bytes()
    assert "Missing: no <net>" in (out / "tables.md").read_text()
    page = (out / "report.html").read_text()
    assert "Missing: no &lt;net&gt;" in page and "Two &amp; more_of &lt;it&gt;" in page
    assert 'href="../trial/report.html"' in page and "http" not in page.replace("http-equiv", "")
    everything = build_paper(PAPER.model_copy(update={"items": ()}), suites, out, REFERENCE)
    names = {path.name for path in everything}
    assert {"table-trial-multi.md", "figure-trial-f1-macro-by-k.svg"} & names == set()
    assert {"trial-multi.md", "trial-alone.tex", "trial-f1-macro-by-k.svg"} <= names
    assert not (out / "table-1-b.md").exists(), "files of an earlier report are removed"


def test_a_paper_that_names_what_a_suite_does_not_have(tmp_path: Path) -> None:
    results = fake_results(BESIDE)
    build(results, tmp_path / "trial")
    wrong = {"label": "T", "suite": "trial", "table": "mult"}
    paper = PaperSpec.model_validate({"name": "p", "suites": ["trial"], "items": [wrong]})
    with pytest.raises(UnknownName, match="multi"):
        build_paper(paper, [Reported("trial", results, tmp_path / "trial")], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": [{"label": "T", "suite": "none", "table": "t"}]}, "none of the paper's"),
        ({"items": [{"label": "T", "suite": "trial"}]}, "either 'table' or 'figure'"),
        ({"items": 2 * [{"label": "T", "suite": "trial", "table": "t"}]}, "two items"),
        ({"suites": []}, "at least 1"),
    ],
)
def test_papers_are_checked(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({"name": "p", "suites": ["trial"], **change}))
    with pytest.raises(ConfigError, match=message):
        load_paper(str(path))


def test_suites_of_a_file_lie_beside_it() -> None:
    assert suite_of("folder/paper.yaml", "mine.yaml") == str(Path("folder/mine.yaml"))
    assert suite_of("folder/paper.yaml", "demo") == "demo"
    with pytest.raises(UnknownName, match="yoto"):
        load_paper("yotto")


# -- what it will take ---------------------------------------------------------------------


def test_work_is_what_is_due_by_hints_and_by_what_has_run() -> None:
    plan = planned("yoto-ablation")
    runs = [*plan.selections, *plan.evaluations]
    hints = {"persist": 10.0, "yoto-persist-arch": 4.0}
    fresh = work([(run, State(Status.TO_DO, due=True)) for run in runs], hints, {"builtin": 1.0})
    assert (fresh.selections, fresh.evaluations, fresh.planned) == (30, 45, 75)
    assert fresh.minutes == 15 * 10 + 15 * 4 + 45 and fresh.gpu_minutes == 15 * 10 + 15 * 4
    assert fresh.hours(2) == pytest.approx(255 / 120)
    assert fresh.hours(1, gpu=10) == pytest.approx((45 + 21) / 60)
    unknown = work([(run, State(Status.NO_DATA, due=False)) for run in runs], {}, {"builtin": 1.0})
    assert unknown.unknown == hints.keys() and unknown.minutes == 45
    assert work([(run, State(Status.SKIPPED, due=False)) for run in runs], hints, {}).planned == 75


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "less than a minute"), (0.5, "30 min"), (2.25, "2.2 h"), (30, "30 h"), (96, "4 days")],
)
def test_hours_in_words(hours: float, text: str) -> None:
    assert in_time(hours) == text


def test_files_that_are_needed_are_named_once(tmp_path: Path) -> None:
    catalogue = load_catalogues()
    (tmp_path / "VISp_markers.toml").write_text("x")
    specs = [catalogue[name] for name in ("visp", "ssv4", "pbmc3k", "pbmc68k-reduced")]
    found = {file.name: file for file in files_needed(specs, tmp_path / "none", [tmp_path])}
    archive = found["mouse_VISp_gene_expression_matrices_2018-06-14.zip"]
    assert (archive.dataset, archive.size, archive.here) == ("visp", "291 MB", False)
    assert archive.source.startswith("https://") and "Allen" in archive.licence
    assert found["VISp_markers.toml"].here and found["10x_pbmc68k_reduced.h5ad"].here
    assert "mirror" in found["pbmc3k.h5ad"].source and not found["pbmc3k.h5ad"].here


def test_a_paper_is_announced_and_takes_whole_suites(bench: Bench) -> None:
    found = bench.call("run", "--paper", "yoto", "--dry-run")
    assert found.code == 0, found.err
    assert (
        "VISp_PERSIST_metadata.csv (terms of use" in found.out and "661 kB, from http" in found.out
    )
    assert (
        "yoto-ablation" in found.out and "30 selections and 45 evaluations of 75 runs" in found.out
    )
    assert "with a GPU" in found.out
    found = bench.call("run", "--paper", "yoto", "--method", "random", "--k", "8")
    assert found.code == 2 and "leave out --method, --k" in found.err


# -- a small rehearsal ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A paper's run on the smallest stand-ins: its report's folder, and what was said."""
    folder = tmp_path_factory.mktemp("rehearsal")
    methods = ["seurat", "yoto-persist-arch"]
    paper = rehearsal.write(folder, scale=100, methods=methods, ks=[8], seeds=[0])
    asked = ["--paper", str(paper), "--results", "results"]
    asked += ["--datasets", str(folder / "datasets.yaml")]
    bench = Bench(folder, folder)
    found = bench.call_here("run", *asked)
    assert found.code == 0, found.err
    return folder / "results" / "reports" / "paper-yoto", found.out


def test_a_rehearsal_makes_every_table_and_figure(rehearsed: tuple[Path, str]) -> None:
    report, said = rehearsed
    labels = [item.name for item in load_paper("yoto").items]
    for name in labels:
        suffixes = ("md", "tex", "csv") if name.startswith("table") else ("svg", "png")
        for suffix in suffixes:
            assert (report / f"{name}.{suffix}").stat().st_size > 50, (name, suffix)
    assert "visp: " not in said, "stand-ins are not downloaded"
    page = (report / "report.html").read_text()
    assert "Missing" not in page and page.count("<h2>") == len(labels) + 1
    tables = (report / "tables.md").read_text()
    assert "–" not in tables.split("## Table 2")[1], "every cell has a number"
    # The stand-ins bear the names of the data sets, so the published numbers are found.
    lines = list(csv.DictReader((report / "published.csv").open()))
    assert not lines, "eight genes are a size that the paper does not have"


def test_stand_ins_have_the_structure_of_the_real_data() -> None:
    entries = rehearsal.stand_ins()
    assert entries["visp"]["reader_options"]["types"] == [25, 50, 98]
    real = load_catalogues()
    for name, entry in entries.items():
        assert {task["name"] for task in entry["tasks"]} == {t.name for t in real[name].tasks}
        assert entry["tasks"][0]["name"] == real[name].tasks[0].name, (
            "what splits are stratified by"
        )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_tables_of_a_paper_are_one_document(rehearsed: tuple[Path, str]) -> None:
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=rehearsed[0], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
