"""Models of suites: the grid of runs, and the tables and figures that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from panelbench.data.specs import RecipeStep, SplitSpec
from panelbench.errors import ConfigError
from panelbench.schema import Model, Name
from panelbench.stages.constraints import Constraints
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

    Give `datasets`, `tasks`, `ks`, `evaluators` or `metrics` to restrict it; everything of the
    suite is shown otherwise.

    kind
        ``metrics``; ``ways``: all of `metrics` by all evaluators side by side, with mean ranks;
        ``agreement``: how these agree on the methods; or ``properties``: what the methods declare,
        in the columns of the YOTO paper's Table 1.
    own_only
        Of a method whose own predictor is scored, only that row: as in the YOTO paper, no
        classifier is trained on its panel.
    n_models
        A last column with the number of models fitted per data set, k and seed.
    by_class
        Classes are in rows too (metrics of reconstructed expression).
    published
        Number of the paper's table whose numbers are shown beside these.
    minus
        A method by id: cells are differences to its scores, seed by seed.
    """

    name: Name
    title: str = ""
    kind: Literal["metrics", "ways", "agreement", "properties"] = "metrics"
    metrics: tuple[str, ...] = ("f1_macro",)
    datasets: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    evaluators: tuple[str, ...] | None = None
    n_models: bool = False
    by_class: bool = False
    minus: str | None = None
    own_only: bool = False
    published: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        """Metrics that it shows."""
        return self.metrics

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
        ``builtin-reconstruct``). ``metric-bars``: `metrics` side by side, a bar per method, at
        the largest k. ``label-distribution``: cells per class and how many classes hold 90%.
        ``training``: the training curve called `curve`, a line per run.
    own_only
        As of a table.
    methods
        Methods to draw, by id or with parameters as in the tables' CSV; all otherwise.
    ks
        Panel sizes to draw; all otherwise.
    """

    name: Name
    kind: Literal[
        "metric-by-k", "metric-by-noise", "metric-by-auxiliary", "metric-bars", "confusion",
        "umap", "reconstruction", "label-distribution", "training",
    ] = "metric-by-k"  # fmt: skip
    title: str = ""
    metric: str = "f1_macro"
    metrics: tuple[str, ...] = ()
    curve: str = ""
    datasets: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    ks: tuple[int, ...] | None = None
    evaluators: tuple[str, ...] | None = None
    own_only: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """Metrics that it shows."""
        return self.metrics or (self.metric,)


class Limits(Model):
    """Limits of one run: ``time: 10m`` and ``memory: 8G``, or seconds and bytes.

    None means what the method declares; options of the command line come first.
    """

    time: Annotated[float, BeforeValidator(lambda v: _read(seconds, v)), Field(gt=0)] | None = None
    memory: Annotated[int, BeforeValidator(lambda v: _read(size, v)), Field(gt=0)] | None = None


class Needs(Model):
    """What runs of a method, or scored by an evaluator, need: ``{memory: 1G, usual: 5s}``.

    time, memory
        Limits of one run.
    cores, gpus
        Of one run; a job on a cluster asks for as many.
    usual
        How long one run usually takes; short ones share a job.
    """

    time: Annotated[float, BeforeValidator(lambda v: _read(seconds, v)), Field(gt=0)] | None = None
    memory: Annotated[int, BeforeValidator(lambda v: _read(size, v)), Field(gt=0)] | None = None
    cores: Annotated[int, Field(gt=0)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    usual: Annotated[float, BeforeValidator(lambda v: _read(seconds, v)), Field(gt=0)] | None = None


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
    """A grid of runs and the tables and figures that show them.

    `incomplete` says what ranks over all columns do where a method has no score in some: nothing
    is ranked, such columns are left out, or such methods are. `max_cells` is the most training
    cells of a split, for methods and classifiers alike; a data set may have its own.
    """

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
    constraints: Constraints | None = None
    max_cells: Annotated[int, Field(ge=2)] | None = None
    limits: Limits = Limits()
    needs: dict[str, Needs] = Field(default_factory=dict)
    tables: tuple[TableSpec, ...] = ()
    figures: tuple[FigureSpec, ...] = ()
    incomplete: Literal["refuse", "drop-columns", "drop-methods"] = "refuse"

    @property
    def noise_levels(self) -> tuple[NoiseLevel, ...]:
        """Levels of label noise, `CLEAN` alone by default."""
        return self.noise.levels if self.noise else (CLEAN,)
