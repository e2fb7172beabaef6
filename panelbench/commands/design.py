"""What ``design`` is asked and prints: the winner, the panel, where the page lies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panelbench.commands.output import first_line, print_json, print_table, short_path, text_table

if TYPE_CHECKING:
    from panelbench.design.choice import Standing
    from panelbench.running.settings import Settings
    from panelbench.suite.request import Request

WITHOUT = (
    "suite", "seed", "evaluator", "max_runs", "target", "no_stratify", "results", "shard", "key",
    "dry_run",
)  # fmt: skip
"""Options of other commands that mean nothing here."""
_PANEL = "The design"


def asked(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder of the design. Default: design.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = Path("design"),
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help="Parts of the cells that take turns. Default: 5.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    no_maps: Annotated[
        bool,
        typer.Option(
            "--no-maps",
            help="Leave out the UMAPs, which take a while.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = False,
) -> None:
    """Options of ``design`` alone."""  # fmt: skip


_HEAD = ("selector", "macro F1, %", "behind", "agreement", "")


def _row(place: int, standing: Standing) -> tuple[str, ...]:
    """A selector in the table of the terminal."""
    one, note = standing.candidate, "taken"
    if place:
        note = "as good" if standing.as_good else first_line(one.problem, 80)
    if not one.complete:
        return one.label, "–", "–", "–", note
    behind = f"{100 * standing.behind:.1f} ± {100 * standing.error:.1f}"
    return one.label, f"{100 * one.mean:.1f}", behind, f"{one.stability:.2f}", note


def design(request: Request, settings: Settings, values: dict[str, Any]) -> int:
    """Do a design; `Settings.results` is its folder."""
    from panelbench.commands import show
    from panelbench.design import page
    from panelbench.design.perform import perform
    from panelbench.design.suites import FOLDS
    from panelbench.records.status import exit_code

    found = perform(
        request,
        settings,
        values["folds"] or FOLDS,
        lambda summary: print(summary, file=sys.stderr, flush=True),
        maps=not values["no_maps"],
    )
    written = page.write(found, settings)
    code = exit_code(state.status for _, state in found.states)
    if values["output"] == "json":
        files = [str(path) for path in written.files]
        print_json(**page.as_json(found), files=files, exit_code=code)
        return code
    print_table(text_table(_HEAD, [_row(*each) for each in enumerate(found.choice.standings)]))
    for text in written.verdict:
        print(text)
    show.failures(found.states)
    print(f"panel: {short_path(written.panel)}")
    print(f"page: {short_path(written.page)}")
    return code
