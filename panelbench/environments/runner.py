"""Runs a script's function in the Python of an environment; imports nothing of panelbench.

Started as ``python runner.py SCRIPT FOLDER PARENT``: the content of FOLDER is read, given to the
function ``select`` of the script, and its answer is written beside it. Arrays go as ``.npz``, never
as pickles, all else as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIVEN, ANSWER = "given", "answer"
OUT_OF_MEMORY = 75
"""Exit code of a script that ran out of memory."""
_PARTS = ("data", "indices", "indptr", "shape")


def write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write arrays, CSR matrices and what JSON holds, by their names."""
    facts, arrays = {}, {}
    for key, value in content.items():
        if hasattr(value, "indptr"):
            arrays.update({f"{key}.{part}": getattr(value, part) for part in _PARTS})
        elif hasattr(value, "dtype"):
            arrays[f"{key}.values"] = value
        else:
            facts[key] = value
    if arrays:
        import numpy as np

        np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")


def read(folder: Path, name: str) -> dict[str, Any]:
    """Read what `write` wrote."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    if not (folder / f"{name}.npz").exists():
        return found
    import numpy as np

    with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    for key in arrays:
        stem, _, part = key.rpartition(".")
        if part == "values":
            found[stem] = arrays[key]
        elif part == "indptr":
            from scipy.sparse import csr_matrix

            data, indices, indptr, shape = (arrays[f"{stem}.{part}"] for part in _PARTS)
            found[stem] = csr_matrix((data, indices, indptr), shape=tuple(shape.tolist()))
    return found


def _end_with(parent: int) -> None:
    """Let the kernel end this process when the one that started it ends (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def _main(script: str, place: str, parent: str) -> None:
    _end_with(int(parent))
    # The folder of this file holds modules of the suite: none of them is meant in the script.
    sys.path.pop(0)
    spec = importlib.util.spec_from_file_location("inside", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = Path(place)
    try:
        spec.loader.exec_module(module)
        write(folder, ANSWER, module.select(read(folder, GIVEN)))
    except MemoryError as error:
        print(f"MemoryError: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    _main(*sys.argv[1:])
