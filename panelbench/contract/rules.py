"""What a rule of a contract is, and how one is tried.

A rule is a function of a trial (`MethodTrial`, `EvaluatorTrial`): its docstring says what is asked
for, and it raises when that is not kept.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from panelbench.errors import NotApplicable, PanelbenchError
from panelbench.records.keys import library_versions

Verdict = Literal["passed", "failed", "not asked"]


class Breach(Exception):
    """A rule that is not kept; the message says what was seen."""


class NotAsked(Exception):
    """A rule that does not concern what is tried, with the reason."""


def demand(kept: object, why: str) -> None:
    """Raise `Breach` unless something holds."""
    if not kept:
        raise Breach(why)


@dataclass(frozen=True)
class Outcome:
    """How one rule was kept.

    Attributes
    ----------
    rule
        Its name, for example ``same_seed_same_ranking``.
    asks
        What it asks for, in a sentence.
    verdict
        ``passed``, ``failed`` or ``not asked``.
    why
        What was seen, or why it is not asked; empty when passed.
    """

    rule: str
    asks: str
    verdict: Verdict
    why: str = ""


class Trial(Protocol):
    """What a set of rules is applied to."""

    @property
    def files(self) -> Iterable[str]:
        """Files of the code that is tried."""
        ...

    @property
    def hindrance(self) -> str:
        """Why nothing can be tried on this machine; empty when all can."""
        ...


T = TypeVar("T", bound=Trial)


class Rules(dict[str, Callable[[T], None]], Generic[T]):
    """Rules by name, in the order in which they are tried."""

    def rule(self, function: Callable[[T], None]) -> Callable[[T], None]:
        """Add a rule (decorator)."""
        self[function.__name__] = function
        return function

    def examine(self, trial: T) -> Iterator[Outcome]:
        """Try all rules, yielding each outcome as soon as it is known."""
        if trial.hindrance:
            yield Outcome("can_be_tried", "It can run here.", "failed", trial.hindrance)
            return
        for name in self:
            yield self.outcome(name, trial)

    def outcome(self, name: str, trial: T) -> Outcome:
        """Try one rule.

        What the code that is tried prints goes to standard error, and its warnings nowhere.
        """
        function = self[name]
        asks = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        return Outcome(name, asks, *_verdict(function, trial))


def _verdict(function: Callable[[T], None], trial: T) -> tuple[Verdict, str]:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            function(trial)
    except NotAsked as reason:
        return "not asked", str(reason)
    except NotApplicable as error:
        return "failed", f"declines the data of this rule: {error}"
    except (Breach, PanelbenchError) as error:
        return "failed", str(error)
    # Code of others may raise anything, SystemExit included.
    except (Exception, SystemExit) as error:
        return "failed", f"raised {type(error).__name__}: {error}{_place(error, trial.files)}"
    return "passed", ""


def _place(error: BaseException, files: Iterable[str]) -> str:
    """Where an error was raised: the last line of the code that is tried, if it has part in it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in set(files)]
    frame = (own or frames)[-1]
    return f" ({frame.filename}, line {frame.lineno})"


def lacking(libraries: Iterable[str]) -> str:
    """What to do about declared libraries that are not installed; empty when all are."""
    missing = [name for name, found in library_versions(tuple(libraries)).items() if found is None]
    return f"needs {', '.join(missing)}: pip install {' '.join(missing)}" if missing else ""
