"""The contract of a method: what it declares, what it receives, what it returns.

A method is a function in a module of its own::

    @dataclass(frozen=True)
    class Params:
        relevance: Literal["f", "rf"] = "f"

    @method("mrmr-f", params=Params, label="mRMR-f", supervised=True, needs="lognorm")
    def select(task: Task, params: Params) -> Selection: ...

This module says what is declared, given and returned. Of ``panelbench`` a method imports it and
where needed `ranking` (from scores to a ranking), `errors`, `nn` (what neural methods share) and
`environments` (to run a script in an environment of its own); nothing else, and heavy libraries
(scanpy, torch, pandas) inside functions. The rules that every method keeps are in
``contract/methods.py``; ``panelbench test-method FILE`` tries them.

A parameter that has a range says so in its type, ``epochs: Annotated[int, Ge(1)] = 100``, with
``annotated_types``; a rule between parameters is a ``__post_init__`` that raises `ValueError`.
Both are checked when a run is planned, before anything runs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from panelbench.task import Kind, Matrix, Needs, Target, Task, frozen_mapping, no_progress

__all__ = [
    "Environment",
    "Kind",
    "Matrix",
    "Method",
    "Needs",
    "NoParams",
    "Predictor",
    "Selection",
    "Target",
    "Task",
    "check_declaration",
    "frozen_mapping",
    "method",
    "no_progress",
]


class Predictor(Protocol):
    """A trained predictor that a method returns with its panel (optional).

    Saved as arrays and JSON, never as a pickle: ``load(*predictor.save())`` must predict the
    same.
    """

    genes: Sequence[str]
    """Genes it reads, in the column order of the matrices it is given; none if it reads inputs."""

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """Class probabilities, shape (n_cells, n_classes), columns as `Target.classes`."""
        ...

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Outputs, (n_cells,) or (n_cells, n_outputs); of expression targets the primary ones."""
        ...

    # A method that declares `modes` also offers ``in_mode(name) -> Predictor``: the same
    # trained network read in another way, with `genes` of its own. One that declares
    # `reconstructs` also offers ``reconstruct(X) -> np.ndarray``: expression of all genes of the
    # training cells in their order, shape (n_cells, n_genes), in the representation of `needs`.

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready facts from which `load` rebuilds the predictor."""
        ...

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Predictor:
        """Rebuild a predictor from what `save` returned."""
        ...


@dataclass(frozen=True)
class Selection:
    """What a method returns.

    Attributes
    ----------
    ranking
        Gene names, best first, unique, at least `Task.k` of them. Of expression targets, names of
        outputs.
    scores
        One finite number per ranked gene (optional).
    predictor
        A trained predictor (optional; the method must declare its class).
    info
        Anything worth keeping that JSON can hold: traces, convergence, warnings.
    size
        How many of the ranking make the panel, of a method that declares `sizes_itself`.
    """

    ranking: Sequence[str]
    scores: Sequence[float] | np.ndarray | None = None
    predictor: Predictor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None


@dataclass(frozen=True)
class Environment:
    """A virtual environment of a method's own, for libraries that clash with those of the suite.

    The suite makes it once and keeps it (`panelbench.environments`, which also runs the method's
    script in it).

    Attributes
    ----------
    requirements
        All distributions that it has, dependencies included, as ``pip freeze`` prints them:
        ``name==version``. Nothing else is resolved, so that one list is one environment.
    python
        Version of Python, as ``"3.11"``; the one that runs the suite by default.
    """

    requirements: tuple[str, ...] = ()
    python: str = ""

    def __post_init__(self) -> None:
        for item in self.requirements:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+-]+", item):
                raise ValueError(f"requirement {item!r}: write name==version, as pip freeze does")
        if self.python and not re.fullmatch(r"3\.\d+", self.python):
            raise ValueError(f"python={self.python!r}: write a version as '3.11'")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what it is, JSON-ready; the order of the requirements does not."""
        return {"requirements": sorted(self.requirements), "python": self.python}


@dataclass(frozen=True)
class NoParams:
    """Parameters of a method that has none."""


@dataclass(frozen=True)
class Method:
    """A method's declaration, made by `method`.

    Attributes
    ----------
    id
        Name on the command line: lower case letters, digits and hyphens.
    select
        The function ``(Task, params) -> Selection``.
    module
        Name of the module that declares it.
    params
        Frozen dataclass of parameters; every field has a default.
    label
        Name in tables.
    supervised
        Uses labels.
    multitask
        One selection serves all tasks at once; otherwise one selection per task.
    regression
        Accepts regression targets.
    expression
        Takes expression targets, and no others.
    reads
        What it and its predictor predict from: ``"genes"``, or the cells' ``"inputs"``
        (`Task.inputs`); it is not run where there are none.
    predictor
        Class of the predictor it may return, or None.
    modes
        Ways to read the predictor, each a row of its own in tables; the first is how it predicts
        as returned. Empty when there is only one.
    reconstructs
        The predictor also reconstructs the expression of all genes from those it reads.
    sparse_selection, end_to_end
        Columns of the YOTO paper's Table 1: the selection is exactly sparse; selection and
        prediction are trained together.
    nested
        One ranking serves every k: its first k genes do not depend on the k asked for.
    cut
        The panel is the first k genes of the ranking; False for a control that keeps them all.
    sizes_itself
        The size of the panel is the method's result, `Selection.size`, and not asked for.
    needs
        Representation of `Task.X`: raw counts, log-normalised, binary (0/1) or as prepared.
    gpu
        ``"no"``, ``"optional"`` or ``"required"``.
    deterministic
        The same seed gives the same ranking on the same machine.
    memory_gb, minutes
        Default limits of one run; overridable on the command line.
    version
        Raised by the author when behaviour changes.
    libraries
        Distributions whose versions can change the result; absent ones make a run skipped.
    environment
        Environment of its own in which it runs a script (`Task.python`); the run is not done where
        it has not been made.
    helpers
        Modules outside the method's own whose source belongs to the method.
    together
        ``(tasks, params) -> selections``: answers several runs on one data set at once (other
        seeds, cells, tasks, k), each as it is answered alone, on a CPU to the last bit.
    differ
        Parameters that may differ between them.
    cite, doi
        Paper, as "Authors Year", and its DOI if it has one (``10.1038/nbt.3192``).
    """

    id: str
    select: Callable[[Task, Any], Selection]
    module: str
    params: type = NoParams
    label: str = ""
    supervised: bool = False
    multitask: bool = False
    regression: bool = False
    expression: bool = False
    reads: Literal["genes", "inputs"] = "genes"
    predictor: type[Predictor] | None = None
    modes: tuple[str, ...] = ()
    reconstructs: bool = False
    sparse_selection: bool = True
    end_to_end: bool = False
    nested: bool = True
    cut: bool = True
    sizes_itself: bool = False
    needs: Needs = "prepared"
    gpu: Literal["no", "optional", "required"] = "no"
    deterministic: bool = True
    memory_gb: float = 16.0
    minutes: float = 120.0
    version: int = 1
    libraries: tuple[str, ...] = ()
    environment: Environment | None = None
    helpers: tuple[str, ...] = ()
    together: Callable[[Sequence[Task], Sequence[Any]], Sequence[Selection]] | None = None
    differ: tuple[str, ...] = ()
    cite: str = ""
    doi: str = ""

    def __post_init__(self) -> None:
        check_declaration("method", self.id, self.params)
        if self.expression and (self.multitask or not self.supervised):
            raise ValueError(f"method {self.id}: expression needs supervised, without multitask")
        if not {*self.differ} <= ({f.name for f in dataclass_fields(self.params)}):
            raise ValueError(f"method {self.id}: differ={self.differ} are not all parameters")

    @property
    def doc(self) -> str:
        """First paragraph of the function's docstring."""
        text = (self.select.__doc__ or sys.modules[self.module].__doc__ or "").strip()
        return " ".join(text.split("\n\n")[0].split())


def check_declaration(what: str, id: str, params: type) -> None:
    """Check what methods and evaluators declare alike: an id, and parameters with defaults.

    Raises
    ------
    ValueError
        Naming the declaration.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ValueError(f"{what} id {id!r}: use lower case, digits and single hyphens")
    if not is_dataclass(params) or not params.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"{what} {id}: params must be a frozen dataclass")
    for item in dataclass_fields(params):
        try:
            getattr(params(), item.name)
        except TypeError as error:
            raise ValueError(f"{what} {id}: every parameter needs a default") from error


F = TypeVar("F", bound=Callable[..., Selection])


def method(id: str, **declared: Any) -> Callable[[F], F]:
    """Declare a method; see `Method` for what can be declared.

    The function stays callable as it is. Several declarations may be stacked in one module.
    """

    def register(function: F) -> F:
        module = function.__module__
        spec = Method(id=id, select=function, module=module, **{"label": id, **declared})
        found: dict[str, Method] = vars(sys.modules[module]).setdefault("__methods__", {})
        if id in found:
            raise ValueError(f"method {id!r} is declared twice in {module}")
        found[id] = spec
        return function

    return register
