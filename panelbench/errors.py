"""Errors for people: each says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names that resemble one that was not found, the nearest first.

    Upper and lower case are the same.
    """
    lowered = {str(item).lower(): str(item) for item in known}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)
    return [lowered[item] for item in found]


def hint(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: ``did you mean ...?``, or what there is."""
    known = [str(item) for item in known]
    if near := near_matches(name, known):
        return "did you mean " + " or ".join(near) + "?"
    if len(known) > 20:
        return f"there are {len(known)}, among them " + ", ".join(known[:12])
    return "there is " + (", ".join(known) or "none")


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
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {kind} {name!r}{place}: {hint(name, self.known)}")


class MethodError(PanelbenchError):
    """A method broke its contract (rubbish ranking, wrong predictor) or cannot be imported."""


class EvaluatorError(PanelbenchError):
    """An evaluator broke its contract: undeclared or impossible metrics, wrong shapes."""


class NotApplicable(PanelbenchError):
    """A run that makes no sense for this data or machine; recorded as skipped with this reason."""


class Fault(PanelbenchError):
    """What the machine did to a run (a full disk, a damaged file): no result of the method."""


class ConstraintError(PanelbenchError):
    """A panel cannot keep to what it was asked to keep to; the message says by how much."""


@contextmanager
def damaged(say: Callable[[Exception], str]) -> Iterator[None]:
    """What a library raises over a file becomes a `DataError`; a lack of memory stays one.

    h5py, anndata, scanpy, scipy and zarr raise a dozen kinds of exceptions for a file that is cut
    off, or is something else; which ones is nowhere said, and changes with their versions.

    Parameters
    ----------
    say
        The message, from what was raised.
    """
    try:
        yield
    except (MemoryError, PanelbenchError):
        raise
    except Exception as error:
        raise DataError(say(error)) from error
