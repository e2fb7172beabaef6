"""How a run ended, or where it stands: one word each, with everything that hangs on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

Counts = Literal["done", "beside", "open"]
"""What a status means for a command's exit code: done, not to be counted, or not done."""


class Status(StrEnum):
    """A word for the end of an attempt, or for where a run stands.

    Attributes
    ----------
    recorded
        It is the end of an attempt and stands in records; the others are found by looking.
    redone
        The next call does such a run again without being asked. What the machine did to a run
        is no result of the method, so it is never left as one.
    counts
        For the exit code, see `exit_code`.
    colour
        On a terminal.
    """

    recorded: bool
    redone: bool
    counts: Counts
    colour: str

    OK = "ok", True, False, "done", "green"
    FAILED = "failed", True, False, "open", "red"
    TIMEOUT = "timeout", True, False, "open", "red"
    OOM = "oom", True, False, "open", "red"
    SKIPPED = "skipped", True, False, "beside", "yellow"
    LOST = "lost", True, True, "open", "red"
    FAULT = "fault", True, True, "open", "red"

    DONE = "done", False, False, "done", "green"
    TO_DO = "to do", False, True, "open", "cyan"
    STALE = "stale", False, True, "open", "cyan"
    RUNNING = "running", False, False, "open", "blue"
    WAITING = "waiting", False, False, "open", "cyan"
    NO_DATA = "no data", False, False, "open", "yellow"
    MISSING = "missing", False, False, "open", "yellow"

    def __new__(
        cls, word: str, recorded: bool, redone: bool, counts: Counts, colour: str
    ) -> Status:
        """Make a member: a text with attributes."""
        status = str.__new__(cls, word)
        status._value_ = word
        status.recorded, status.redone = recorded, redone
        status.counts, status.colour = counts, colour
        return status


RECORDED = tuple(status for status in Status if status.recorded)
"""Statuses of records."""
RETRIED = tuple(status for status in RECORDED if status.counts != "done" and not status.redone)
"""Statuses of records that are done again only when asked for."""


def exit_code(statuses: Iterable[Status]) -> int:
    """0 when every run is done, 3 when some are, 1 when none is.

    A run that makes no sense (skipped) does not count, unless there is no other; one whose data
    are not available does.
    """
    counts = Counter(status.counts for status in statuses)
    if not counts or counts.keys() == {"done"}:
        return 0
    if not counts["done"]:
        return 1
    return 3 if counts["open"] else 0


_BY_WORD = {status.value: status for status in Status}


def status_of(word: object) -> Status:
    """The status that a word stands for.

    Raises
    ------
    ValueError
        When there is no such status.
    """
    if not isinstance(word, str) or word not in _BY_WORD:
        raise ValueError(f"there is no status {word!r}")
    return _BY_WORD[word]
