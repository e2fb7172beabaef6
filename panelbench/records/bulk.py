"""Many objects at once: records, runs, lines."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many_objects() -> Iterator[None]:
    """Put off the search for cycles among objects while a block makes hundreds of thousands.

    None of them is garbage, and looking through all of them again and again takes up to a third
    of the time of a command.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def left_out() -> Iterator[None]:
    """Leave what there is out of that search while a block makes cycles of its own."""
    was = gc.isenabled()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
        if not was:
            gc.disable()
