"""The command line: instant help, clear messages, exit codes, the same from Python."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest

from tests.tools import IN_ORDER, Bench

HEAVY = ("anndata", "jinja2", "joblib", "matplotlib", "pandas", "pydantic", "scanpy", "scipy")
HEAVY += ("sklearn", "torch", "yaml")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        f"for name in {HEAVY}: sys.modules[name] = None\n"
        "from panelbench.cli import app\n"
        "app(['--help'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "preprocess" in found.stdout


def test_every_command_and_option_has_help() -> None:
    import typer

    from panelbench.cli import app

    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for option in command.params:
            assert getattr(option, "help", ""), f"{name} {option.name}"


# -- input that does not fit ---------------------------------------------------------------


def _changed(bench: Bench, change: Callable[[anndata.AnnData], anndata.AnnData | None]) -> Path:
    adata = anndata.read_h5ad(bench.data)
    adata = change(adata) or adata
    path = bench.folder / "changed.h5ad"
    adata.write_h5ad(path)
    return path


def _with_nan(adata: anndata.AnnData) -> anndata.AnnData:
    X = adata.X.toarray()
    X[3, 2] = np.nan
    adata.X = X
    return adata


def _negative(adata: anndata.AnnData) -> anndata.AnnData:
    X = adata.X.toarray()
    X[3, 2] = -1
    adata.X = X
    return adata


def _empty_cell(adata: anndata.AnnData) -> anndata.AnnData:
    X = adata.X.toarray()
    X[7] = 0
    adata.X = X
    return adata


def _fraction_counts(adata: anndata.AnnData) -> anndata.AnnData:
    adata.layers["counts"] = adata.X.copy()
    adata.layers["counts"].data[0] = 1.5
    adata.X = np.log1p(adata.X.toarray())
    return adata


def _double_gene(adata: anndata.AnnData) -> None:
    adata.var_names = ["g0", "g0", *adata.var_names[2:]]


def _empty_name(adata: anndata.AnnData) -> None:
    adata.var_names = ["", *adata.var_names[1:]]


def _one_class(adata: anndata.AnnData) -> None:
    adata.obs["cell_type"] = "all the same"


def _single_cell_class(adata: anndata.AnnData) -> None:
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    labels[0] = "rare"
    adata.obs["cell_type"] = labels


def _transposed(adata: anndata.AnnData) -> anndata.AnnData:
    return adata.T.copy()


BAD_DATA = {
    "nan": (_with_nan, ["NaN", "cell3", "g2"]),
    "negative": (_negative, ["negative", "cell3", "g2"]),
    "all-zero cell": (_empty_cell, ["cell7"]),
    "counts not integers": (_fraction_counts, ["counts", "1.5"]),
    "duplicate genes": (_double_gene, ["g0", "make"]),
    "empty gene name": (_empty_name, ["without a name", "column 0"]),
    "one class": (_one_class, ["cell_type", "one class"]),
    "class of one cell": (_single_cell_class, ["rare", "--min-cells-per-class"]),
    "transposed": (_transposed, ["transpose"]),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_ends_with_one_clear_message(bench: Bench, name: str) -> None:
    change, words = BAD_DATA[name]
    path = _changed(bench, change)
    args = ["--data", str(path), "--label", "cell_type", "--method", "random", "--k", "4"]
    _refused(bench.call("select", *args, "--out", "panel.csv"), words, bench)


def _refused(found: object, words: list[str], bench: Bench) -> None:
    assert found.code == 2, found.err  # type: ignore[attr-defined]
    said = found.err  # type: ignore[attr-defined]
    (message,) = [line for line in said.splitlines() if line.startswith("panelbench: ")]
    for word in words:
        assert word.lower() in message.lower(), message
    assert "Traceback" not in said
    assert not (bench.folder / "panel.csv").exists()
    assert bench.records() == []
    assert not list(bench.folder.rglob("*.tmp")) and not list(bench.folder.rglob("*.part"))


def _truncated(bench: Bench) -> list[str]:
    path = bench.folder / "cut.h5ad"
    path.write_bytes(bench.data.read_bytes()[:5000])
    return ["--data", str(path), "--label", "cell_type", "--method", "random"]


def _no_hdf5(bench: Bench) -> list[str]:
    path = bench.folder / "text.h5ad"
    path.write_text("cell,gene\n")
    return ["--data", str(path), "--label", "cell_type", "--method", "random"]


def _own(bench: Bench, *args: str) -> list[str]:
    return ["--data", str(bench.data), "--label", "cell_type", "--method", "random", *args]


def _mirror_with_wrong_file(bench: Bench) -> list[str]:
    (bench.folder / "mirror").mkdir()
    (bench.folder / "mirror" / "pbmc3k.h5ad").write_text("not it")
    return ["--dataset", "pbmc3k", "--method", "random", "--mirror", "mirror"]


def _suite(bench: Bench, **changes: object) -> list[str]:
    suite = {"name": "s", "datasets": ["pbmc68k-reduced"], "methods": ["random"], "ks": [4]}
    (bench.folder / "s.yaml").write_text(json.dumps({**suite, **changes}))
    return ["--suite", "s.yaml"]


BAD_CALLS: dict[str, tuple[Callable[[Bench], list[str]], list[str]]] = {
    "truncated file": (_truncated, ["cut.h5ad"]),
    "not hdf5": (_no_hdf5, ["text.h5ad"]),
    "no such file": (
        lambda b: ["--data", "none.h5ad", "--label", "x", "--method", "random"],
        ["none.h5ad", "no such file"],
    ),
    "checksum": (_mirror_with_wrong_file, ["pbmc3k.h5ad", "checksum mismatch"]),
    "not in the mirror": (
        lambda b: ["--dataset", "pbmc3k", "--method", "random"],
        ["pbmc3k.h5ad", "--mirror"],
    ),
    "missing label column": (
        lambda b: ["--data", str(b.data), "--label", "cel_type", "--method", "random"],
        ["cel_type", "cell_type"],
    ),
    "no label": (lambda b: ["--data", str(b.data), "--method", "random"], ["--label"]),
    "unknown method": (lambda b: _own(b, "--method", "mrmr-q"), ["mrmr-q", "mrmr-f"]),
    "unknown data set": (
        lambda b: ["--dataset", "citesec", "--method", "random"],
        ["citesec", "citeseq"],
    ),
    "unknown suite": (lambda b: ["--suite", "dmo"], ["dmo", "demo"]),
    "unknown task": (lambda b: _own(b, "--task", "state"), ["state", "cell_type"]),
    "unknown parameter": (
        lambda b: _own(b, "--method", "rf-importance", "--set", "rf-importance.estimators=3"),
        ["estimators", "n_estimators"],
    ),
    "parameter of a wrong type": (
        lambda b: _own(b, "--method", "rf-importance", "--set", "rf-importance.n_estimators=many"),
        ["n_estimators", "many", "integer"],
    ),
    "set for a method that is not asked for": (
        lambda b: _own(b, "--set", "mrmr-f.x=1"),
        ["mrmr-f", "--set"],
    ),
    "nothing asked for": (lambda b: [], ["--suite", "--method"]),
    "bad k": (lambda b: _own(b, "--k", "0"), ["ks", "greater than 0"]),
    "bad shard": (lambda b: _own(b, "--shard", "4/4"), ["--shard", "0/4"]),
    "bad time": (lambda b: _own(b, "--time-limit", "soon"), ["--time-limit", "10m"]),
    "bad memory": (lambda b: _own(b, "--memory-limit", "-1G"), ["--memory-limit", "8G"]),
    "bad retry": (lambda b: _own(b, "--retry", "fialed"), ["fialed", "failed"]),
    "bad output": (lambda b: _own(b, "--output", "xml"), ["xml", "json"]),
    "two panels for one file": (
        lambda b: _own(b, "--seed", "0", "--seed", "1", "--k", "4", "--out", "panel.csv"),
        ["--out", "2 selections"],
    ),
    "unknown key in a suite": (lambda b: _suite(b, metods=["x"]), ["s.yaml", "metods", "methods"]),
    "unknown metric in a suite": (
        lambda b: _suite(b, tables=[{"name": "t", "metrics": ["f1_marco"]}]),
        ["f1_marco", "f1_macro"],
    ),
    "no methods folder": (lambda b: _own(b, "--methods-dir", "nowhere"), ["nowhere"]),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_end_with_one_clear_message(bench: Bench, name: str) -> None:
    make, words = BAD_CALLS[name]
    _refused(bench.call_here("select", *make(bench)), words, bench)


def test_a_panel_that_does_not_fit(bench: Bench) -> None:
    (bench.folder / "p.csv").write_text("gene\ng1\ngg2\n")
    args = ["--data", str(bench.data), "--label", "cell_type", "--panel"]
    _refused(bench.call("evaluate", *args, "p.csv"), ["gg2", "not in data set", "g2"], bench)
    (bench.folder / "p.csv").write_text("gene\ng1\ng1\n")
    _refused(bench.call_here("evaluate", *args, "p.csv"), ["g1", "twice"], bench)
    _refused(bench.call_here("evaluate", *args, "q.csv"), ["q.csv", "no such file"], bench)


def test_report_without_results(bench: Bench) -> None:
    _refused(bench.call_here("report", *_own(bench)), ["no results", "panelbench run"], bench)


def test_more_genes_than_there_are_is_a_failed_run(bench: Bench) -> None:
    found = bench.call("select", *_own(bench, "--k", "41"))
    assert found.code == 1
    assert "k = 41, but only 40 genes" in found.out


# -- what people do ------------------------------------------------------------------------


def test_a_panel_of_ones_own_data_and_back(bench: Bench) -> None:
    own = ["--data", str(bench.data), "--label", "cell_type"]
    made = bench.call("select", *own, "--method", "rf-importance", "--k", "6", "--out", "panel.csv")
    assert made.code == 0, made.err
    rows = list(csv.DictReader((bench.folder / "panel.csv").open()))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 7)]
    assert {row["gene"] for row in rows} <= {f"g{i}" for i in range(12)}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    scored = bench.call("evaluate", *own, "--panel", "panel.csv", "--output", "json")
    assert scored.code == 0, scored.err
    (evaluation,) = [r for r in scored.json["runs"] if r["stage"] == "evaluate"]
    assert evaluation["status"] == "done"
    shown = bench.call("show", evaluation["key"][:12], "--output", "json").json
    assert shown["records"][0]["result"]["panel_size"] == 6
    assert shown["records"][0]["result"]["metrics"]["accuracy"] > 0.6
    text = bench.call("show", evaluation["key"][:12])
    assert "result.metrics" in text.out


def test_a_plain_list_of_genes_is_a_panel_too(bench: Bench) -> None:
    (bench.folder / "mine.txt").write_text("g1\ng5\ng9\n")
    args = ["--data", str(bench.data), "--label", "cell_type", "--panel", "mine.txt"]
    found = bench.call("run", *args)
    assert found.code == 0, found.err
    assert "mine" in found.out


def test_stages_one_by_one(bench: Bench) -> None:
    bench.add_method("plain", IN_ORDER)
    args = bench.own("--method", "plain", "--k", "4")
    early = bench.call("evaluate", *args)
    assert early.code == 1
    assert "1 without a selection" in early.err
    for stage, said in (
        ("preprocess", "nothing to do"),
        ("select", "select: 1 run (1 ok)"),
        ("evaluate", "evaluate: 1 run (1 ok)"),
    ):
        found = bench.call(stage, *args)
        assert found.code == 0, found.err
        assert said in found.err
    assert bench.call("report", *args).code == 0
    listed = bench.call_here("list", "runs", "--output", "json").json["runs"]
    assert [run["status"] for run in listed] == ["ok", "ok"]
    assert "plain" in bench.call_here("list", "runs").out


def test_lists(bench: Bench) -> None:
    methods = bench.call_here("list", "methods", "--output", "json").json["methods"]
    assert {"random", "mrmr-f", "hsic-lasso"} <= {line["method"] for line in methods}
    assert "citeseq" in bench.call_here("list", "datasets").out
    assert "demo" in bench.call_here("list", "suites").out
    evaluators = bench.call_here("list", "evaluators", "--output", "json").json["evaluators"]
    assert {"rf", "knn", "builtin"} <= {line["evaluator"] for line in evaluators}
    tasks = bench.call_here("list", "tasks", "--output", "json").json["tasks"]
    assert ("pbmc68k-reduced", "bulk_labels") in {(x["dataset"], x["task"]) for x in tasks}
    assert bench.call_here("list", "rnus").code == 2


def test_shells_complete_commands_and_options(bench: Bench) -> None:
    words = {"_PANELBENCH_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    for text, found in (("panelbench pre", "preprocess"), ("panelbench select --met", "--method")):
        environment = bench.environment() | words | {"COMP_WORDS": text}
        environment["COMP_CWORD"] = str(len(text.split()) - 1)
        code = "from panelbench.cli import app; app(prog_name='panelbench')"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert found in done.stdout.split(), done.stderr


def test_clean(bench: Bench) -> None:
    bench.add_method("plain", IN_ORDER)
    bench.call("run", *bench.own("--method", "plain", "--k", "4"))
    assert bench.call_here("clean", "runs").code == 2, "without a terminal it wants --yes"
    assert len(bench.records()) == 2
    bench.call_here("clean", "runs", "--method", "other", "--yes")
    assert len(bench.records()) == 2
    bench.call_here("clean", "runs", "--method", "plain", "--yes")
    assert bench.records() == []
    assert bench.call_here("clean", "leftovers").code == 0


def test_the_same_from_python(bench: Bench) -> None:
    import panelbench

    bench.add_method("plain", IN_ORDER)
    frame = panelbench.run(
        data=str(bench.data),
        label="cell_type",
        method=["plain", "rf-importance"],
        k=[4, 8],
        results=bench.results,
        cache=bench.folder / "cache",
        methods_dir=[bench.methods],
    )
    assert len(frame) == 4
    assert set(frame["status"]) == {"ok"}
    best = frame.set_index(["method", "k"])["f1_macro"]
    assert best["rf-importance", 8] > 0.7
    again = bench.call(
        "run", *bench.own("--method", "plain", "--method", "rf-importance", "--k", "4", "--k", "8")
    )
    assert "evaluate: nothing to do, 4 there already" in again.err


def test_python_errors_are_exceptions() -> None:
    import panelbench
    from panelbench.errors import ConfigError, UnknownName

    with pytest.raises(UnknownName, match="mrmr-f"):
        panelbench.run(method="mrmr-g")
    with pytest.raises(ConfigError, match="no option 'metod'"):
        panelbench.run(metod="mrmr-f")


def test_a_panel_for_numbers(bench: Bench) -> None:
    """A regression task, from --target to a table of correlations."""
    adata = anndata.read_h5ad(bench.data)
    counts = adata.X.toarray()
    adata.obs["signal"] = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, 20]
    adata.write_h5ad(bench.folder / "numbers.h5ad")
    args = ["--data", "numbers.h5ad", "--target", "signal", "--k", "2", "--evaluator", "knn"]
    found = bench.call("run", *args, "--method", "mrmr-f", "--method", "cosg")
    assert found.code == 0, found.err
    selected = {r.address.method: r for r in bench.read() if r.stage == "select"}
    assert selected["mrmr-f"].result["ranking"][0] == "g20"
    cosg = selected["cosg"]
    assert cosg.status == "skipped" and "this is a regression task" in cosg.reason
    (scored,) = [r for r in bench.read() if r.stage == "evaluate"]
    assert scored.asked["kind"] == "regression" and scored.result["metrics"]["pearson"] > 0.8
    table = (bench.results / "reports" / "numbers" / "tables" / "pearson.md").read_text()
    assert "mRMR-f" in table


def test_a_split_by_the_label_itself_is_no_score_of_zero(bench: Bench) -> None:
    bench.add_method("plain", IN_ORDER)
    args = bench.own("--method", "plain", "--k", "4", "--group", "cell_type", "--evaluator", "knn")
    found = bench.call("run", *args)
    (scored,) = [r for r in bench.read() if r.stage == "evaluate"]
    assert scored.status == "skipped" and "no class of cell_type is among both" in scored.reason
    assert "is the split grouped by the label itself?" in found.out


def test_no_donor_is_on_two_sides(bench: Bench) -> None:
    body = """
        return Selection(task.genes.tolist(), info={"groups": sorted(set(task.groups.tolist()))})
        """
    bench.add_method("donors", body)
    args = bench.own("--method", "donors", "--k", "4", "--group", "donor", "--evaluator", "knn")
    found = bench.call("run", *args)
    assert found.code == 0, found.err
    select, evaluate = sorted(bench.read(), key=lambda record: record.stage, reverse=True)
    # Four donors of 30 cells each: a fifth of the groups, rounded up, is for the test.
    assert len(select.result["info"]["groups"]) == 3 and select.result["cells"] == 90
    assert (evaluate.result["train_cells"], evaluate.result["test_cells"]) == (90, 30)


def test_a_grid_of_too_many_runs_is_refused_with_the_option_that_lets_it(bench: Bench) -> None:
    call = ["run", *bench.own("--method", "random", "--k", "4", "--seed", "0", "--dry-run")]
    found = bench.call_here(*call, "--max-runs", "1")
    assert found.code == 2
    (limit,) = re.findall(r"--max-runs (\d+) lets it", found.err)
    assert bench.call_here(*call, "--max-runs", limit).code == 0


def test_the_size_of_a_large_grid_is_said_before_it_is_planned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["run", *bench.own("--method", "random", "--k", "4", "--seed", "0", "--dry-run")]
    assert "planning" not in bench.call_here(*call).err
    monkeypatch.setattr("panelbench.api.SAID", 2)
    assert bench.call_here(*call).err.startswith("planning up to 3 runs\n")
