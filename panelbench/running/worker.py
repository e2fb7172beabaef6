"""A worker: one process that has the libraries loaded and forks a child for every run.

Started by `supervisor` as ``python -m panelbench.running.worker PARENT``. It reads one order per
line from its standard input, forks, and answers on its standard output (see `jobs`). The child
leads a process group of its own; worker and child end when the process that gave the order is
gone, and what a run leaves behind is stopped, also what it put into sessions of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from panelbench.errors import Fault
from panelbench.records.grant import kernel_kills
from panelbench.records.status import Status
from panelbench.running import processes
from panelbench.running.child import do_group, do_prepare, do_run, load_prepared
from panelbench.running.jobs import (
    MESSAGE,
    Done,
    Exited,
    GroupJob,
    Order,
    PrepareJob,
    Reply,
    Started,
    decode_order,
    encode_reply,
)
from panelbench.running.preload import USED_BY_ALL, import_libraries, read_code

if TYPE_CHECKING:
    from anndata import AnnData


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
    elif isinstance(order.job, GroupJob):
        send(do_group(order, order.job, held.cells, send))
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
            self.cells = [load_prepared(path)]
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
        if isinstance(order.job, PrepareJob):
            held.drop()
        else:
            held.read(order.job.prepared)
            read_code(order.job.first)
        kills, worker = kernel_kills(), os.getpid()
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
        ran_out = kernel_kills() > kills
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
