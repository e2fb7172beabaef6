"""Papers: the suites that make a paper's tables and figures, and which is which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from panelbench.schema import Model, Name
from panelbench.suite import named


class PaperItem(Model):
    """A table or a figure of a paper: its label there, and where a suite has it."""

    label: Annotated[str, Field(min_length=1)]
    suite: str
    table: str | None = None
    figure: str | None = None

    @model_validator(mode="after")
    def _one(self) -> PaperItem:
        if (self.table is None) == (self.figure is None):
            raise ValueError(f"{self.label}: give either 'table' or 'figure'")
        return self

    @property
    def name(self) -> str:
        """Name of its files, as ``table-2``."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")


class PaperSpec(Model):
    """A paper.

    suites
        Names of suites that ship, or YAML files beside that of the paper.
    items
        Its tables and figures, in its order; without any, all of its suites.
    minutes
        Minutes of one selection on one core, by suite and method.
    scoring
        Minutes of one evaluation, by evaluator.
    gpu
        How many times faster methods that can use a GPU are on one.
    """

    name: Name
    title: str = ""
    citation: str = ""
    suites: Annotated[tuple[str, ...], Field(min_length=1)]
    items: tuple[PaperItem, ...] = ()
    minutes: dict[str, dict[str, float]] = Field(default_factory=dict)
    scoring: dict[str, float] = Field(default_factory=dict)
    gpu: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> PaperSpec:
        names = [item.name for item in self.items]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two items have the files {name!r}")
        for item in self.items:
            if item.suite not in self.suites:
                raise ValueError(f"{item.label}: suite {item.suite!r} is none of the paper's")
        return self


_SHIPPED = "panelbench.suite.shipped.papers"


def paper_names() -> list[str]:
    """Names of the papers that ship with panelbench."""
    return named.names(_SHIPPED)


def load_paper(name: str) -> PaperSpec:
    """Load a paper by name, or from a YAML file; see `named.load`."""
    return named.load(PaperSpec, "paper", name, _SHIPPED)


def suite_of(paper: str, suite: str) -> str:
    """What to load a paper's suite by: its name, or the path of a file beside the paper's."""
    beside = Path(paper).parent / suite
    return str(beside) if Path(suite).suffix in (".yaml", ".yml") else suite
