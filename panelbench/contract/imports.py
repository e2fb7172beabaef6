"""What the module of a method or an evaluator imports, and when."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from panelbench.contract.rules import Breach, demand
from panelbench.records.code import import_closure

HEAVY = (
    "anndata",
    "jinja2",
    "matplotlib",
    "numba",
    "pandas",
    "pydantic",
    "scanpy",
    "scipy",
    "sklearn",
    "torch",
    "umap",
)
"""Libraries that take long to import: every call of the command line would wait for them."""

_PLUGINS = ("panelbench.methods.", "panelbench.scoring.evaluators.")


def own_files(module: str) -> dict[str, Path]:
    """Files by module name that a method or evaluator brings along, not those of the suite."""
    return {
        name: path
        for name, path in import_closure(module).items()
        if name.partition(".")[0] != "panelbench" or name.startswith(_PLUGINS)
    }


def parts_imported(path: Path) -> set[str]:
    """Parts of panelbench that a file imports, other than for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and not node.level:
            root, *parts = (node.module or "").split(".")
            if root == "panelbench":
                found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "panelbench" and len(name) > 1}
    return found


def imports_only(module: str, offered: tuple[str, ...]) -> None:
    """Demand that a module and what it brings along use only some parts of panelbench.

    A module beside it that declares evaluators has rules of its own.

    Raises
    ------
    Breach
        Naming the file and the part.
    """
    for name, path in own_files(module).items():
        if name != module and "\n@evaluator(" in path.read_text(encoding="utf-8"):
            continue
        for part in sorted(parts_imported(path) - {*offered, "methods"}):
            raise Breach(
                f"{path} imports panelbench.{part}; what may be relied on is panelbench."
                + ", panelbench.".join(offered)
            )


def imports_late(module: str) -> None:
    """Demand that importing a module alone imports no heavy library.

    Raises
    ------
    Breach
        Naming the libraries.
    """
    found = _imported_with(module)
    demand(not found, f"importing it imports {', '.join(found)}; import inside the function")


@lru_cache
def _imported_with(module: str) -> tuple[str, ...]:
    """Heavy libraries that a fresh Python holds once it has imported a module."""
    # A folder of one's own is a package by a name that only `registry` knows how to make.
    root = module.partition(".")[0]
    own = root.startswith("panelbench_extra_")
    folders = [*sys.modules[root].__path__][:1] if own else []
    code = f"""
import importlib, sys
from pathlib import Path
from panelbench.registry import as_package
for folder in {folders!r}:
    as_package(Path(folder))
importlib.import_module({module!r})
print("imported:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise Breach(f"cannot be imported alone: {done.stderr.strip().splitlines()[-1]}")
    return tuple(done.stdout.rpartition("imported:")[2].split())
