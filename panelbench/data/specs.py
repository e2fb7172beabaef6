"""Models of data sets: files, recipe, tasks, split; what `datasets.yaml` holds."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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
    own: data sets made from the same files share them.
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
