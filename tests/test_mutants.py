"""The list of breaks that the tests have to notice fits the code; `mutants.py` tries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import Mutant, Unfit, read_mutants

ROOT = Path(__file__).parent.parent


def test_every_break_can_be_made_and_has_tests() -> None:
    texts: dict[str, str] = {}
    for mutant in read_mutants():
        mutant.broken(ROOT)
        for test in mutant.tests:
            file, _, name = test.partition("::")
            text = texts.setdefault(file, (ROOT / file).read_text())
            assert f"def {name.partition('[')[0]}" in text, f"{mutant.id}: there is no {test}"


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 1\n")
    for before, after, said in (
        ("1", "2", "found 2 times"), ("z", "2", "found 0 times"), ("x = 1", "x =", "no Python"),
        ("x = 1", "x = 1", "found 1 times"),
    ):  # fmt: skip
        with pytest.raises(Unfit, match=f"mutant m: .*{said}"):
            Mutant("m", "a.py", before, after).broken(tmp_path)
    assert Mutant("m", "a.py", "x = 1", "x = 2").broken(tmp_path) == "x = 2\ny = 1\n"
    with pytest.raises(Unfit, match=r"there is no file b\.py"):
        Mutant("m", "b.py", "x", "y").broken(tmp_path)
    path = tmp_path / "list.yaml"
    entry = "- {id: m, file: a.py, before: x, after: y"
    for text, said in (
        (f"{entry}}}", "give tests"),
        (f"{entry}, tests: t, equivalent: so}}", "give tests"),
        (f"{entry}, tets: t}}", "tets"),
        (f"{entry}, tests: t}}\n{entry}, tests: t}}", "twice"),
    ):
        path.write_text(text)
        with pytest.raises(Unfit, match=f"mutant m: .*{said}"):
            read_mutants(path)
