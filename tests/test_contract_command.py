"""The contract as a command: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools import Bench, method_source

RANK = "return Selection(ranking=task.genes[np.argsort(-task.dense().var(axis=0))].tolist())"
SCORE = '''
"""Score panels by their size."""
from panelbench.evaluator import Metric, Scores, evaluator

@evaluator("size", kind="size", metrics=(Metric("genes", "Genes", "size", high=11),))
def score(given, params):
    """Count the genes of the panel."""
    return Scores({"genes": float(len(given.panel))})
'''


def test_a_method_that_keeps_the_contract(bench: Bench) -> None:
    bench.add_method("mine", RANK)
    found = bench.call("test-method", "methods/mine.py")
    assert found.code == 0, found.out + found.err
    assert f"method mine ({bench.methods / 'mine.py'})" in found.out
    assert "passed     The same seed gives the same ranking." in found.out
    assert "returns no predictor" in found.out
    assert found.out.strip().endswith("14 passed, 8 not asked")


def test_a_method_that_does_not(bench: Bench) -> None:
    bench.add_method("mine", "print('[red]'); return Selection(task.genes[:30].tolist())")
    found = bench.call_here("test-method", "methods/mine.py")
    assert found.code == 1
    lines = found.out.splitlines()
    place = lines.index("  failed     It serves k = 1, fewer genes than classes, and all genes.")
    assert lines[place + 1].strip() == "ranked 30 genes, 60 were asked for"
    assert "[red]" in found.err and "[red]" not in found.out


def test_as_json(bench: Bench) -> None:
    bench.add_method("mine", "return Selection(task.genes[:30].tolist())")
    found = bench.call_here("test-method", "methods/mine.py", "--output", "json")
    assert found.code == 1
    told = json.loads(found.out)
    assert told["exit_code"] == 1 and told["format"] == 1
    rules = {item["rule"]: item for item in told["methods"]["mine"]}
    assert rules["serves_every_k"] == {
        "rule": "serves_every_k",
        "asks": "It serves k = 1, fewer genes than classes, and all genes.",
        "verdict": "failed",
        "why": "ranked 30 genes, 60 were asked for",
    }
    assert rules["info_is_json"]["verdict"] == "passed"


def test_an_evaluator(bench: Bench) -> None:
    (bench.folder / "own").mkdir()
    (bench.folder / "own" / "size.py").write_text(SCORE)
    found = bench.call_here("test-evaluator", "own/size.py")
    assert found.code == 1
    assert "its metric 'genes' is 12.0, not a number from 0.0 to 11" in found.out
    assert "13 passed, 3 failed, 2 not asked" in found.out


def test_one_module_of_a_folder_or_all(bench: Bench) -> None:
    bench.add_method("mine", RANK)
    (bench.methods / "pack").mkdir()
    (bench.methods / "pack" / "__init__.py").write_text(method_source("pack", RANK))

    def tried(file: str) -> set[str]:
        found = bench.call_here("test-method", file, "--output", "json")
        return set(json.loads(found.out)["methods"])

    assert tried("methods/mine.py") == {"mine"}
    assert tried("methods/pack") == tried("methods/pack/__init__.py") == {"pack"}
    assert tried("methods") == {"mine", "pack"}


def test_a_method_that_ships_is_tried_where_it_lies(bench: Bench) -> None:
    import panelbench.methods

    file = Path(panelbench.methods.__path__[0]) / "random_genes.py"
    found = bench.call_here("test-method", str(file))
    assert found.code == 0, found.out + found.err
    assert "method random " in found.out


def test_parameters_can_be_given(bench: Bench) -> None:
    source = method_source("mine", "assert params.power < 5\n" + RANK, "params=Params")
    params = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Params:\n"
    (bench.methods / "mine.py").write_text(params + "    power: float = 1\n" + source)
    assert bench.call_here("test-method", "methods/mine.py").code == 0
    found = bench.call_here("test-method", "methods/mine.py", "--set", "mine.power=7")
    assert found.code == 1 and "raised AssertionError" in found.out
    for name, words in (("mine.pover", "did you mean power"), ("mime.power", "did you mean mine")):
        found = bench.call_here("test-method", "methods/mine.py", "--set", f"{name}=7")
        assert found.code == 2 and words in found.err


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("import no_such_thing", 1, "cannot be imported: ModuleNotFoundError"),
        ("x = 1", 2, "declares no method: put @method("),
        (None, 2, "there is no such file"),
    ],
)
def test_a_file_without_a_method(bench: Bench, text: str | None, code: int, words: str) -> None:
    bench.add_method("other", RANK)
    if text is not None:
        (bench.methods / "mine.py").write_text(text)
    found = bench.call_here("test-method", "methods/mine.py")
    assert found.code == code
    assert words in found.err
