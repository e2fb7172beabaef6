"""Options that messages of the data code advise must exist on the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

from panelbench.cli import app

ROOT = Path(__file__).parent.parent / "panelbench"
MODULES = [*(ROOT / "data").rglob("*.py"), *(ROOT / "stages").glob("*.py")]


def advised(path: Path) -> set[str]:
    """Options in the texts of a module, docstrings among them."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]*", " ".join(texts)))


def test_the_search_finds_options() -> None:
    assert {"--log1p", "--layer"} <= advised(ROOT / "data" / "readers" / "_own.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_advised_options_exist(path: Path) -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {option for command in commands for item in command.params for option in item.opts}
    assert advised(path) <= known
