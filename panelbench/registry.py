"""Discovery of methods: the shipped folder, installed entry points, folders of one's own."""

from __future__ import annotations

import ast
import hashlib
import importlib
import pkgutil
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from panelbench.errors import ConfigError, MethodError, UnknownName
from panelbench.method import Method
from panelbench.records.code import code_digest

ENTRY_POINTS = "panelbench.methods"


@dataclass(frozen=True)
class Broken:
    """A method whose module cannot be imported: listed, and failing when asked for."""

    id: str
    place: str
    error: str
    source: str


@dataclass(frozen=True)
class Registry:
    """All methods that were found, by id."""

    methods: Mapping[str, Method]
    broken: Mapping[str, Broken]
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def get(self, id: str) -> Method:
        """Return a method.

        Raises
        ------
        UnknownName
            With the nearest ids.
        MethodError
            When its module cannot be imported.
        """
        if id in self.methods:
            return self.methods[id]
        if id in self.broken:
            broken = self.broken[id]
            raise MethodError(f"method {id}: {broken.place} cannot be imported: {broken.error}")
        raise UnknownName("method", id, [*self.methods, *self.broken])

    def source_digest(self, id: str) -> str:
        """Digest of the code behind a method, without comments and docstrings."""
        if id in self.broken:
            return self.broken[id].source
        if id not in self._digests:
            method = self.get(id)
            self._digests[id] = code_digest(method.module, method.helpers)
        return self._digests[id]


def discover(methods_dirs: Iterable[Path] = ()) -> Registry:
    """Import every method module that can be found.

    Parameters
    ----------
    methods_dirs
        Folders with modules or packages of methods, beside the shipped and the installed ones.

    Raises
    ------
    ConfigError
        When two modules declare the same id, or a folder does not exist.
    """
    methods: dict[str, Method] = {}
    broken: dict[str, Broken] = {}
    for name, place in _modules(methods_dirs):
        try:
            module = importlib.import_module(name)
            found = _declared(module)
        # A broken plug-in may raise anything while it is imported, SystemExit included.
        except (Exception, SystemExit) as error:
            sys.modules.pop(name, None)
            broken |= {item.id: item for item in _broken(name, place, error)}
            continue
        for id, item in found.items():
            if id in methods and methods[id].module != item.module:
                raise ConfigError(
                    f"method {id!r} is declared twice: in {_place(methods[id].module)} and in "
                    f"{place}; rename one of them"
                )
            methods[id] = item
    return Registry(dict(sorted(methods.items())), broken)


def _modules(methods_dirs: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name and the place of every module that may declare methods."""
    shipped = importlib.import_module("panelbench.methods")

    for info in pkgutil.iter_modules(shipped.__path__):
        yield f"{shipped.__name__}.{info.name}", str(Path(shipped.__path__[0]) / info.name)
    for point in _installed():
        yield point.value.partition(":")[0], f"entry point {point.name}"
    for folder in methods_dirs:
        if not folder.is_dir():
            raise ConfigError(f"--methods-dir {folder}: no such folder")
        package = _as_package(folder.resolve())
        for info in pkgutil.iter_modules([str(folder.resolve())]):
            yield f"{package}.{info.name}", str(folder / info.name)


@cache
def _installed() -> tuple[EntryPoint, ...]:
    # Looking through all installed packages takes longer than a small run.
    return tuple(entry_points(group=ENTRY_POINTS))


def _as_package(folder: Path) -> str:
    """Make a folder importable as a package with a name of its own."""
    name = "panelbench_extra_" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    # New files may have appeared since the folder was last listed.
    importlib.invalidate_caches()
    return name


def _declared(module: types.ModuleType) -> dict[str, Method]:
    """Methods declared in a module, or in the modules of a package it has imported."""
    found: dict[str, Method] = dict(vars(module).get("__methods__", {}))
    if hasattr(module, "__path__"):
        prefix = module.__name__ + "."
        for name, part in list(sys.modules.items()):
            if name.startswith(prefix) and part is not None:
                found |= vars(part).get("__methods__", {})
    return found


def _broken(name: str, place: str, error: BaseException) -> list[Broken]:
    """Describe a module that failed; its ids are read from the source where it parses."""
    folder = Path(place)
    file = next(
        (f for f in (folder.with_suffix(".py"), folder / "__init__.py") if f.is_file()), None
    )
    text = file.read_text(encoding="utf-8", errors="replace") if file else ""
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    source = hashlib.sha256(text.encode()).hexdigest()[:32]
    ids = _ids_in(text) or [name.rpartition(".")[2].replace("_", "-")]
    return [Broken(id, str(file or place), message, source) for id in ids]


def _ids_in(text: str) -> list[str]:
    """Ids in ``@method("id", ...)`` decorators of a source text."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    calls = [
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in function.decorator_list
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "method"
    ]
    first = [call.args[0] for call in calls if call.args]
    values = [node.value for node in first if isinstance(node, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def _place(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", module))
