"""The examples are what they say, and name every key that there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from panelbench.data.specs import SplitSpec
from panelbench.suite.request import load_suite
from panelbench.suite.specs import (
    DatasetEntry,
    EvaluatorEntry,
    FigureSpec,
    Limits,
    MethodEntry,
    Needs,
    NoiseSpec,
    SuiteSpec,
    TableSpec,
)
from tests.tools import Bench

EXAMPLES = Path(__file__).parent.parent / "examples"
SUITE = EXAMPLES / "suite.yaml"


def _entries(suite: dict[str, Any]) -> list[tuple[type[BaseModel], list[dict[str, Any]]]]:
    """Each model of a suite with the places of the example that are of it."""

    def whole(name: str) -> list[dict[str, Any]]:
        return [entry for entry in suite[name] if isinstance(entry, dict)]

    return [
        (SuiteSpec, [suite]),
        (DatasetEntry, whole("datasets")),
        (SplitSpec, [entry["split"] for entry in whole("datasets") if "split" in entry]),
        (MethodEntry, whole("methods")),
        (EvaluatorEntry, whole("evaluators")),
        (NoiseSpec, [suite["noise"]]),
        (Limits, [suite["limits"]]),
        (Needs, list(suite["needs"].values())),
        (TableSpec, whole("tables")),
        (FigureSpec, whole("figures")),
    ]


def test_the_example_suite_has_every_key_of_the_models() -> None:
    for model, entries in _entries(yaml.safe_load(SUITE.read_text())):
        missing = set(model.model_fields) - {key for entry in entries for key in entry}
        assert not missing, f"{model.__name__}: {missing}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_example_suites_are_valid(path: Path) -> None:
    assert load_suite(str(path)).methods


def test_the_example_suite_can_be_planned(bench: Bench) -> None:
    found = bench.call_here("run", "--suite", str(SUITE), "--dry-run")
    assert found.code == 0, found.err
    # A forest is asked for 8 genes alone; random genes for both sizes, in one selection.
    assert "select Forest" not in found.out and "rf-importance[n_estimators=50]" in found.out
    assert "k 16" in found.out and found.out.count("select rf-importance") == 4
