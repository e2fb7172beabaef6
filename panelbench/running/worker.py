"""A worker: one process that has the libraries loaded and forks a child for every run.

Started by `execute` as ``python -m panelbench.running.worker``. It reads one job per line from its
standard input, forks, and answers on its standard output, in JSON lines: ``started`` (process
number of the child), ``progress`` and ``done`` (from the child), ``exited`` (status). The child
leads a process group of its own, so that it can be stopped with everything it started; it stops
itself when the process that gave the job is gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.errors import InputError, NotApplicable, PanelbenchError
from panelbench.stages.toolbox import Measured, Toolbox

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData


_PRELOAD = (
    "numpy",
    "scipy.sparse",
    "pandas",
    "anndata",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.neighbors",
    "panelbench.stages.evaluation",
    "panelbench.stages.fold",
    "panelbench.stages.preprocess",
    "panelbench.stages.selection",
)
_IMPORT_NAMES = {"scikit-learn": "sklearn", "mrmr-selection": "mrmr", "scikit-misc": "skmisc",
                 "scvi-tools": "scvi"}  # fmt: skip
_MESSAGE = 2000
"""Characters of a reason that are kept; a message must fit into one write to a pipe."""


def perform(job: Mapping[str, Any], tools: Toolbox) -> dict[str, Any]:
    """Do a job of any stage in this process and write its record; return the outcome."""
    if job["stage"] == "prepare":
        return _prepare(job, tools)
    from panelbench.records.store import Address, Record, Store, now

    store = Store(Path(job["results"]))
    address = Address(**job["address"])
    started = now()
    store.begin(address, job["attempt"], job["time_limit"])
    outside = dict(job["outside"])
    status, reason, measured = "ok", "", None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            measured, outside["from_cache"] = _cached(job, tools)
        # Whatever a method raises is a result of the run, and is recorded as such.
        except BaseException as error:
            status, reason = classify(error)
    texts = dict.fromkeys(f"{w.category.__name__}: {w.message}"[:300] for w in caught)
    record = Record(
        stage=job["stage"],
        address=address,
        attempt=job["attempt"],
        slot=job["slot"],
        status=status,
        reason=reason,
        identity=job["identity"],
        asked=job["asked"],
        result=measured.result if measured else {},
        cost=measured.cost if measured else {},
        outside=outside,
        environment=_environment(job),
        warnings=list(texts)[:20],
        started=started,
        ended=now(),
    )
    store.write(record, measured.arrays if measured else None)
    return {"status": status, "reason": reason[:_MESSAGE], "cached": outside.get("from_cache")}


def _environment(job: Mapping[str, Any]) -> dict[str, Any]:
    from panelbench.records.provenance import environment

    return environment(job["identity"].get("libraries", ()))


def _cached(job: Mapping[str, Any], tools: Toolbox) -> tuple[Measured, bool]:
    """Do the stage's work unless the stage cache has its result."""
    from panelbench.records.cache import StageCache

    module = {"select": "panelbench.stages.selection", "evaluate": "panelbench.stages.evaluation"}[
        job["stage"]
    ]
    cache = StageCache(Path(job["cache"]))
    hit = (job["stage"], job["cache_key"]) in cache
    stage = importlib.import_module(module)

    def compute() -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
        done = stage.perform(job, tools)
        return done.result, done.arrays, done.cost

    return Measured(*cache.get(job["stage"], job["cache_key"], compute)), hit


def classify(error: BaseException) -> tuple[str, str]:
    """Status and reason of a run that ended in an exception."""
    if isinstance(error, NotApplicable):
        return "skipped", str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "oom", f"{type(error).__name__}: {error}"[:_MESSAGE]
    if isinstance(error, PanelbenchError):
        return "failed", str(error)
    tail = traceback.format_exception(error)[-6:]
    return "failed", f"{type(error).__name__}: {error}\n{''.join(tail)}"[:_MESSAGE]


def _prepare(job: Mapping[str, Any], tools: Toolbox) -> dict[str, Any]:
    """Prepare a data set and its folds; errors go back as text, nothing is recorded."""
    from panelbench.data.specs import DatasetSpec
    from panelbench.records.cache import StageCache
    from panelbench.records.store import write_atomically
    from panelbench.stages.prepared import load
    from panelbench.stages.preprocess import prepare

    try:
        spec = DatasetSpec.model_validate(job["spec"])
        target, cache = Path(job["prepared"]), StageCache(Path(job["cache"]))
        mirrors = [Path(item) for item in job["mirrors"]]

        def compute() -> dict[str, Any]:
            tools.progress(0.1, "reading")
            return prepare(spec, target, Path(job["downloads"]), mirrors)

        cached = ("prepare", target.stem) in cache and target.exists()
        facts = cache.get("prepare", target.stem, compute)
        if not target.exists():
            # The matrix was deleted and joblib's entry was not.
            facts = compute()
        missing = {s: k for s, k in job["folds"] if ("fold", k) not in cache}
        if missing:
            tools.loaded[:] = [load(target)]
        for seed, key in missing.items():
            folded = Toolbox({**job, "seed": seed, "split_key": key}, tools.loaded, tools.send)
            folded.fold()
        write_atomically(Path(job["facts"]), json.dumps(facts, sort_keys=True, indent=1))
        return {"status": "ok", "reason": "", "cached": cached and not missing}
    except InputError as error:
        return {"status": "input", "reason": str(error)[:_MESSAGE], "cached": False}
    except BaseException as error:
        status, reason = classify(error)
        return {"status": status, "reason": reason[:_MESSAGE], "cached": False}


# -- the processes -------------------------------------------------------------------------


def _child(job: Mapping[str, Any], loaded: list[AnnData], protocol: int) -> None:
    """Life of a forked child; it never returns into the worker's loop."""

    def send(message: dict[str, Any]) -> None:
        os.write(protocol, json.dumps(message).encode() + b"\n")

    os.setsid()
    send({"started": os.getpid()})
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    send({"done": perform(job, Toolbox(job, loaded, send))})


def _die_with_parent(lifeline: int) -> None:
    """Kill this process group when the writing end of a pipe is closed."""
    watch = select.poll()
    watch.register(lifeline, 0)
    watch.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _preload(names: list[str]) -> bool:
    """Import libraries before the fork; what cannot be imported fails in the child, visibly.

    Returns
    -------
    Whether anything new was imported.
    """
    before = len(sys.modules)
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    return len(sys.modules) > before


class _Held:
    """The prepared data set that was used last, kept for the next runs on it."""

    def __init__(self) -> None:
        self.path = ""
        self.cells: list[AnnData] = []

    def drop(self) -> None:
        self.path, self.cells = "", []

    def get(self, path: str) -> list[AnnData]:
        if path != self.path:
            from panelbench.stages.prepared import load

            self.drop()
            self.cells = [load(Path(path))]
            self.path = path
        # The list itself: a child that lets go of the data set must hold no other reference.
        return self.cells


def serve() -> None:
    """Read jobs, fork a child for each, wait for it."""
    protocol = os.dup(1)
    os.dup2(2, 1)
    _preload(list(_PRELOAD))
    # The shipped methods only: a module of the user's may do anything when it is imported.
    importlib.import_module("panelbench.registry").discover()
    held = _Held()
    gc.freeze()
    for line in sys.stdin.buffer:
        job = json.loads(line)
        if _preload(job.get("preload", [])):
            # Frozen objects are not looked at by the children's garbage collections, which would
            # copy their pages; the data set must not be frozen, since children let go of it.
            held.drop()
            gc.collect()
            gc.freeze()
        loaded: list[AnnData] = []
        if job["stage"] != "prepare":
            with contextlib.suppress(Exception):
                loaded = held.get(job["prepared"])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(job, loaded, protocol)
                code = 0
            finally:
                # Python's own shutdown would run the worker's exit handlers.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        del loaded
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os.write(protocol, json.dumps({"exited": code}).encode() + b"\n")


if __name__ == "__main__":
    serve()
