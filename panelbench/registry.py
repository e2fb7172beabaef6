"""Discovery of methods and evaluators: shipped folder, entry points, folders of one's own."""

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
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from panelbench.errors import ConfigError, MethodError, PanelbenchError, UnknownName
from panelbench.evaluator import Evaluator, Metric
from panelbench.method import Method
from panelbench.records.code import code_digest
from panelbench.scoring.metrics import METRICS


class Declaration(Protocol):
    """What the declarations of methods and evaluators have in common."""

    @property
    def id(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def helpers(self) -> tuple[str, ...]: ...


D = TypeVar("D", bound=Declaration)


@dataclass(frozen=True)
class Kind:
    """Where declarations of one kind are looked for.

    Attributes
    ----------
    name
        ``method`` or ``evaluator``: also the name of the decorator that declares one.
    package
        The folder that ships, as a package.
    """

    name: str
    package: str

    @property
    def entry_points(self) -> str:
        """Group of entry points of installed packages."""
        return f"panelbench.{self.name}s"

    @property
    def option(self) -> str:
        """Option that names folders of one's own."""
        return f"--{self.name}s-dir"

    @property
    def marker(self) -> str:
        """Attribute of a module that holds its declarations by id."""
        return f"__{self.name}s__"


METHOD = Kind("method", "panelbench.methods")
EVALUATOR = Kind("evaluator", "panelbench.scoring.evaluators")


@dataclass(frozen=True)
class Broken:
    """A declaration whose module cannot be imported: listed, and failing when asked for."""

    id: str
    place: str
    error: str
    source: str


@dataclass(frozen=True)
class Found(Generic[D]):
    """All declarations of one kind that were found, by id."""

    declared: Mapping[str, D]
    broken: Mapping[str, Broken] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    kind: ClassVar[Kind]
    failure: ClassVar[type[PanelbenchError]]

    def get(self, id: str, where: str = "") -> D:
        """Return a declaration.

        Raises
        ------
        UnknownName
            With the nearest ids.
        MethodError, ConfigError
            When the module of a method or of an evaluator cannot be imported.
        """
        if id in self.declared:
            return self.declared[id]
        if id in self.broken:
            broken, name = self.broken[id], self.kind.name
            raise self.failure(f"{name} {id}: {broken.place} cannot be imported: {broken.error}")
        raise UnknownName(self.kind.name, id, [*self.declared, *self.broken], where)

    def source_digest(self, id: str) -> str:
        """Digest of the code behind a declaration, without comments and docstrings."""
        if id in self.broken:
            return self.broken[id].source
        if id not in self._digests:
            found = self.get(id)
            self._digests[id] = code_digest(found.module, found.helpers)
        return self._digests[id]


@dataclass(frozen=True)
class Registry(Found[Method]):
    """All methods that were found, by id."""

    kind = METHOD
    failure = MethodError

    @property
    def methods(self) -> Mapping[str, Method]:
        """Methods by id."""
        return self.declared


@dataclass(frozen=True)
class Evaluators(Found[Evaluator]):
    """All evaluators that were found, by id."""

    kind = EVALUATOR
    # A yardstick that is broken stops a command before anything runs.
    failure = ConfigError

    @property
    def metrics(self) -> dict[str, Metric]:
        """All metrics by id: the shared ones, and those that evaluators declare of their own."""
        own = {metric.id: metric for item in self.declared.values() for metric in item.metrics}
        return {**METRICS, **own}


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
    return Registry(*_discover(METHOD, methods_dirs))


def discover_evaluators(evaluators_dirs: Iterable[Path] = ()) -> Evaluators:
    """Import every evaluator module that can be found; parameter and errors as for methods.

    Raises
    ------
    ConfigError
        Also when two evaluators declare different metrics under one id.
    """
    found = Evaluators(*_discover(EVALUATOR, evaluators_dirs))
    _check_metrics(found.declared.values())
    return found


def _check_metrics(evaluators: Iterable[Evaluator]) -> None:
    """One id, one metric: the same that is shared, or declared by another evaluator."""
    known = {id: (metric, "panelbench.scoring.metrics") for id, metric in METRICS.items()}
    for item in evaluators:
        for metric in item.metrics:
            first, module = known.setdefault(metric.id, (metric, item.module))
            if first != metric:
                raise ConfigError(
                    f"metric {metric.id!r} is declared twice, and not the same: in "
                    f"{_place(module)} and in {_place(item.module)}; rename one of them"
                )


def _discover(kind: Kind, folders: Iterable[Path]) -> tuple[dict[str, Any], dict[str, Broken]]:
    """Declarations of a kind, sorted by id, and the modules that cannot be imported."""
    found: dict[str, Any] = {}
    broken: dict[str, Broken] = {}
    for name, place in _modules(kind, folders):
        try:
            items = _declared(importlib.import_module(name), kind)
        # A broken plug-in may raise anything while it is imported, SystemExit included.
        except (Exception, SystemExit) as error:
            sys.modules.pop(name, None)
            broken |= {item.id: item for item in _broken(kind, name, place, error)}
            continue
        for id, item in items.items():
            if id in found and found[id].module != item.module:
                raise ConfigError(
                    f"{kind.name} {id!r} is declared twice: in {_place(found[id].module)} and in "
                    f"{place}; rename one of them"
                )
            found[id] = item
    return dict(sorted(found.items())), broken


def _modules(kind: Kind, folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name and the place of every module that may hold declarations."""
    shipped = importlib.import_module(kind.package)

    for info in pkgutil.iter_modules(shipped.__path__):
        yield f"{shipped.__name__}.{info.name}", str(Path(shipped.__path__[0]) / info.name)
    for point in _installed(kind.entry_points):
        yield point.value.partition(":")[0], f"entry point {point.name}"
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{kind.option} {folder}: no such folder")
        package = as_package(folder.resolve())
        for info in pkgutil.iter_modules([str(folder.resolve())]):
            yield f"{package}.{info.name}", str(folder / info.name)


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    # Looking through all installed packages takes longer than a small run.
    return tuple(entry_points(group=group))


def as_package(folder: Path) -> str:
    """Make a folder importable as a package with a name of its own."""
    name = "panelbench_extra_" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    # New files may have appeared since the folder was last listed.
    importlib.invalidate_caches()
    return name


def _declared(module: types.ModuleType, kind: Kind) -> dict[str, Any]:
    """What is declared in a module, or in the modules of a package it has imported."""
    found: dict[str, Any] = dict(vars(module).get(kind.marker, {}))
    if hasattr(module, "__path__"):
        prefix = module.__name__ + "."
        for name, part in list(sys.modules.items()):
            if name.startswith(prefix) and part is not None:
                found |= vars(part).get(kind.marker, {})
    return found


def _broken(kind: Kind, name: str, place: str, error: BaseException) -> list[Broken]:
    """Describe a module that failed; its ids are read from the source where it parses."""
    folder = Path(place)
    file = next(
        (f for f in (folder.with_suffix(".py"), folder / "__init__.py") if f.is_file()), None
    )
    text = file.read_text(encoding="utf-8", errors="replace") if file else ""
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    source = hashlib.sha256(text.encode()).hexdigest()[:32]
    ids = _ids_in(text, kind.name) or [name.rpartition(".")[2].replace("_", "-")]
    return [Broken(id, str(file or place), message, source) for id in ids]


def _ids_in(text: str, decorator: str) -> list[str]:
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
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == decorator
    ]
    first = [call.args[0] for call in calls if call.args]
    values = [node.value for node in first if isinstance(node, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def _place(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", module))
