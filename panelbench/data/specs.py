"""Models of data sets: files, recipe, tasks, split; what `datasets.yaml` holds."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from panelbench.schema import Model, Name

GROUP = "group"
"""Column of a prepared data set with donors, batches or slides."""


PACKAGE = "package:"
"""Beginning of the address of a file that comes with an installed package."""


class SourceFile(Model):
    """A file of a data set: an address to download it from, or a local path.

    `url` begins with ``https://`` or ``http://``, or is ``package:NAME/PATH`` for a file that comes
    with an installed package. `size` is in bytes, within a tenth.
    """

    name: Annotated[str, Field(min_length=1)]
    url: str | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _addressable(self) -> SourceFile:
        if PurePosixPath(self.name).name in {"", ".", ".."}:
            raise ValueError(f"{self.name!r} is not the name of a file")
        if self.url is None:
            return self
        if self.name != PurePosixPath(self.name).name:
            raise ValueError(f"the name of a file with an address has no folders: {self.name!r}")
        if self.url.startswith(PACKAGE):
            package, _, inner = self.url.removeprefix(PACKAGE).partition("/")
            plain = all(part not in {"", ".", ".."} for part in inner.split("/"))
            if not package.isidentifier() or not plain:
                raise ValueError(f"write package:NAME/PATH with a path inside, not {self.url!r}")
        elif not self.url.startswith(("https://", "http://")):
            raise ValueError(f"begin with https://, http:// or package:, not {self.url!r}")
        return self


class TaskSpec(Model):
    """A column of labels or targets to predict, or expression.

    `column` is a column of ``obs`` (classification or one regression output) or, with
    ``kind: regression``, a key of ``obsm`` (several outputs). Classes with fewer than
    `min_cells` cells are dropped: their cells have a missing label for this task.

    With ``kind: expression`` genes are predicted, or with `column` the values of a key of ``obsm``
    (NaN where one is not known for a cell). `primary` outputs are scored: names, or how many to
    take by variability, chosen anew on the training cells of every split. All others may be
    trained on. Outputs found in fewer than `min_cells` training cells are neither, unless named;
    primary ones that are not named are found in this share of them (`found_in`).
    What they are predicted from are the data set's `inputs` or, if given, the expression of the
    genes of `panel`, which are no outputs then.
    """

    name: Name
    column: str | None = None
    kind: Literal["classification", "regression", "expression"] = "classification"
    min_cells: Annotated[int, Field(ge=0)] = 0
    primary: Annotated[int, Field(ge=1)] | tuple[str, ...] = 50
    found_in: Annotated[float, Field(ge=0, lt=1)] = 0.0
    panel: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _of_its_kind(self) -> TaskSpec:
        if self.kind != "expression" and {*_OF_EXPRESSION} & self.model_fields_set:
            raise ValueError(f"{', '.join(_OF_EXPRESSION)} belong to tasks of kind expression")
        for name in ("primary", "panel"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(set(given)) < len(given):
                raise ValueError(f"{name}: every gene only once")
        if self.primary == ():
            raise ValueError("primary: name at least one output, or give their number")
        return self

    @model_serializer(mode="wrap")
    def _as_read(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _used(write(self), () if self.kind == "expression" else _OF_EXPRESSION)

    @property
    def source(self) -> str:
        """Column of ``obs`` (or key of ``obsm``) that holds the labels."""
        return self.column or self.name


_OF_EXPRESSION = ("primary", "found_in", "panel")
"""Fields that only tasks of kind expression read."""


def _used(fields: dict[str, Any], unused: tuple[str, ...]) -> dict[str, Any]:
    """Fields less those that say nothing here: what is not read is in no key."""
    return {name: value for name, value in fields.items() if name not in unused}


class SplitSpec(Model):
    """How cells are divided into training, validation and test cells.

    scheme
        ``holdout``: random cells; ``groups``: whole groups, none on both sides;
        ``leave-one-group-out``: the group numbered by the seed is the test set; ``folds``: the
        cells of every group in equal parts at random, the part numbered by the seed is the test
        set; ``blocks``: the same with tiles of ``obsm["spatial"]`` in the place of cells;
        ``cross``: the cells in `folds` parts of about the same class shares, with `group` whole
        groups; ``all``: every cell is a training cell, for a last panel that nothing scores.
    test, validation
        Fractions of the cells. With ``folds`` and ``blocks`` the test set is one part, and
        `validation` is rounded to whole parts, those that follow it.
    stratify
        Keep the class shares of the first task (``holdout`` and ``cross``).
    group
        Column of ``obs`` with donors, batches or slides.
    min_per_class
        Cells of every class reserved for train, validation and test before the rest is drawn
        at random (MarkerMap's protocol: 2, 1, 1; then `stratify` is off).
    validate_group
        With ``leave-one-group-out`` the next group is the validation set, whatever `validation`.
    rounds
        How often ``leave-one-group-out`` goes through the groups: the seeds of later rounds leave
        out the same groups, with other draws of everything that is drawn.
    folds
        Parts of ``folds``, ``blocks`` and ``cross``; seeds beyond them begin another division at
        random.
    tiles
        Tiles of ``blocks`` along each side of a group.
    """

    scheme: Literal[
        "holdout", "groups", "leave-one-group-out", "folds", "blocks", "cross", "all"
    ] = "holdout"
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stratify: bool = True
    group: str | None = None
    min_per_class: tuple[int, int, int] | None = None
    validate_group: bool = False
    rounds: Annotated[int, Field(ge=1)] = 1
    folds: Annotated[int, Field(ge=2)] = 5
    tiles: Annotated[int, Field(ge=2)] = 4

    @property
    def n_validation(self) -> int:
        """Parts for validation, of schemes with equal parts."""
        return round(self.validation * self.folds)

    @model_validator(mode="after")
    def _consistent(self) -> SplitSpec:
        if self.scheme in ("groups", "leave-one-group-out") and self.group is None:
            raise ValueError(f"scheme {self.scheme!r} needs 'group', the obs column to split by")
        for name, schemes in _OF_SCHEMES.items():
            usual = getattr(self, name) == type(self).model_fields[name].default
            if not usual and self.scheme not in schemes:
                raise ValueError(f"{name} belongs to the scheme {' or '.join(schemes)}")
        if self.scheme in ("folds", "blocks"):
            if self.n_validation > self.folds - 2:
                raise ValueError(f"{self.folds} folds leave none to train on")
            if self.validation and not self.n_validation:
                raise ValueError(f"validation {self.validation}: less than one of {self.folds} "
                                 "folds")  # fmt: skip
            return self
        if self.validation and self.scheme in ("cross", "all"):
            raise ValueError(f"scheme {self.scheme!r} has no validation cells")
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together leave no training cells")
        if self.min_per_class is not None and self.stratify:
            raise ValueError("min_per_class draws the rest at random: set stratify to false")
        return self

    @model_serializer(mode="wrap")
    def _as_read(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # At their defaults they are left out too: splits of before them are called as they were.
        usual = {name: type(self).model_fields[name].default for name in _OF_SCHEMES}
        return _used(write(self), tuple(n for n in usual if getattr(self, n) == usual[n]))


_OF_SCHEMES = {
    "validate_group": ("leave-one-group-out",),
    "rounds": ("leave-one-group-out",),
    "folds": ("folds", "blocks", "cross"),
    "tiles": ("blocks",),
}
"""Fields that only some schemes read."""


class Step(Model):
    """One step of a recipe: its name and options (checked by the step itself)."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


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
    reports say so in its place. `folder` is where its files are downloaded to, if not one of its
    own: data sets made from the same files share them. `max_cells` is the most training cells of a
    split that methods and classifiers are given: a sample by class.
    """

    id: Name
    title: str = ""
    missing: str = ""
    reader: str = ""
    reader_options: dict[str, Any] = Field(default_factory=dict)
    files: tuple[SourceFile, ...] = ()
    folder: Name | None = None
    recipe: tuple[RecipeStep, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    split: SplitSpec = SplitSpec()
    group: str | None = None
    inputs: str | None = None
    max_cells: Annotated[int, Field(ge=2)] | None = None
    markers: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    doi: str = ""
    homepage: str = ""

    @model_validator(mode="after")
    def _readable(self) -> DatasetSpec:
        if bool(self.reader) == bool(self.missing):
            raise ValueError("give either 'reader', or 'missing' (what it lacks so far)")
        return self

    @model_serializer(mode="wrap")
    def _as_read(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _used(write(self), ("max_cells",) if self.max_cells is None else ())
