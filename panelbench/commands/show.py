"""What a command did, and where runs stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panelbench.commands.output import (
    first_line,
    print_json,
    print_rows,
    print_table,
    short_path,
    text_table,
)
from panelbench.records.status import RETRIED, Status
from panelbench.text import printable

if TYPE_CHECKING:
    from panelbench.api import Done
    from panelbench.report.results import Results
    from panelbench.running.settings import Settings
    from panelbench.running.states import State
    from panelbench.suite.runs import Run


def _line(run: Run, state: State) -> dict[str, Any]:
    """A run for programs, with its genes or metrics once it is done."""
    from panelbench.stages.panel import panel_of
    from panelbench.suite.runs import SelectRun

    result: dict[str, Any] = {}
    if state.status == "done" and state.record is not None:
        found = state.record.result
        if isinstance(run, SelectRun):
            result = {"genes": panel_of(found, run.k)}
        else:
            result = {"metrics": found.get("metrics", {})}
    return {
        **result,
        "stage": run.stage,
        "key": run.key,
        "dataset": run.dataset.id,
        "method": run.address.method,
        "run": run.describe(),
        "status": state.status,
        "due": state.due,
        "reason": state.why,
    }


def states(found: Sequence[tuple[Run, State]], stages: Sequence[str], *, as_json: bool) -> None:
    """Print where each run of the stages stands (``--dry-run``)."""
    # A report alone shows what it would read.
    shown = [(r, s) for r, s in found if r.stage in stages or set(stages) == {"report"}]
    if as_json:
        print_json(runs=[_line(run, state) for run, state in shown])
        return
    rows = [
        (run.describe(), run.key[:10], state.status, first_line(state.why, 100))
        for run, state in shown
    ]
    print_rows(("run", "key", "status", "why"), rows)
    counts = Counter(state.status for _, state in shown)
    due = sum(state.due for _, state in shown)
    # An evaluation that waits is due as soon as its selection is there.
    due += sum(state.status == "waiting" for _, state in shown) if "select" in stages else 0
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{len(shown)} runs: {text or 'none'}; {due} would be run")


def done(done: Done, settings: Settings, *, as_json: bool, shard: tuple[int, int] | None) -> None:
    """Print what a command did: the table, what failed, where files lie."""
    if as_json:
        print_json(
            suite=done.plan.suite.name,
            stages=[
                {"stage": s.stage, "done_before": s.done_before, "ran": dict(s.outcomes),
                 "restored": s.restored}
                for s in done.summaries
            ],
            runs=[_line(run, state) for run, state in done.states],
            report=[str(path) for path in done.report],
            exit_code=done.exit_code,
        )  # fmt: skip
        return
    _panels(done.states)
    if done.results is not None:
        from panelbench.report import terminal_table

        print_table(terminal_table(done.results))
        _notes(done.results)
        if done.results.stale:
            print(
                f"note: {done.results.stale} records were made with other code or library "
                "versions; `--dry-run` lists them as stale"
            )
    failures(done.states)
    _unreadable(done.unreadable)
    pages = [path for path in done.report if path.suffix == ".html"]
    for path in pages or done.report[:1]:
        print(f"report: {short_path(path)}")
    if shard is not None:
        print(f"shard {shard[0]}/{shard[1]} is over; when all are, run `panelbench report`")


def ends(found: Iterable[tuple[Run, State]]) -> None:
    """Print how runs ended that were done elsewhere: counts, and what failed."""
    found = list(found)
    counts = Counter(state.status for _, state in found)
    print(
        f"{len(found)} runs: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    )
    failures(found)


def _panels(states: Iterable[tuple[Run, State]], most: int = 40, genes: int = 8) -> None:
    """Print the first genes of each panel, where nothing else was asked for."""
    from panelbench.suite.runs import SelectRun

    states = list(states)
    if any(not isinstance(run, SelectRun) for run, _ in states):
        return
    rows = []
    for run, state in states:
        if isinstance(run, SelectRun) and state.status == "done" and state.record is not None:
            panel = state.record.result["ranking"][: run.k]
            more = f", ... ({len(panel)} in all)" if len(panel) > genes else ""
            rows.append((run.describe(), ", ".join(panel[:genes]) + more))
    if rows:
        print_table(text_table(("run", "genes, best first"), rows[:most]))
    if len(rows) > most:
        print(f"... and {len(rows) - most} more; --output json has all")


def _notes(results: Results, most: int = 5) -> None:
    """Say what scores leave out, each text once."""
    texts = dict.fromkeys(
        f"{line.dataset}, {line.task}, {line.evaluator.label}: {text}"
        for line in results.scores
        for text in line.notes
    )
    for text in list(texts)[:most]:
        print(f"note: {printable(text)}")
    if len(texts) > most:
        print(f"... and {len(texts) - most} more notes; `panelbench show KEY` has a run's")


def _unreadable(files: Mapping[Path, str]) -> None:
    """Say once which files among the records are none; they are passed over."""
    if files:
        path, why = next(iter(files.items()))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        print(f"note: passed over what is no record: {short_path(path)} ({why}){more}")


def failures(found: Iterable[tuple[Run, State]]) -> None:
    """Print the runs that have no result, and why."""
    from panelbench.suite.runs import SelectRun

    bad = [(r, s) for r, s in found if s.status not in ("done", "skipped")]
    # The evaluations of a failed selection say nothing new beside it.
    told = {run.key for run, _ in bad if isinstance(run, SelectRun)}
    bad = [(r, s) for r, s in bad if isinstance(r, SelectRun) or r.select.key not in told]
    if not bad:
        return
    rows = [(run.describe(), state.status, first_line(state.why)) for run, state in bad[:40]]
    print_table(text_table(("run", "status", "reason"), rows, title="Not done"))
    if len(bad) > 40:
        print(f"... and {len(bad) - 40} more; `panelbench list runs` has all")
    again = sorted({s.status for _, s in bad} & set(RETRIED) - {Status.SKIPPED})
    if again:
        print(f"to do them again: --retry {','.join(again)}")
