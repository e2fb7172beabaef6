"""Models of suites: the grid of runs, and the tables and figures that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from panelbench.data.specs import RecipeStep, SplitSpec
from panelbench.errors import ConfigError
from panelbench.schema import Model, Name
from panelbench.units import seconds, size

_ONE_OR_MORE = BeforeValidator(lambda v: v if isinstance(v, list | tuple) else (v,))


class MethodEntry(Model):
    """A row of a suite: a method with parameters, and a label for the tables.

    `ks` are its panel sizes where they are not the suite's: a panel that is given has its own.
    """

    method: str
    params: dict[str, Any] = Field(default_factory=dict)
    label: str | None = None
    ks: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] | None = None


class EvaluatorEntry(Model):
    """A way to score a panel (`panelbench.scoring.evaluators`), with parameters.

    With `methods` (ids), `ks` or `seeds`, only these are scored in this way: a picture needs one
    seed.
    """

    evaluator: str
    params: dict[str, Any] = Field(default_factory=dict)
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
    otherwise. With `minus`, a method by id, cells are differences to its scores, seed by seed.
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
    minus: str | None = None

    @property
    def methods(self) -> tuple[str, ...] | None:
        """Methods that it names; they must be in the suite."""
        return None if self.minus is None else (self.minus,)


class FigureSpec(Model):
    """A figure of the report.

    kind
        ``metric-by-k``: a metric against the panel size. ``metric-by-noise``: against the
        fraction of noisy labels. ``metric-by-auxiliary``: of expression targets, against the
        number of genes trained on beside the primary ones. ``confusion``: confusion matrices side
        by side. ``umap``: test cells by the panel's genes (needs the evaluator ``umap``).
        ``reconstruction``: gene variances and principal components of reconstructed cells (needs
        ``builtin-reconstruct``).
    methods
        Methods to draw, by id or with parameters as in the tables' CSV; all otherwise.
    ks
        Panel sizes to draw; all otherwise.
    """

    name: Name
    kind: Literal[
        "metric-by-k",
        "metric-by-noise",
        "metric-by-auxiliary",
        "confusion",
        "umap",
        "reconstruction",
    ] = "metric-by-k"
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
    methods: tuple[Annotated[MethodEntry, _entry("method")], ...] = ()
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
