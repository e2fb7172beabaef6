"""Errors for people: each says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PanelbenchError(Exception):
    """Base of every error that the suite raises on purpose; shown without a traceback."""


class InputError(PanelbenchError):
    """Something the user gave does not fit: an option, a YAML file, a data file (exit code 2)."""


class ConfigError(InputError):
    """A suite, data set catalogue or option that does not validate."""


class DataError(InputError):
    """A data file that is missing, corrupt or holds values the recipe cannot use."""


class UnknownName(ConfigError):
    """A method, data set, suite, task, metric or evaluator that does not exist.

    Parameters
    ----------
    kind
        What was looked up, as a noun: ``"method"``.
    name
        The name that was not found.
    known
        All valid names; the nearest are offered.
    where
        Where the name was read (a file, an option), if known.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)
        place = f" in {where}" if where else ""
        if near:
            hint = "did you mean " + " or ".join(near) + "?"
        elif len(self.known) > 20:
            hint = f"there are {len(self.known)}, among them " + ", ".join(self.known[:12])
        else:
            hint = "there is " + (", ".join(self.known) or "none")
        super().__init__(f"unknown {kind} {name!r}{place}: {hint}")


class MethodError(PanelbenchError):
    """A method broke its contract (rubbish ranking, wrong predictor) or cannot be imported."""


class EvaluatorError(PanelbenchError):
    """An evaluator broke its contract: undeclared or impossible metrics, wrong shapes."""


class NotApplicable(PanelbenchError):
    """A run that makes no sense for this data or machine; recorded as skipped with this reason."""


class Fault(PanelbenchError):
    """What the machine did to a run (a full disk, a damaged file): no result of the method."""
