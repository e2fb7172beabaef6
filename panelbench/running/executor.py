"""Do the runs of a plan that are still to do: pool, limits, records, resume."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from panelbench.records.facts import read_facts
from panelbench.records.provenance import environment
from panelbench.records.store import Record, Store, new_attempt, now, write_atomically
from panelbench.registry import Broken
from panelbench.running.progress import Reporter
from panelbench.running.settings import Settings
from panelbench.running.states import State, States, Summary
from panelbench.running.supervisor import Outcome, Worker
from panelbench.scoring.evaluators import EVALUATORS
from panelbench.stages.panel import panel_digest
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Run, SelectRun

GiB = 1024**3


class Executor:
    """Does runs on a pool of workers, which are kept from one stage to the next.

    Parameters
    ----------
    settings
        Where and how.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.results)
        self.states = States(self.store, settings.retry)
        self._workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: list[Worker] = []

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.close()

    # -- preprocess ------------------------------------------------------------------------

    def preprocess(self, plan: Plan) -> Summary:
        """Prepare the data sets and folds of a plan; problems are kept in `states`."""
        folds: dict[str, tuple[Dataset, dict[str, int]]] = {}
        for run in plan.selections:
            _, seeds = folds.setdefault(run.dataset.file, (run.dataset, {}))
            seeds[run.dataset.split_key(run.seed)] = run.seed
        summary = Summary("preprocess")
        for dataset, _ in folds.values():
            if dataset.problem:
                self._problem(dataset, dataset.problem)
                summary.outcomes["no data"] += 1
        todo = [item for item in folds.values() if not item[0].problem]

        def one(item: tuple[Dataset, dict[str, int]]) -> tuple[Dataset, Outcome]:
            dataset, seeds = item
            job = self._prepare_job(dataset, seeds)
            with self._worker() as worker:
                return dataset, worker.run(
                    job, time_limit=None, memory_limit=None, progress=lambda f, m: None
                )

        with Reporter("preprocess", len(todo), quiet=self.settings.quiet) as reporter:
            pending = [item for item in todo if not self._is_prepared(*item)]
            summary.done_before = len(todo) - len(pending)
            for dataset, outcome in self._each(one, pending):
                status = "no data" if outcome.status == "input" else outcome.status
                summary.outcomes[status] += 1
                summary.restored += outcome.cached
                reporter.done(f"preprocess {dataset.id}", status, outcome.seconds, outcome.reason)
                if outcome.status != "ok":
                    self._problem(dataset, outcome.reason)
        return summary

    def _problem(self, dataset: Dataset, reason: str) -> None:
        """Remember that a data set cannot be had; the report says so in its place."""
        self.states.problems[dataset.file] = reason
        write_atomically(self.facts(dataset), json.dumps({"problem": reason}))

    def _is_prepared(self, dataset: Dataset, seeds: Mapping[str, int]) -> bool:
        from panelbench.records.cache import StageCache

        cache = StageCache(self.settings.cache)
        if not self.prepared(dataset).exists() or "cells" not in read_facts(self.facts(dataset)):
            return False
        return all(("fold", key) in cache for key in seeds)

    def _prepare_job(self, dataset: Dataset, seeds: Mapping[str, int]) -> dict[str, Any]:
        for path in (self.prepared(dataset), self.facts(dataset)):
            path.parent.mkdir(parents=True, exist_ok=True)
        return {
            "stage": "prepare",
            "spec": dataset.spec.model_dump(mode="json"),
            "prepared": str(self.prepared(dataset)),
            "facts": str(self.facts(dataset)),
            "downloads": str(self.settings.cache / "downloads"),
            "mirrors": [str(path) for path in self.settings.mirrors],
            "cache": str(self.settings.cache),
            "folds": [[seed, key] for key, seed in seeds.items()],
            "preload": ["scanpy"],
        }

    def prepared(self, dataset: Dataset) -> Path:
        """The prepared ``.h5ad`` of a data set."""
        return self.settings.cache / "prepared" / f"{dataset.file}.h5ad"

    def facts(self, dataset: Dataset) -> Path:
        """What preprocessing found out about a data set, as JSON; part of the results."""
        return self.store.facts_path(dataset.id, dataset.slot)

    # -- select and evaluate ---------------------------------------------------------------

    def select(self, plan: Plan) -> Summary:
        """Do the selections of a plan."""
        return self._stage("select", plan.selections, self.states.select, self._select_job)

    def evaluate(self, plan: Plan) -> Summary:
        """Do the evaluations of a plan whose selections are there."""
        return self._stage("evaluate", plan.evaluations, self.states.evaluate, self._evaluate_job)

    R = TypeVar("R", SelectRun, EvaluateRun)

    def _stage(
        self,
        stage: str,
        runs: Sequence[R],
        state_of: Callable[[R], State],
        make_job: Callable[[R], dict[str, Any]],
    ) -> Summary:
        summary = Summary(stage)
        todo: list[Any] = []
        for run in runs:
            state = state_of(run)
            if state.due:
                todo.append(run)
            elif state.status == "done":
                summary.done_before += 1
            elif state.status == "running":
                summary.running += 1
            elif state.status == "waiting":
                summary.waiting += 1
            else:
                summary.standing[state.status] += 1
        # Long runs first, so that the last one does not keep a single core busy alone.
        todo.sort(key=_expected_minutes, reverse=True)
        with Reporter(stage, len(todo), quiet=self.settings.quiet) as reporter:

            def one(run: Any) -> tuple[Any, Outcome | None]:
                return run, self._one(run, state_of, make_job, reporter)

            for run, outcome in self._each(one, todo):
                if outcome is None:
                    summary.running += 1
                    continue
                summary.outcomes[outcome.status] += 1
                summary.restored += outcome.cached
                status = "restored" if outcome.cached else outcome.status
                reporter.done(run.describe(), status, outcome.seconds, outcome.reason)
        return summary

    def _one(
        self,
        run: Any,
        state_of: Callable[[Any], State],
        make_job: Callable[[Any], dict[str, Any]],
        reporter: Reporter,
    ) -> Outcome | None:
        """Do one run, unless another process has begun it meanwhile."""
        if not state_of(run).due:
            return None
        job = make_job(run)
        declared = run.declared if isinstance(run, SelectRun) else None
        if isinstance(declared, Broken):
            outcome = Outcome("failed", f"cannot be imported: {declared.error}", False)
        else:
            with self._worker() as worker:
                outcome = worker.run(
                    job,
                    time_limit=job["time_limit"],
                    memory_limit=job["memory_limit"],
                    progress=lambda f, m: reporter.update(run.describe(), f, m),
                )
        if not outcome.recorded and outcome.status != "lost":
            self._record(run, job, outcome)
        return outcome

    def _record(self, run: Run, job: Mapping[str, Any], outcome: Outcome) -> None:
        """Write the record that a stopped or crashed child could not write."""
        record = Record(
            stage=run.stage,
            address=run.address,
            attempt=job["attempt"],
            slot=run.slot,
            status=outcome.status,
            reason=outcome.reason,
            identity=run.identity,
            asked=run.asked,
            cost={"seconds": round(outcome.seconds, 4)},
            outside=job["outside"],
            environment=environment(run.identity.get("libraries", ())),
            ended=now(),
        )
        self.store.write(record)

    def _job(self, run: Run, minutes: float, memory_gb: float) -> dict[str, Any]:
        """What every job of a run holds."""
        settings = self.settings
        time_limit = settings.time_limit or 60 * minutes
        memory_limit = settings.memory_limit or int(memory_gb * GiB)
        return {
            "stage": run.stage,
            "address": vars(run.address),
            "attempt": new_attempt(),
            "slot": run.slot,
            "identity": run.identity,
            "asked": run.asked,
            "outside": {
                "n_jobs": settings.n_jobs,
                "device": settings.device,
                "time_limit": time_limit,
                "memory_limit": memory_limit,
            },
            "results": str(settings.results),
            "cache": str(settings.cache),
            "cache_key": run.key,
            "prepared": str(self.prepared(run.dataset)),
            "spec": run.dataset.spec.model_dump(mode="json"),
            "methods_dirs": [str(path) for path in settings.methods_dirs],
            "params": dict(run.params),
            "n_jobs": settings.n_jobs,
            "device": settings.device,
            "time_limit": time_limit,
            "memory_limit": memory_limit,
            "k": run.k,
            "noise": run.noise,
        }

    def _select_job(self, run: SelectRun) -> dict[str, Any]:
        method = run.declared
        minutes, memory = getattr(method, "minutes", 1.0), getattr(method, "memory_gb", 1.0)
        return {
            **self._job(run, minutes, memory),
            # A ranking made for few genes must not be restored when more are asked for.
            "cache_key": f"{run.key}-{run.k}",
            "split_key": run.dataset.split_key(run.seed),
            "method": run.method,
            "tasks": list(run.tasks),
            "seed": run.seed,
            "preload": list(getattr(method, "libraries", ())),
        }

    def _evaluate_job(self, run: EvaluateRun) -> dict[str, Any]:
        selection = self.states.select(run.select).record
        assert selection is not None
        panel = panel_digest(selection.result["ranking"], run.k)
        # A built-in predictor belongs to one attempt; a panel may come from any.
        own = EVALUATORS[run.evaluator].reads != "panel"
        source = selection.attempt if own else panel
        return {
            **self._job(run, _EVALUATION_MINUTES, _EVALUATION_MEMORY_GB),
            "cache_key": f"{run.key}-{source}",
            "split_key": run.dataset.split_key(run.select.seed),
            "evaluator": run.evaluator,
            "task": run.task.name,
            "seed": run.select.seed,
            "select_address": vars(run.select.address),
            "select_attempt": selection.attempt,
            "preload": list(getattr(run.select.declared, "libraries", ())) if own else [],
        }

    # -- the pool --------------------------------------------------------------------------

    T = TypeVar("T")
    U = TypeVar("U")

    def _each(self, one: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
        """Apply a function to items on threads, one per worker; yield results as they come.

        The threads only wait for the children of their workers, so they need no processes of
        their own.
        """
        from joblib import Parallel, delayed

        if not items:
            return
        count = min(self.settings.n_workers, len(items))
        while len(self._all) < count:
            worker = Worker(self.settings.n_jobs)
            self._all.append(worker)
            self._workers.put(worker)
        pool = Parallel(n_jobs=count, backend="threading", return_as="generator_unordered")
        results: Iterable[Any] = pool(delayed(one)(item) for item in items)
        try:
            yield from results
        except BaseException:
            # An interrupt: threads end when their children do.
            for worker in self._all:
                worker.close()
            raise

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        worker = self._workers.get()
        try:
            yield worker
        finally:
            self._workers.put(worker)


_EVALUATION_MINUTES = 120.0
_EVALUATION_MEMORY_GB = 16.0


def _expected_minutes(run: Run) -> float:
    return run.minutes if isinstance(run, SelectRun) else float(run.k or 10**6)
