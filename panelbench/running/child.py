"""What happens in the process of a run: the work, how it ended, the record."""

from __future__ import annotations

import errno
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from panelbench.errors import Fault, InputError, NotApplicable, PanelbenchError
from panelbench.records.status import Status
from panelbench.running.jobs import (
    MESSAGE,
    Done,
    GroupJob,
    Order,
    PrepareJob,
    Progress,
    Reply,
    RunJob,
)

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from panelbench.records.store import Record, Store
    from panelbench.stages.toolbox import Measured, Toolbox

_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE}
"""Errors of the system that say something about the machine, not about the method."""


Send = Callable[[Reply], None]


def do_run(order: Order, job: RunJob, cells: list[AnnData], send: Send) -> Done:
    """Do a selection or an evaluation in this process and write its record."""
    from panelbench.records.times import now

    started = now()
    outside: dict[str, object] = dict(vars(job.resources))
    status, reason, measured = Status.OK, "", None
    with _warned() as warned:
        try:
            measured, outside["from_cache"] = _measure(order, job, cells, send)
        # Whatever a method raises is a result of the run, and is recorded as such.
        except BaseException as error:
            status, reason = classify(error)
    problem = _write(
        job,
        measured,
        status=status,
        reason=reason,
        outside=outside | {"printed": _printed(order.log)},
        warnings=tuple(warned)[:20],
        started=started,
    )
    if problem:
        return Done(Status.FAULT, problem)
    return Done(status, reason[:MESSAGE], recorded=True, cached=bool(outside.get("from_cache")))


def do_group(order: Order, group: GroupJob, cells: list[AnnData], send: Send) -> Done:
    """Do several selections together; those that end well are recorded, others are not.

    What is not recorded is done again in smaller groups, and in the end alone.
    """
    from panelbench.records.cache import Entry, StageCache
    from panelbench.records.times import now
    from panelbench.stages.questions import SelectQuestion
    from panelbench.stages.selection import select_panels

    started = now()
    cache = StageCache(group.first.cache)
    todo = [job for job in group.runs if (job.stage, job.cache_key) not in cache]
    with _warned() as warned:
        try:
            for job in todo:
                _check_code(job)
            tools = _toolbox(order, group.first, cells, send)
            questions = [j.question for j in todo if isinstance(j.question, SelectQuestion)]
            found = select_panels(questions, tools) if todo else []
        except BaseException as error:
            status, reason = classify(error)
            return Done(status, reason[:MESSAGE])
    more = {"printed": _printed(order.log), "from_cache": False}
    for job, measured in zip(todo, found, strict=True):
        if measured is None:
            continue
        entry = Entry({"result": measured.result, "cost": measured.cost}, measured.arrays)
        cache.get(job.stage, job.cache_key, lambda entry=entry: entry)  # type: ignore[misc]
        outside = dict(vars(job.resources)) | more
        problem = _write(
            job, measured, outside=outside, warnings=tuple(warned)[:20], started=started
        )
        if problem:
            return Done(Status.FAULT, problem)
    for job in group.runs:
        if job not in todo:
            do_run(order, job, cells, send)
    return Done(Status.OK, recorded=True)


@contextmanager
def _warned() -> Iterator[list[str]]:
    """Texts of the warnings of a block, each once; complete behind it."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield texts
        texts += dict.fromkeys(f"{w.category.__name__}: {w.message}"[:300] for w in caught)


def _write(
    job: RunJob,
    measured: Measured | None,
    status: Status = Status.OK,
    reason: str = "",
    **more: Any,
) -> str:
    """Write a run's record; why it could not be, if so."""
    from panelbench.records.store import Store
    from panelbench.records.times import now

    record = job.record(
        status,
        reason,
        result=measured.result if measured else {},
        cost=measured.cost if measured else {},
        environment=_environment(job),
        ended=now(),
        **more,
    )
    try:
        Store(job.results).write(record, measured.arrays if measured else None)
    except OSError as error:
        return f"its record cannot be written: {error}"[:MESSAGE]
    return ""


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
    from panelbench.environments.place import Place, environments_folder
    from panelbench.method import Environment
    from panelbench.records.provenance import environment

    found = environment(job.identity.get("libraries", ()))
    declared = job.identity.get("environment")
    if declared is not None:
        own = Environment(tuple(declared["requirements"]), declared["python"])
        facts = Place(environments_folder(job.cache), own).facts()
        found["own"] = {name: facts.get(name) for name in ("python", "distributions")}
    return found


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
            cells[:] = [load_prepared(job.prepared)]
        for key, seed in missing.items():
            Toolbox(job.spec, cells, job.cache).fold(key, seed)
        write_atomically(job.facts, json.dumps(entry.facts, sort_keys=True, indent=1))
        return Done(Status.OK, cached=cached and not missing)
    except InputError as error:
        return Done(Status.NO_DATA, str(error)[:MESSAGE])
    except BaseException as error:
        status, reason = classify(error)
        return Done(status, reason[:MESSAGE])


def load_prepared(path: Path) -> AnnData:
    """Read a prepared file; one that is damaged or gone is the machine's doing."""
    from panelbench.errors import DataError
    from panelbench.stages.prepared import load

    try:
        return load(path)
    except DataError as error:
        raise Fault(str(error)) from None
