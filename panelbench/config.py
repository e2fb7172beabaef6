"""Models of everything that is read from YAML or the command line.

An unknown key is an error, so a misspelt option can never be ignored silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from panelbench.errors import ConfigError
from panelbench.units import seconds, size

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$")]


class Model(BaseModel):
    """Base of all models: immutable, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFile(Model):
    """A file of a data set: a URL to download, or a local path."""

    name: str
    url: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class TaskSpec(Model):
    """A column of labels or targets to predict.

    `column` is a column of ``obs`` (classification or one regression output) or, with
    ``kind: regression``, a key of ``obsm`` (several outputs). Classes with fewer than
    `min_cells` cells are dropped: their cells have a missing label for this task.
    """

    name: Name
    column: str | None = None
    kind: Literal["classification", "regression"] = "classification"
    min_cells: Annotated[int, Field(ge=0)] = 0

    @property
    def source(self) -> str:
        """Column of ``obs`` (or key of ``obsm``) that holds the labels."""
        return self.column or self.name


class SplitSpec(Model):
    """How cells are divided into training, validation and test cells.

    scheme
        ``holdout``: random cells; ``groups``: whole groups, none on both sides;
        ``leave-one-group-out``: the group numbered by the seed is the test set.
    test, validation
        Fractions of the cells.
    stratify
        Keep the class shares of the first task (``holdout`` only).
    group
        Column of ``obs`` with donors, batches or slides.
    min_per_class
        Cells of every class reserved for train, validation and test before the rest is drawn
        at random (MarkerMap's protocol: 2, 1, 1; then `stratify` is off).
    """

    scheme: Literal["holdout", "groups", "leave-one-group-out"] = "holdout"
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stratify: bool = True
    group: str | None = None
    min_per_class: tuple[int, int, int] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SplitSpec:
        if self.scheme != "holdout" and self.group is None:
            raise ValueError(f"scheme {self.scheme!r} needs 'group', the obs column to split by")
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together leave no training cells")
        if self.min_per_class is not None and self.stratify:
            raise ValueError("min_per_class draws the rest at random: set stratify to false")
        return self


_ONE_OR_MORE = BeforeValidator(lambda v: v if isinstance(v, list | tuple) else (v,))


class Step(Model):
    """One step of a recipe: its name and options (checked by the step itself)."""

    name: str
    options: dict[str, Any] = {}


def _as_step(value: Any) -> Any:
    # In YAML a step is `log1p` or `hvg: {n: 2000}`.
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        (name, options), *_ = value.items()
        return {"name": name, "options": options or {}}
    return value


RecipeStep = Annotated[Step, BeforeValidator(_as_step)]


class DatasetSpec(Model):
    """An entry of datasets.yaml.

    `missing` says what a data set still lacks before it can be used; suites may name it, and
    reports say so in its place.
    """

    id: Name
    title: str = ""
    missing: str = ""
    reader: str = ""
    reader_options: dict[str, Any] = {}
    files: tuple[SourceFile, ...] = ()
    recipe: tuple[RecipeStep, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    split: SplitSpec = SplitSpec()
    group: str | None = None
    inputs: str | None = None
    markers: dict[str, tuple[str, ...]] = {}
    licence: str = ""
    citation: str = ""
    homepage: str = ""

    @model_validator(mode="after")
    def _readable(self) -> DatasetSpec:
        if bool(self.reader) == bool(self.missing):
            raise ValueError("give either 'reader', or 'missing' (what it lacks so far)")
        return self


class MethodEntry(Model):
    """A row of a suite: a method with parameters, and a label for the tables."""

    method: str
    params: dict[str, Any] = {}
    label: str | None = None


class EvaluatorEntry(Model):
    """A way to score a panel (`panelbench.evaluators`), with parameters.

    With `methods` (ids), `ks` or `seeds`, only these are scored in this way: a picture needs one
    seed.
    """

    evaluator: str
    params: dict[str, Any] = {}
    methods: tuple[str, ...] | None = None
    ks: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class DatasetEntry(Model):
    """A data set of a suite, with what this suite does differently."""

    dataset: str
    tasks: tuple[str, ...] | None = None
    recipe: tuple[RecipeStep, ...] | None = None
    split: SplitSpec | None = None


NoiseVariant = Literal["both", "select"]


class NoiseLevel(NamedTuple):
    """A fraction of noisy training labels, and whether the classifier sees the noise too."""

    fraction: float = 0.0
    variant: NoiseVariant = "both"

    @property
    def label(self) -> str:
        """How tables name it."""
        if not self.fraction:
            return "no noise"
        return f"{self.fraction:.0%} noise" + (", selection only" * (self.variant == "select"))

    @property
    def seen_by(self) -> str:
        """The variant; "" without noise."""
        return self.variant if self.fraction else ""


CLEAN = NoiseLevel()
"""Labels as they are."""


class NoiseSpec(Model):
    """Label noise: these fractions of the training labels are redrawn uniformly from all classes.

    With ``both`` the downstream classifier trains on the noisy labels too; with ``select`` only
    the selection does. Test labels are always clean. One value may stand for a list of one.
    """

    fractions: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1)], ...], _ONE_OR_MORE, Field(min_length=1)
    ]
    variants: Annotated[tuple[NoiseVariant, ...], _ONE_OR_MORE, Field(min_length=1)] = ("both",)

    @property
    def levels(self) -> tuple[NoiseLevel, ...]:
        """All levels; without noise the variants are the same."""
        pairs = (NoiseLevel(f, v) if f else CLEAN for v in self.variants for f in self.fractions)
        return tuple(dict.fromkeys(pairs))


class TableSpec(Model):
    """A table of the report: methods in rows, the varying parts in columns.

    With `by_class`, classes are in rows too (metrics of reconstructed expression). Give `datasets`,
    `tasks`, `ks`, `evaluators` or `metrics` to restrict it; everything of the suite is shown
    otherwise.
    """

    name: Name
    title: str = ""
    metrics: tuple[str, ...] = ("f1_macro",)
    datasets: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    evaluators: tuple[str, ...] | None = None
    n_models: bool = False
    by_class: bool = False


class FigureSpec(Model):
    """A figure of the report.

    kind
        ``metric-by-k``: a metric against the panel size. ``metric-by-noise``: against the
        fraction of noisy labels. ``confusion``: confusion matrices side by side. ``umap``:
        test cells by the panel's genes (needs the evaluator ``umap``). ``reconstruction``:
        gene variances and principal components of reconstructed cells (needs
        ``builtin-reconstruct``).
    methods
        Methods to draw, by id or with parameters as in the tables' CSV; all otherwise.
    ks
        Panel sizes to draw; all otherwise.
    """

    name: Name
    kind: Literal["metric-by-k", "metric-by-noise", "confusion", "umap", "reconstruction"] = (
        "metric-by-k"
    )
    title: str = ""
    metric: str = "f1_macro"
    datasets: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    evaluators: tuple[str, ...] | None = None


class Limits(Model):
    """Limits of one run: ``time: 10m`` and ``memory: 8G``, or seconds and bytes.

    None means what the method declares; options of the command line come first.
    """

    time: Annotated[float, BeforeValidator(lambda v: _read(seconds, v)), Field(gt=0)] | None = None
    memory: Annotated[int, BeforeValidator(lambda v: _read(size, v)), Field(gt=0)] | None = None


def _read(parse: Callable[[str], float], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _entry(key: str) -> Any:
    def convert(value: Any) -> Any:
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(convert)


class SuiteSpec(Model):
    """A grid of runs and the tables and figures that show them."""

    name: Name
    title: str = ""
    description: str = ""
    datasets: tuple[Annotated[DatasetEntry, _entry("dataset")], ...] = Field(min_length=1)
    methods: tuple[Annotated[MethodEntry, _entry("method")], ...] = Field(min_length=1)
    ks: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    evaluators: tuple[Annotated[EvaluatorEntry, _entry("evaluator")], ...] = (
        EvaluatorEntry(evaluator="rf"),
    )
    noise: NoiseSpec | None = None
    limits: Limits = Limits()
    tables: tuple[TableSpec, ...] = ()
    figures: tuple[FigureSpec, ...] = ()

    @property
    def noise_levels(self) -> tuple[NoiseLevel, ...]:
        """Levels of label noise, `CLEAN` alone by default."""
        return self.noise.levels if self.noise else (CLEAN,)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate data against a model.

    Raises
    ------
    ConfigError
        Naming the place (`where`), the key, what is wrong and the keys that exist.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        # A list whose only item is wrong is called too short as well: say the cause only.
        causes = [item["loc"] for item in items if item["type"] != "too_short"]
        lines = [
            _explain(model, item)
            for item in items
            if item["type"] != "too_short"
            or not any(cause[: len(item["loc"])] == item["loc"] for cause in causes)
        ]
        raise ConfigError(f"{where}: " + "; ".join(dict.fromkeys(lines))) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    import difflib

    path = ".".join(str(part) for part in item["loc"]) or "top level"
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        known = _fields_at(model, item["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {path!r} ({hint})"
    if item["type"] == "missing":
        return f"key {path!r} is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{path}: {message[:1].lower() + message[1:]} (found {item['input']!r:.60})"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the model that a location inside `model` points to."""
    current: Any = model
    for part in loc:
        if isinstance(part, int) or not hasattr(current, "model_fields"):
            continue
        info = current.model_fields.get(part)
        if info is None:
            break
        found = re.findall(r"(\w+)(?=[\],|)\s]|$)", str(info.annotation))
        models = [globals()[n] for n in found if isinstance(globals().get(n), type)]
        models = [m for m in models if issubclass(m, BaseModel)]
        current = models[0] if models else None
    return sorted(current.model_fields) if hasattr(current, "model_fields") else []


# The loader in C is ten times faster and just as safe; not every build of PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises
    ------
    ConfigError
        When it is missing or not YAML, with the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
