"""What threads are at: it can be stopped, and its end waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


class UnderWay:
    """Counts what threads have begun and not ended."""

    def __init__(self) -> None:
        self._count, self._stopped = 0, False
        self._changed = threading.Condition()

    def do(self, one: Callable[[T], U], item: T) -> U | None:
        """Apply a function to an item, unless all was stopped before."""
        with self._changed:
            if self._stopped:
                return None
            self._count += 1
        try:
            return one(item)
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._stopped = True

    def wait(self, seconds: float) -> None:
        """Wait for the end of what has begun, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, seconds)
