"""Digests of code: what a module does, from everything it imports.

The code behind a result is the import closure of the module that does the work, less a short list
of modules that cannot change a result (`NOT_COUNTED`). Comments, docstrings and layout do not
count, and neither do file and folder names: an import is written as the content of what it
imports, so that moving or renaming a module alone makes no result stale.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from panelbench.records.keys import digest

NOT_COUNTED: dict[str, str] = {
    "panelbench": "holds the version and the public names; does no work",
    "panelbench.errors": "words of messages",
    "panelbench.units": "reads times and sizes; the values it makes are limits, or in keys",
    "panelbench.schema": "checks YAML; the values that pass are in keys",
    "panelbench.params": "checks parameters; the values that pass are in keys",
    "panelbench.registry": "finds by an id; the code it finds has a digest of its own",
    "panelbench.records.keys": "another way to make keys makes other keys by itself",
    "panelbench.records.code": "another way to digest code makes other digests by itself",
    "panelbench.records.store": "where records lie and how they are written",
    "panelbench.records.cache": "keeps what stages made, under their own keys",
    "panelbench.records.files": "writes files whole or not at all",
    "panelbench.records.status": "words and colours of how runs end",
    "panelbench.environments.place": "where environments lie; requirements are in the key",
    "panelbench.data.fetch": "brings files; the digest of their bytes is in the key",
    "panelbench.methods": "the folder of methods; each method has a digest of its own",
}
"""Modules of the suite whose code is in no key, each with the reason."""

_PLUGIN_ROOTS = ("panelbench.methods.", "panelbench.scoring.evaluators.", "panelbench_extra_")
"""Name prefixes under which packages of methods and evaluators are imported (see `registry`)."""


def code_digest(module: str, helpers: Iterable[str] = ()) -> str:
    """Digest of the code that decides what a module does.

    Parameters
    ----------
    module
        Dotted name of the module that does the work.
    helpers
        Further modules whose code belongs to it, for example some that it loads by name.

    Returns
    -------
    Digest over the closure; the same wherever the files lie and however they are named.
    """
    sources = [_source(name) for name in import_closure(module, helpers)]
    return digest(sorted({_digest(source) for source in sources if source != _NOTHING}))


def import_closure(module: str, helpers: Iterable[str] = ()) -> dict[str, Path]:
    """Modules of the same project that a module imports, directly or not, itself included.

    Parameters
    ----------
    module, helpers
        As for `code_digest`. A module in a package of methods brings the whole package along.

    Returns
    -------
    Files by dotted name, sorted, without those of `NOT_COUNTED`.
    """
    found: dict[str, Path] = {}
    queue = [module, *helpers]
    while queue:
        name = queue.pop()
        path = None if name in found or name in NOT_COUNTED else module_file(name)
        if path is None:
            continue
        found[name] = path
        queue += [item.module for item in _source(name).imports]
        queue += _package_members(name, path)
        queue += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(found.items()))


def normalised_source(text: str) -> str:
    """Python source without comments, docstrings, layout and imports for type checking only.

    Source that does not parse is returned as it is.
    """
    try:
        return ast.unparse(_Stripped().visit(ast.parse(text)))
    except (SyntaxError, ValueError):
        return text


# -- one module ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Import:
    """A name that is imported from the same project.

    `name` is "" where a module is imported as a whole.
    """

    module: str
    name: str
    known_as: str


@dataclass(frozen=True)
class _Source:
    """Normalised code of a module without its imports from the same project, and these."""

    code: str
    imports: tuple[_Import, ...]


_NOTHING = _Source("pass", ())
"""A module that holds a docstring at most, such as most folders' ``__init__``."""


def module_file(name: str) -> Path | None:
    """File of a module, None when there is none or it is no Python source."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _source(name: str) -> _Source:
    path = module_file(name)
    assert path is not None
    stat = path.stat()
    return _read(name, str(path), (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=1024)
def _read(name: str, path: str, stamp: tuple[int, int]) -> _Source:
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    package = name if Path(path).name == "__init__.py" else name.rpartition(".")[0]
    stripped = _Stripped(package, {name.partition(".")[0], "panelbench"})
    try:
        code = ast.unparse(stripped.visit(ast.parse(text)))
    except (SyntaxError, ValueError):
        # It cannot be run as it is; any other text of it is another module.
        return _Source(text, ())
    return _Source(code, tuple(stripped.imports))


def _digest(source: _Source) -> str:
    """Digest of a module's own code, each import written as the content of what it imports."""
    imports = sorted([_content(item.module), item.name, item.known_as] for item in source.imports)
    return digest([source.code, imports])


def _content(module: str) -> str:
    """What stands for an imported module: its code, or its last name if it is in no key."""
    if module in NOT_COUNTED or module_file(module) is None:
        return module.rpartition(".")[2]
    return digest(_source(module).code)


class _Stripped(ast.NodeTransformer):
    """Leaves what is executed, less the imports of the same project, which it collects."""

    def __init__(self, package: str = "", roots: Iterable[str] = ()) -> None:
        self.package, self.roots = package, frozenset(roots)
        self.imports: list[_Import] = []

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not isinstance(x, ast.Pass)] or [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        # Any bare string is documentation: the first one, and those behind attributes.
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        if ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            kept: list[Any] = [self.visit(item) for item in node.orelse]
            return kept or ast.Pass()
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        own = [alias for alias in node.names if alias.name.partition(".")[0] in self.roots]
        self.imports += [_Import(a.name, "", a.asname or a.name) for a in own]
        node.names = [alias for alias in node.names if alias not in own]
        return node if node.names else ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        if base.partition(".")[0] not in self.roots:
            return node
        for alias in node.names:
            inner, known_as = f"{base}.{alias.name}", alias.asname or alias.name
            whole = module_file(inner) is not None
            self.imports.append(
                _Import(inner if whole else base, "" if whole else alias.name, known_as)
            )
        return ast.Pass()


def _package_members(name: str, path: Path) -> list[str]:
    """All modules of a package that is a method or an evaluator, when `name` lies in one."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    if not package.startswith(_PLUGIN_ROOTS) or "." not in package:
        return []
    return [
        package if file.name == "__init__.py" else f"{package}.{file.stem}"
        for file in sorted(path.parent.glob("*.py"))
    ]
