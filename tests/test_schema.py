"""YAML from strangers: one message, whatever it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from panelbench.data.specs import DatasetSpec
from panelbench.errors import ConfigError
from panelbench.schema import load_yaml, parse, read_yaml
from panelbench.suite.request import parse_sets
from panelbench.suite.specs import SuiteSpec

DEEP = ["[" * 100_000, "{a: " * 5_000, "- " * 100_000, "? " * 100_000]


@pytest.mark.parametrize("text", DEEP, ids=["lists", "maps", "items", "keys"])
def test_what_is_nested_too_deeply_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot read the value"):
        parse_sets([f"yoto.lr={text}"])


def test_what_people_write_is_read() -> None:
    assert load_yaml("a: [[1, 2], {b: c}]\nd:\n- - x\n") == {
        "a": [[1, 2], {"b": "c"}],
        "d": [["x"]],
    }
    assert load_yaml("'[[[' ") == "[[["


def test_the_keys_that_exist_are_named_where_they_belong() -> None:
    with pytest.raises(ConfigError, match="did you mean evaluators"):
        parse(SuiteSpec, {"name": "s", "datasets": ["a"], "ks": [1], "evaluator": ["rf"]}, "s")
    wrong = {"id": "a", "reader": "h5ad", "split": {"shceme": "holdout"}}
    with pytest.raises(ConfigError, match="did you mean scheme"):
        parse(DatasetSpec, wrong, "d")
    entry = {"name": "s", "datasets": [{"dataset": "a", "task": ["x"]}], "ks": [1]}
    with pytest.raises(ConfigError, match="did you mean tasks"):
        parse(SuiteSpec, entry, "s")
