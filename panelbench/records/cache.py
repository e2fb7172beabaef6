"""The stage cache: joblib under explicit keys. It may be deleted at any time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from joblib import Memory


def _stage(stage: str, key: str, compute: Callable[[], Any]) -> Any:
    # joblib decides by the arguments and by this function's own source. The source never
    # changes, so an edit elsewhere cannot wipe entries, and the key says what is stored.
    return compute()


class StageCache:
    """Results of stages by key.

    Parameters
    ----------
    location
        Folder of the cache; created when something is stored.
    """

    def __init__(self, location: Path) -> None:
        memory = Memory(location, verbose=0)
        self._cached = memory.cache(_stage, ignore=["compute"])

    def __contains__(self, item: tuple[str, str]) -> bool:
        stage, key = item
        return bool(self._cached.check_call_in_cache(stage, key, None))

    def get(self, stage: str, key: str, compute: Callable[[], Any]) -> Any:
        """Return what is stored under a key, computing and storing it if it is not there.

        Parameters
        ----------
        stage
            Name of the stage.
        key
            Everything that decides the result, as a digest.
        compute
            Called without arguments when nothing is stored.
        """
        return self._cached(stage, key, compute)
