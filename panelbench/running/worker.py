"""A worker: one process that has the libraries loaded and forks a child for every run.

Started by `supervisor` as ``python -m panelbench.running.worker PARENT``. It reads one order per
line from its standard input, forks, and answers on its standard output (see `jobs`). The child
leads a process group of its own; worker and child end when the process that gave the order is
gone, and what a run leaves behind is stopped, also what it put into sessions of its own.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from panelbench.errors import Fault, InputError, NotApplicable, PanelbenchError
from panelbench.records.status import Status
from panelbench.running import processes
from panelbench.running.jobs import (
    MESSAGE,
    Done,
    Exited,
    Order,
    PrepareJob,
    Progress,
    Reply,
    RunJob,
    Started,
    decode_order,
    encode_reply,
)
from panelbench.running.preload import USED_BY_ALL, import_libraries, read_code

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from panelbench.records.store import Record, Store
    from panelbench.stages.toolbox import Measured, Toolbox

_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE}
"""Errors of the system that say something about the machine, not about the method."""


Send = Callable[[Reply], None]


# -- in the process of a run ---------------------------------------------------------------


def do_run(order: Order, job: RunJob, cells: list[AnnData], send: Send) -> Done:
    """Do a selection or an evaluation in this process and write its record."""
    from panelbench.records.store import Store, now

    started = now()
    outside: dict[str, object] = dict(vars(job.resources))
    status, reason, measured = Status.OK, "", None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            measured, outside["from_cache"] = _measure(order, job, cells, send)
        # Whatever a method raises is a result of the run, and is recorded as such.
        except BaseException as error:
            status, reason = classify(error)
    texts = dict.fromkeys(f"{w.category.__name__}: {w.message}"[:300] for w in caught)
    record = job.record(
        status,
        reason,
        result=measured.result if measured else {},
        cost=measured.cost if measured else {},
        outside=outside | {"printed": _printed(order.log)},
        environment=_environment(job),
        warnings=tuple(texts)[:20],
        started=started,
        ended=now(),
    )
    cached = bool(outside.get("from_cache"))
    try:
        Store(job.results).write(record, measured.arrays if measured else None)
    except OSError as error:
        return Done(Status.FAULT, f"its record cannot be written: {error}"[:MESSAGE])
    return Done(status, reason[:MESSAGE], recorded=True, cached=cached)


def _measure(order: Order, job: RunJob, cells: list[AnnData], send: Send) -> tuple[Measured, bool]:
    """Do the stage's work unless the stage cache has its result."""
    from panelbench.records.cache import Entry, StageCache
    from panelbench.stages.toolbox import Measured

    _check_code(job)
    cache = StageCache(job.cache)
    hit = (job.stage, job.cache_key) in cache
    tools = _toolbox(order, job, cells, send)

    def compute() -> Entry:
        done = _stage(job, tools)
        return Entry({"result": done.result, "cost": done.cost}, done.arrays)

    entry = cache.get(job.stage, job.cache_key, compute)
    return Measured(entry.facts["result"], dict(entry.arrays), entry.facts["cost"]), hit


def _stage(job: RunJob, tools: Toolbox) -> Measured:
    from panelbench.stages.evaluation import score_panel
    from panelbench.stages.questions import SelectQuestion
    from panelbench.stages.selection import select_panel

    if isinstance(job.question, SelectQuestion):
        return select_panel(job.question, tools)
    return score_panel(job.question, tools)


def _toolbox(order: Order, job: RunJob, cells: list[AnnData], send: Send) -> Toolbox:
    from panelbench.records.store import Store
    from panelbench.stages.toolbox import Toolbox

    tools = Toolbox(
        spec=job.spec,
        cells=cells,
        cache=job.cache,
        n_jobs=job.resources.n_jobs,
        device=job.resources.device,
        memory_limit=job.resources.memory_limit,
        scratch=order.scratch,
        methods_dirs=job.methods_dirs,
        evaluators_dirs=job.evaluators_dirs,
        send=lambda fraction, message: send(Progress(fraction, message)),
    )
    if job.selection is not None:
        store, wanted = Store(job.results), job.selection
        found = [r for r in store.attempts(wanted.address) if r.attempt == wanted.attempt]
        if not found:
            raise Fault("the record of its selection is not there any more")
        tools.selection = found[0]
        tools.arrays = lambda: _arrays(store, found[0])
    return tools


def _arrays(store: Store, record: Record) -> dict[str, np.ndarray]:
    """Arrays of a selection; a file that is damaged or gone is the machine's doing."""
    try:
        return store.arrays(record)
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise Fault(
            f"the predictor of its selection cannot be read ({error}): "
            f"`panelbench clean runs --method {record.address.method}`, and select again; the file "
            f"is {store.arrays_path(record)}"
        ) from None


def _check_code(job: RunJob) -> None:
    """Stop when the code at hand is not the code that was planned."""
    from panelbench.records.code import code_digest
    from panelbench.registry import discover, discover_evaluators
    from panelbench.stages.questions import SelectQuestion

    found = {module: code_digest(module) for module in job.code}
    planned = dict(job.code)
    question = job.question
    if isinstance(question, SelectQuestion):
        name = f"method {question.method}"
        found[name] = discover(job.methods_dirs).source_digest(question.method)
    else:
        name = f"evaluator {question.evaluator}"
        evaluators = discover_evaluators(job.evaluators_dirs)
        found[name] = evaluators.source_digest(question.evaluator)
    planned[name] = job.identity["source"]
    for name, code in planned.items():
        if found[name] != code:
            raise Fault(f"the code of {name} was changed after the run was planned; run again")


def _environment(job: RunJob) -> dict[str, object]:
    from panelbench.records.provenance import environment

    return environment(job.identity.get("libraries", ()))


def _printed(log: Path) -> str:
    """The end of what a run printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip()[-MESSAGE:]
    except OSError:
        return ""


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and reason of a run that ended in an exception."""
    if isinstance(error, NotApplicable):
        return Status.SKIPPED, str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Status.OOM, f"{type(error).__name__}: {error}"[:MESSAGE]
    if isinstance(error, Fault):
        return Status.FAULT, str(error)
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return Status.FAULT, f"{error.strerror}: {error.filename or 'while writing'}"
    if isinstance(error, PanelbenchError):
        return Status.FAILED, str(error)
    tail = traceback.format_exception(error)[-6:]
    return Status.FAILED, f"{type(error).__name__}: {error}\n{''.join(tail)}"[:MESSAGE]


def do_prepare(job: PrepareJob, cells: list[AnnData], send: Send) -> Done:
    """Prepare a data set and its folds; nothing is recorded but the facts."""
    from panelbench.records.cache import Entry, StageCache
    from panelbench.records.files import write_atomically
    from panelbench.stages.preprocess import prepare
    from panelbench.stages.toolbox import Toolbox

    try:
        cache = StageCache(job.cache)

        def say(done: float, text: str) -> None:
            send(Progress(done, text))

        def compute() -> Entry:
            send(Progress(0.1, "reading"))
            return Entry(prepare(job.spec, job.prepared, job.downloads, job.mirrors, say))

        cached = ("prepare", job.prepared.stem) in cache and job.prepared.exists()
        # The matrix may have been deleted, and the cache's entry not.
        entry = cache.get("prepare", job.prepared.stem, compute) if cached else compute()
        if not cached:
            cache.get("prepare", job.prepared.stem, lambda: entry)
        missing = {key: seed for key, seed in job.folds.items() if ("fold", key) not in cache}
        if missing:
            cells[:] = [_load(job.prepared)]
        for key, seed in missing.items():
            Toolbox(job.spec, cells, job.cache).fold(key, seed)
        write_atomically(job.facts, json.dumps(entry.facts, sort_keys=True, indent=1))
        return Done(Status.OK, cached=cached and not missing)
    except InputError as error:
        return Done(Status.NO_DATA, str(error)[:MESSAGE])
    except BaseException as error:
        status, reason = classify(error)
        return Done(status, reason[:MESSAGE])


def _load(path: Path) -> AnnData:
    """Read a prepared file; one that is damaged or gone is the machine's doing."""
    from panelbench.errors import DataError
    from panelbench.stages.prepared import load

    try:
        return load(path)
    except DataError as error:
        raise Fault(str(error)) from None


# -- the processes -------------------------------------------------------------------------


def _child(order: Order, held: _Held, protocol: int, worker: int) -> None:
    """Life of a forked child; it never returns into the worker's loop."""

    def send(reply: Reply) -> None:
        # A method may have closed every descriptor; the record counts, not the word of it.
        with contextlib.suppress(OSError):
            os.write(protocol, encode_reply(reply))

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    processes.die_with_parent(worker)
    send(Started(os.getpid()))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if isinstance(order.job, PrepareJob):
        send(do_prepare(order.job, held.cells, send))
    elif held.problem:
        send(Done(Status.FAULT, held.problem[:MESSAGE], damaged=True))
    else:
        send(do_run(order, order.job, held.cells, send))


class _Held:
    """The prepared data set that was used last, kept for the next runs on it."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.cells: list[AnnData] = []
        self.problem = ""

    def drop(self) -> None:
        self.path, self.cells, self.problem = None, [], ""

    def read(self, path: Path) -> None:
        if path == self.path and not self.problem:
            return
        self.drop()
        try:
            # A list: a child that lets go of the data set must hold no other reference.
            self.cells = [_load(path)]
            self.path = path
        except (Fault, MemoryError) as error:
            self.problem = str(error) or "the machine has no memory left for the prepared data"


def serve(parent: int) -> None:
    """Read orders, fork a child for each, wait for it."""
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, _stop)
    processes.die_with_parent(parent, signal.SIGTERM)
    protocol = os.dup(1)
    os.dup2(2, 1)
    import_libraries(USED_BY_ALL)
    # What ships only: a module of the user's may do anything when it is imported.
    registry = importlib.import_module("panelbench.registry")
    registry.discover()
    registry.discover_evaluators()
    held = _Held()
    gc.freeze()
    for line in sys.stdin.buffer:
        order = decode_order(line)
        if import_libraries(order.job.preload):
            # Frozen objects are not looked at by the children's garbage collections, which would
            # copy their pages; the data set must not be frozen, since children let go of it.
            held.drop()
            gc.collect()
            gc.freeze()
        if isinstance(order.job, RunJob):
            held.read(order.job.prepared)
        else:
            held.drop()
        if isinstance(order.job, RunJob):
            read_code(order.job)
        kills, worker = processes.kernel_kills(), os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(order, held, protocol, worker)
                code = 0
            finally:
                # Python's own shutdown would run the worker's exit handlers.
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        processes.stop_descendants(worker)
        _reap()
        ran_out = processes.kernel_kills() > kills
        os.write(protocol, encode_reply(Exited(os.waitstatus_to_exitcode(status), ran_out)))


def _reap() -> None:
    """Take note of the ends of adopted processes, so that no zombies are left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _stop(*_: object) -> None:
    processes.stop_descendants(os.getpid())
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
