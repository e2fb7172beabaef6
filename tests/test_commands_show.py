"""What commands print: text from data as it is, never read as markup."""

from __future__ import annotations

import pytest

from tests.tools import Bench

RAISES = 'raise OSError("cannot open any of [/data/model.bin, /opt/model.bin] \\x1b[31m[bold]")'


def test_brackets_of_data_are_shown_as_they_are(bench: Bench) -> None:
    bench.add_method("odd", RAISES)
    own = bench.own("--method", "odd", "--method", "rf-importance", "--k", "4")
    args = [*own, "--set", "rf-importance.n_estimators=7"]
    ran = bench.call("run", *args)
    assert ran.code == 3, ran.err
    for found in (ran, bench.call_here("run", *args, "--dry-run"), bench.call_here("list", "runs")):
        assert "Traceback" not in found.err and "\x1b" not in found.out
        assert "[/data/model.bin, /opt/model.bin]" in found.out
    for name in ("--dry-run", None):
        call = ["run", *args, name] if name else ["list", "runs"]
        assert "rf-importance[n_estimators=7]" in bench.call_here(*call).out


def test_what_follows_from_a_failed_selection_is_told_once(bench: Bench) -> None:
    bench.add_method("odd", 'raise OSError("no disk")')
    own = bench.own("--method", "odd", "--k", "4")
    ran = bench.call("run", *own)
    assert "select odd" in ran.out and "evaluate odd" not in ran.out
    alone = bench.call("evaluate", *own)
    assert "evaluate odd" in alone.out and "no disk" in alone.out


def test_select_shows_genes_and_evaluate_shows_scores(bench: Bench) -> None:
    bench.add_method("plain")
    own = bench.own("--method", "plain", "--k", "12")
    chosen = bench.call("select", *own)
    assert "g0, g1, g2, g3, g4, g5, g6, g7, ... (12 in all)" in chosen.out
    (line,) = bench.call("select", *own, "--output", "json").json["runs"]
    assert line["genes"] == [f"g{i}" for i in range(12)] and "metrics" not in line
    scored = bench.call("evaluate", *own)
    assert "Macro F1" in scored.out and "plain" in scored.out
    found = bench.call("evaluate", *own, "--output", "json").json
    (line,) = found["runs"]
    assert 0.5 < line["metrics"]["accuracy"] <= 1 and "genes" not in line
    assert f"{100 * line['metrics']['f1_macro']:.1f}" in scored.out
    assert found["format"] == 1


def test_a_run_without_a_result_has_no_genes_and_no_metrics(bench: Bench) -> None:
    bench.add_method("odd", 'raise OSError("no disk")')
    found = bench.call("run", *bench.own("--method", "odd", "--k", "4"), "--output", "json").json
    assert all("genes" not in line and "metrics" not in line for line in found["runs"])


def test_there_is_one_version_of_the_json_output(bench: Bench) -> None:
    from panelbench.commands import JSON_FORMAT

    failed = bench.call_here("list", "nothing", "--output", "json")
    listed = bench.call_here("list", "suites", "--output", "json")
    assert failed.json["format"] == listed.json["format"] == JSON_FORMAT


def test_many_rows_are_plain_columns_with_the_same_texts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from panelbench.commands import output

    rows = [(f"run {i} [x]", "done") for i in range(output.MANY + 1)]
    output.print_rows(("run", "status"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "status"] and len(lines) == len(rows) + 1
    assert lines[1] == "run 0 [x]    done"
    output.print_rows(("run", "status"), rows[:2])
    assert "run 1 [x]" in capsys.readouterr().out
