"""What is said about a name that does not exist."""

from __future__ import annotations

from pathlib import Path

from panelbench.errors import UnknownName, hint, near_matches

ROOT = Path(__file__).parent.parent


def test_near_matches_come_first_whatever_their_case() -> None:
    assert near_matches("cd3e", ["CD19", "CD3E", "CD3D", "MS4A1"])[0] == "CD3E"
    assert near_matches("CELL_TYPE", ["cell_type", "state"]) == ["cell_type"]
    assert near_matches("zzz", ["CD19"]) == []
    assert len(near_matches("gene1", [f"gene{i}" for i in range(20)])) == 3


def test_without_a_near_match_the_names_are_listed() -> None:
    assert hint("knd", ["kind", "age"]) == "did you mean kind?"
    assert hint("x", ["kind", "age"]) == "there is kind, age"
    assert hint("x", []) == "there is none"
    many = hint("x", [f"name{i}" for i in range(30)])
    assert many.startswith("there are 30, among them name0,") and "name12" not in many


def test_an_unknown_name_says_what_where_and_what_to_do() -> None:
    found = UnknownName("method", "rendom", ["random", "given"], "suite demo")
    assert str(found) == "unknown method 'rendom' in suite demo: did you mean random?"
    assert (found.kind, found.name, found.known) == ("method", "rendom", ["given", "random"])


def test_near_matches_are_looked_for_in_one_place() -> None:
    users = {
        str(path.relative_to(ROOT))
        for part in ("panelbench", "methods")
        for path in (ROOT / part).rglob("*.py")
        if "difflib" in path.read_text()
    }
    assert users == {"panelbench/errors.py"}
