"""What commands print: text from data as it is, never read as markup."""

from __future__ import annotations

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
