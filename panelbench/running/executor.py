"""Do the runs of a plan that are still to do: pool, limits, records, resume."""

from __future__ import annotations

import itertools
import json
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from panelbench.records.cache import StageCache
from panelbench.records.claims import Claims
from panelbench.records.facts import read_facts
from panelbench.records.files import write_atomically
from panelbench.records.provenance import environment
from panelbench.records.status import Status
from panelbench.records.store import Store
from panelbench.records.times import new_attempt, now
from panelbench.registry import Broken
from panelbench.running.groups import Ended, do_in_groups, group_job, groups_of, in_group
from panelbench.running.jobs import Attempt, PrepareJob, Resources, RunJob
from panelbench.running.needs import allowed, need_of
from panelbench.running.own_environments import make_missing
from panelbench.running.progress import Reporter
from panelbench.running.settings import Settings
from panelbench.running.states import StageSummary, State, States
from panelbench.running.supervisor import INTERRUPTED, Outcome, Worker, remove_scratch
from panelbench.running.under_way import UnderWay
from panelbench.stages.panel import panel_digest, panel_of
from panelbench.suite.plan import stage_module
from panelbench.suite.runs import Dataset, EvaluateRun, Plan, Run, SelectRun

T = TypeVar("T")
U = TypeVar("U")
_LAST_WORDS = 20.0
"""Seconds that interrupted runs have to be recorded: less than schedulers wait before they kill."""


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
        self._claims = Claims()
        self._workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: list[Worker] = []
        self._under_way = UnderWay()

    def __enter__(self) -> Executor:
        remove_scratch()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.close()
        self._claims.close()

    # -- preprocess ------------------------------------------------------------------------

    def preprocess(self, plan: Plan) -> StageSummary:
        """Prepare the data sets and folds of a plan; problems are kept in `states`."""
        summary = StageSummary("preprocess")
        todo = []
        for dataset, folds in _folds(plan):
            if dataset.problem:
                self._problem(dataset, dataset.problem)
                summary.outcomes[Status.NO_DATA] += 1
            else:
                todo.append((dataset, folds))
        with Reporter("preprocess", len(todo), quiet=self.settings.quiet) as reporter:
            pending = [item for item in todo if not self._is_prepared(*item)]
            summary.done_before = len(todo) - len(pending)

            def one(item: tuple[Dataset, dict[str, int]]) -> tuple[Dataset, Outcome]:
                name = f"preprocess {item[0].id}"
                return item[0], self._prepare(*item, partial(reporter.update, name))

            for dataset, outcome in self._each(one, pending):
                summary.outcomes[outcome.status] += 1
                summary.restored += outcome.cached
                reporter.done(
                    f"preprocess {dataset.id}", outcome.status, outcome.seconds, outcome.reason
                )
                if outcome.status is not Status.OK:
                    self._problem(dataset, outcome.reason, outcome.status)
                    continue
                for note in read_facts(self.facts(dataset)).get("notes") or ():
                    reporter.note(dataset.id, note)
        return summary

    def _problem(self, dataset: Dataset, reason: str, why: Status = Status.NO_DATA) -> None:
        """Remember that a data set is not available; the report says so in its place."""
        self.states.problems[dataset.file] = reason
        path = self.facts(dataset)
        # Facts are results: no failure overwrites them, and what the machine did is none.
        if why is not Status.FAULT and "cells" not in read_facts(path):
            write_atomically(path, json.dumps({"problem": reason}))

    def _is_prepared(self, dataset: Dataset, folds: Mapping[str, int]) -> bool:
        cache = StageCache(self.settings.cache)
        if not self.prepared(dataset).exists() or "cells" not in read_facts(self.facts(dataset)):
            return False
        return all(("fold", key) in cache for key in folds)

    def _prepare(
        self,
        dataset: Dataset,
        folds: Mapping[str, int],
        progress: Callable[[float, str], None] = lambda fraction, message: None,
    ) -> Outcome:
        job = PrepareJob(
            spec=dataset.spec,
            prepared=self.prepared(dataset),
            facts=self.facts(dataset),
            cache=self.settings.cache,
            downloads=self.settings.cache / "downloads",
            mirrors=self.settings.mirrors,
            folds=folds,
        )
        with self._worker() as worker:
            outcome = worker.run(job, progress)
            if outcome.status is Status.FAULT and job.prepared.exists():
                # A damaged file is made again from its sources, once.
                job.prepared.unlink(missing_ok=True)
                outcome = worker.run(job, progress)
        return outcome

    def unprepared(self, plan: Plan) -> list[Dataset]:
        """Data sets of a plan that are still to be prepared."""
        found = [(d, folds) for d, folds in _folds(plan) if not d.problem]
        return [dataset for dataset, folds in found if not self._is_prepared(dataset, folds)]

    def prepared(self, dataset: Dataset) -> Path:
        """The prepared ``.h5ad`` of a data set."""
        return self.settings.cache / "prepared" / f"{dataset.file}.h5ad"

    def facts(self, dataset: Dataset) -> Path:
        """What preprocessing found out about a data set, as JSON; part of the results."""
        return self.store.facts_path(dataset.id, dataset.question)

    # -- select and evaluate ---------------------------------------------------------------

    def select(self, plan: Plan) -> StageSummary:
        """Do the selections of a plan."""
        make_missing(plan.selections, self.settings, lambda run: self.states.of(run).due)
        return self._stage("select", plan.selections, self._select_job)

    def evaluate(self, plan: Plan) -> StageSummary:
        """Do the evaluations of a plan whose selections are there."""
        return self._stage("evaluate", plan.evaluations, self._evaluate_job)

    def _stage(
        self, stage: str, runs: Sequence[Run], make_job: Callable[[Any, str], RunJob]
    ) -> StageSummary:
        summary = StageSummary(stage)
        todo: list[Run] = []
        with self.states.one_look(len(runs)) as states:
            for run in runs:
                state = states.of(run)
                if state.due:
                    todo.append(run)
                else:
                    summary.count(state)
        # Long runs first, so that the last one does not keep a single core busy alone.
        todo.sort(key=_length, reverse=True)
        with Reporter(stage, len(todo), quiet=self.settings.quiet) as reporter:

            def one(runs: Sequence[Run]) -> list[Ended]:
                return do_in_groups(runs, partial(self._some, make_job, reporter))

            for ended in self._each(one, groups_of(todo, self.settings, self.facts)):
                for run, outcome in ended:
                    if outcome is None:
                        summary.count(self.states.of(run))
                        continue
                    summary.outcomes[outcome.status] += 1
                    summary.restored += outcome.cached
                    reporter.done(
                        run.describe(),
                        outcome.status,
                        outcome.seconds,
                        outcome.reason,
                        cached=outcome.cached,
                    )
        return summary

    def _some(
        self, make_job: Callable[[Any, str], RunJob], reporter: Reporter, runs: Sequence[Run]
    ) -> list[Ended]:
        """Do one run, or several together, unless other processes do or have done them meanwhile.

        Of several, those that did not end well are left out: they are done in smaller groups.
        """
        ended: list[Ended] = []
        jobs: list[tuple[Run, RunJob]] = []
        outcome = Outcome(Status.OK)
        try:
            for run in runs:
                job = self._taken(run, make_job)
                if job is None:
                    ended.append((run, None))
                else:
                    jobs.append((run, job))
            if jobs:
                outcome = self._supervised(jobs, reporter)
        except KeyboardInterrupt:
            # Where there is one worker only, this is the main thread, which signals interrupt.
            self._stop_workers()
            for run, job in jobs:
                self._record(run, job, Outcome(Status.FAULT, INTERRUPTED))
            raise
        except OSError as error:
            outcome = Outcome(Status.FAULT, f"{runs[0].describe()}: {error}")
            for run in runs:
                self._remember(run, outcome)
            return [(run, outcome) for run in runs]
        else:
            for run, job in jobs:
                how = outcome if len(jobs) == 1 else in_group(self.store, job, outcome)
                if how is not None:
                    self._record(run, job, how)
                    ended.append((run, how))
        finally:
            for folder in [self.store.folder(run.address) for run in runs]:
                self._claims.release(folder)
        return ended

    def _taken(self, run: Run, make_job: Callable[[Any, str], RunJob]) -> RunJob | None:
        """Claim a run that is due; None when another process is at it or has done it."""
        if not self.states.of(run).due:
            return None
        folder = self.store.folder(run.address)
        attempt = new_attempt(after=self.store.files(run.address))
        if not (self._claims.take(folder, attempt) and self.states.of(run, claimed=True).due):
            return None
        return make_job(run, attempt)

    def _supervised(self, jobs: Sequence[tuple[Run, RunJob]], reporter: Reporter) -> Outcome:
        run, _ = jobs[0]
        if isinstance(run, SelectRun) and isinstance(run.declared, Broken):
            return Outcome(Status.FAILED, f"cannot be imported: {run.declared.error}")
        whole = group_job([job for _, job in jobs])
        name = run.describe() + (f" and {len(jobs) - 1} more" if len(jobs) > 1 else "")

        def progress(fraction: float, message: str) -> None:
            reporter.update(name, fraction, message)

        with self._worker() as worker:
            outcome = worker.run(whole, progress)
        if not outcome.damaged:
            return outcome
        # Prepared data that are damaged or gone are made again; the run has not begun.
        folds = {run.dataset.fold_key(_seed(run)): _seed(run) for run, _ in jobs}
        again = self._prepare(run.dataset, folds)
        if again.status is not Status.OK:
            return outcome
        with self._worker() as worker:
            return worker.run(whole, progress)

    def _record(self, run: Run, job: RunJob, outcome: Outcome) -> None:
        """Write the record that a stopped or crashed run could not write."""
        path = self.store.folder(run.address) / f"{job.place.attempt}.json"
        if outcome.recorded or path.exists():
            return
        record = job.record(
            outcome.status,
            outcome.reason,
            cost={"seconds": round(outcome.seconds, 4)},
            environment=environment(run.identity.get("libraries", ())),
            ended=now(),
        )
        try:
            self.store.write(record)
        except OSError:
            self._remember(run, outcome)

    def _remember(self, run: Run, outcome: Outcome) -> None:
        self.states.unrecorded[run.key] = State(outcome.status, False, outcome.reason)

    def _job(self, run: Run, attempt: str) -> dict[str, Any]:
        """What the jobs of both stages have."""
        settings = self.settings
        need = need_of(run, settings)
        return {
            "question": run.question,
            "place": Attempt(run.dataset.id, run.address.method, run.key, attempt),
            "stage": run.stage,
            "question_digest": run.question_digest,
            "identity": run.identity,
            "asked": run.asked,
            "spec": run.dataset.spec,
            "prepared": self.prepared(run.dataset),
            "results": settings.results,
            "cache": settings.cache,
            "resources": Resources(
                n_jobs=settings.n_jobs,
                device=settings.device,
                time_limit=need.time,
                memory_limit=allowed(need.memory),
            ),
            "code": {stage_module(run): run.identity["code"]},
            "methods_dirs": settings.methods_dirs,
            "evaluators_dirs": settings.evaluators_dirs,
        }

    def _select_job(self, run: SelectRun, attempt: str) -> RunJob:
        return RunJob(
            **self._job(run, attempt),
            # A ranking made for few genes must not be restored when more are asked for.
            cache_key=f"{run.key}-{run.k}",
            preload=tuple(getattr(run.declared, "libraries", ())),
        )

    def _evaluate_job(self, run: EvaluateRun, attempt: str) -> RunJob:
        selection = self.states.select(run.select).record
        assert selection is not None
        # A built-in predictor belongs to one attempt; a panel may come from any.
        own = run.declared.own
        panel = panel_digest(panel_of(selection.result, run.k))
        place = selection.address
        return RunJob(
            **self._job(run, attempt),
            cache_key=f"{run.key}-{selection.attempt if own else panel}",
            selection=Attempt(place.dataset, place.method, place.key, selection.attempt),
            preload=tuple(getattr(run.select.declared, "libraries", ())) if own else (),
        )

    # -- the pool --------------------------------------------------------------------------

    def _each(self, one: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
        """Apply a function to items on threads, one per worker; yield results as they come.

        The threads only wait for the processes of their workers, so they need none of their own.
        """
        from joblib import Parallel, delayed

        if not items:
            return
        count = min(self.settings.n_workers, len(items))
        while len(self._all) < count:
            worker = Worker(self.settings.n_jobs)
            worker.start()
            self._all.append(worker)
            self._workers.put(worker)
        pool = Parallel(n_jobs=count, backend="threading", return_as="generator_unordered")
        results: Iterable[Any] = pool(delayed(self._under_way.do)(one, item) for item in items)
        try:
            yield from results
        except BaseException:
            # An interrupt: runs end with their workers, and are recorded as interrupted.
            self._stop_workers()
            self._under_way.wait(_LAST_WORDS)
            raise

    def _stop_workers(self) -> None:
        self._under_way.stop()
        for worker in self._all:
            worker.close()

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        worker = self._workers.get()
        try:
            yield worker
        finally:
            self._workers.put(worker)


def _seed(run: Run) -> int:
    return run.question.seed


def _folds(plan: Plan) -> list[tuple[Dataset, dict[str, int]]]:
    """Data sets of a plan by prepared file, each with its folds: seeds by key."""
    found: dict[str, tuple[Dataset, dict[str, int]]] = {}
    wanted = [(run.dataset, run.seed) for run in plan.selections]
    # Data sets can be prepared before anything is to be selected.
    wanted = wanted or list(itertools.product(plan.datasets, plan.suite.seeds))
    for dataset, seed in wanted:
        _, folds = found.setdefault(dataset.file, (dataset, {}))
        folds[dataset.fold_key(seed)] = seed
    return list(found.values())


def _length(run: Run) -> tuple[float, float]:
    """How long a run may take by its declaration, then the size of the panel."""
    minutes = float(getattr(run.declared, "minutes", 0.0))
    return minutes, 0.0 if isinstance(run, SelectRun) else float(run.k or inf)
