"""The stage cache: joblib under explicit keys. It may be deleted at any time.

Entries are arrays and JSON in one ``.npz`` each, never pickles: whoever may write into a shared
cache must not be able to run code as those who read it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import Memory, register_store_backend
from joblib._store_backends import FileSystemStoreBackend

from panelbench.records.files import replacing

if TYPE_CHECKING:
    import numpy as np

FOLDER = "stages"
"""Folder of the entries below the cache folder."""
_FACTS = "facts.json"


@dataclass(frozen=True)
class Entry:
    """What a stage leaves: facts that JSON holds, and arrays of numbers or text."""

    facts: Any = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def _stage(stage: str, key: str, compute: Callable[[], Entry]) -> Entry:
    # joblib decides by the arguments and by this function's own source. The source never
    # changes, so an edit elsewhere cannot wipe entries, and the key says what is stored.
    return compute()


class _Arrays(FileSystemStoreBackend):  # type: ignore[misc]
    """joblib's store in the file system, with ``.npz`` files in the place of pickles."""

    def _file(self, call_id: Any) -> Path:
        return Path(self.location, *call_id, "output.npz")

    def contains_item(self, call_id: Any) -> bool:
        # What was cut short or overwritten is not there: it is computed again, without noise.
        return zipfile.is_zipfile(self._file(call_id))

    def load_item(self, call_id: Any, *_: Any, **__: Any) -> Entry:
        import numpy as np

        with np.load(self._file(call_id), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Entry(json.loads(str(arrays.pop(_FACTS))), arrays)

    def dump_item(self, call_id: Any, item: Entry, *_: Any, **__: Any) -> None:
        import numpy as np

        facts = np.array(json.dumps(item.facts, allow_nan=False))
        with replacing(self._file(call_id), durable=False) as path, path.open("xb") as handle:
            np.savez(handle, allow_pickle=False, **{**item.arrays, _FACTS: facts})


register_store_backend("panelbench", _Arrays)


class StageCache:
    """Results of stages by key.

    Parameters
    ----------
    location
        Folder of the cache; created when something is stored.
    """

    def __init__(self, location: Path) -> None:
        memory = Memory(str(location / FOLDER), backend="panelbench", verbose=0)
        self._cached = memory.cache(_stage, ignore=["compute"])

    def __contains__(self, item: tuple[str, str]) -> bool:
        stage, key = item
        return bool(self._cached.check_call_in_cache(stage, key, None))

    def get(self, stage: str, key: str, compute: Callable[[], Entry]) -> Entry:
        """Return what is stored under a key, computing and storing it if it is not there.

        An entry that cannot be read is computed and stored again.

        Parameters
        ----------
        stage
            Name of the stage.
        key
            Everything that decides the result, as a digest.
        compute
            Called without arguments when nothing is stored.
        """
        found: Entry = self._cached(stage, key, compute)
        return found
