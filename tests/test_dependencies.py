"""What the code imports is what pyproject.toml declares, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from panelbench.registry import discover

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "distributed": "distributed",
    "igraph": "igraph",
    "lightning": "lightning",
    "scmer": "scmer",
    "scvi": "scvi-tools",
    "torchvision": "torchvision",
    "triku": "triku",
}
"""Distributions behind imports that may not be installed here."""


def declared(requirements: list[str]) -> set[str]:
    """Names of distributions, as package indexes compare them."""
    names = [re.match(r"[A-Za-z0-9._-]+", item) for item in requirements]
    return {canonical(name[0]) for name in names if name}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> dict[str, Path]:
    """Top-level modules that come from elsewhere, each with a file that imports it."""
    found: dict[str, Path] = {}
    for path in sorted(
        p for part in ("panelbench", "methods") for p in (ROOT / part).rglob("*.py")
    ):
        if path.name == "inside.py":
            # What runs in an environment of its own; a method's requirements declare it.
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], path)
    own = {"panelbench", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in own}


def distributions() -> dict[str, Path]:
    """Distributions behind the imports."""
    known = packages_distributions()
    return {
        canonical(EXTRAS.get(name) or known[name][0]): path for name, path in imported().items()
    }


def test_every_imported_distribution_is_declared() -> None:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    known = set().union(*map(declared, lists))
    missing = {name: str(path) for name, path in distributions().items() if name not in known}
    assert not missing, "declare in pyproject.toml what is imported directly"


def test_every_dependency_is_used() -> None:
    # A method may need a library that another library imports for it.
    named = {canonical(name) for item in discover().methods.values() for name in item.libraries}
    unused = declared(PROJECT["dependencies"]) - distributions().keys() - named
    assert not unused, "nothing imports these"
