"""Exact identities: digests of canonical JSON and of source code.

Everything that can change an answer is in a key, and nothing else is. AnnData objects and data
frames are never hashed; digests of files and specifications are.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

KEY_LENGTH = 32
"""Hexadecimal digits kept of a SHA-256 digest: 128 bits, short enough for folder names."""

CONTRACT = {"panelbench", "panelbench.method", "panelbench.errors", "panelbench.methods"}
"""Modules whose source never counts: they hold declarations, not behaviour."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; the same text for equal values on every machine.

    Raises
    ------
    TypeError, ValueError
        For what JSON cannot hold exactly (arrays, sets, NaN).
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: Any) -> str:
    """Key of a JSON-ready value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:KEY_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def normalised_source(text: str) -> str:
    """Python source without comments, docstrings and layout.

    Source that does not parse is returned as it is.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Any bare string is documentation: the first one, and those behind attributes.
            node.body = [item for item in node.body if not _is_text(item)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@lru_cache(maxsize=1024)
def _source_of(path: str, stamp: tuple[int, int]) -> str:
    return normalised_source(Path(path).read_text(encoding="utf-8", errors="replace"))


def source_digest(paths: Iterable[Path]) -> str:
    """Digest of Python files by name and normalised source; their order does not matter."""
    parts = {}
    for path in paths:
        stat = path.stat()
        source = _source_of(str(path), (stat.st_mtime_ns, stat.st_size))
        parts[f"{path.parent.name}/{path.name}"] = hashlib.sha256(source.encode()).hexdigest()
    return digest(parts)


def module_sources(module: str, helpers: Iterable[str] = ()) -> list[Path]:
    """Files whose code decides what a module does.

    The module itself (all of its sub-package, if it lives in one below a methods folder), the
    declared helpers, and every module of the same project that these import, followed to the
    end; the contract modules are left out.

    Parameters
    ----------
    module
        Dotted name of an importable module.
    helpers
        Dotted names of further modules.
    """
    found: dict[str, Path] = {}
    queue = [module, *helpers]
    while queue:
        name = queue.pop()
        if name in found or name in CONTRACT:
            continue
        path = _module_file(name)
        if path is None:
            continue
        found[name] = path
        queue += _imports(name, path)
        queue += _package_members(name, path)
    return sorted(set(found.values()))


def _module_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(name: str, path: Path) -> list[str]:
    """Names of modules of the same project that a file imports, relative ones resolved."""
    root = name.partition(".")[0]
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except SyntaxError:
        return []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [item for item in names if item.partition(".")[0] in {root, "panelbench"}]


def _package_members(name: str, path: Path) -> list[str]:
    """All modules of a method's sub-package, when `name` lies in one."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    if package in CONTRACT or package.count(".") < 1 or not package.startswith(_METHOD_ROOTS):
        return []
    folder = path.parent
    return [
        package if file.name == "__init__.py" else f"{package}.{file.stem}"
        for file in sorted(folder.glob("*.py"))
    ]


_METHOD_ROOTS = ("panelbench.methods.", "panelbench_extra_")
"""Name prefixes under which method sub-packages are imported (see registry.py)."""


def library_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each distribution, None where it is missing."""
    return {name: _version(name) for name in sorted(set(names))}


@lru_cache(maxsize=256)
def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which two identities differ."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
