"""The command line. Bodies import their stage, so that ``--help`` is instant."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panelbench import __version__
from panelbench.errors import InputError, PanelbenchError

if TYPE_CHECKING:
    from panelbench.request import Request
    from panelbench.settings import Settings

app = typer.Typer(
    name="panelbench",
    help="Benchmark methods that choose small gene panels from single-cell data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
JSON_FORMAT = 1
_GRID, _OWN, _PLACE, _HOW = "What to run", "Your own data", "Where things are", "How to run"


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def _grid_options(
    suite: Annotated[
        str | None, _option(_GRID, "--suite", help="A suite that ships, or a YAML file.")
    ] = None,
    dataset: Annotated[
        list[str] | None, _option(_GRID, "--dataset", help="Data set id. Repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None, _option(_GRID, "--method", help="Method id. Repeatable.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        _option(_GRID, "--set", help="METHOD.PARAMETER=VALUE. Repeatable."),
    ] = None,
    k: Annotated[list[int] | None, _option(_GRID, "--k", help="Panel size. Repeatable.")] = None,
    task: Annotated[
        list[str] | None, _option(_GRID, "--task", help="Task of the data set. Repeatable.")
    ] = None,
    seed: Annotated[list[int] | None, _option(_GRID, "--seed", help="Seed. Repeatable.")] = None,
    evaluator: Annotated[
        list[str] | None,
        _option(_GRID, "--evaluator", help="rf, knn, logreg or builtin. Repeatable."),
    ] = None,
    data: Annotated[
        Path | None, _option(_OWN, "--data", help="An .h5ad file of your own; no YAML needed.")
    ] = None,
    label: Annotated[
        list[str] | None, _option(_OWN, "--label", help="Column of obs with classes. Repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None,
        _option(_OWN, "--target", help="Column of obs or key of obsm with numbers. Repeatable."),
    ] = None,
    group: Annotated[
        str | None,
        _option(_OWN, "--group", help="Column of obs with donors: none on both sides of a split."),
    ] = None,
    hvg: Annotated[
        int | None, _option(_OWN, "--hvg", help="Keep this many highly variable genes.")
    ] = None,
    layer: Annotated[
        str | None, _option(_OWN, "--layer", help="Read this layer (or raw) instead of X.")
    ] = None,
    min_cells_per_class: Annotated[
        int | None,
        _option(_OWN, "--min-cells-per-class", help="Drop classes with fewer cells."),
    ] = None,
    no_stratify: Annotated[
        bool, _option(_OWN, "--no-stratify", help="Split without regard to the classes.")
    ] = False,
    make_unique: Annotated[
        bool, _option(_OWN, "--make-unique", help="Make repeated gene names unique.")
    ] = False,
) -> None:
    """Options that say what to run."""


def _place_options(
    results: Annotated[
        Path, _option(_PLACE, "--results", help="Folder of the records. Default: results.")
    ] = Path("results"),
    cache: Annotated[
        Path | None,
        _option(_PLACE, "--cache", help="Stage cache; may be deleted. Default: user's cache."),
    ] = None,
    datasets: Annotated[
        Path | None, _option(_PLACE, "--datasets", help="Catalogue of data sets (YAML).")
    ] = None,
    methods_dir: Annotated[
        list[Path] | None,
        _option(_PLACE, "--methods-dir", help="Folder with methods of your own. Repeatable."),
    ] = None,
    mirror: Annotated[
        list[Path] | None,
        _option(_PLACE, "--mirror", help="Folder searched before downloading. Repeatable."),
    ] = None,
    output: Annotated[
        str, _option(_PLACE, "--output", help="text or json (on standard output).")
    ] = "text",
    debug: Annotated[bool, _option(_PLACE, "--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options that say where things are and how to speak."""


def _run_options(
    jobs: Annotated[
        int | None, _option(_HOW, "--jobs", min=1, help="Runs at a time. Default: one per core.")
    ] = None,
    device: Annotated[
        str, _option(_HOW, "--device", help="auto, cpu, cuda or cuda:N. Default: auto.")
    ] = "auto",
    dry_run: Annotated[
        bool, _option(_HOW, "--dry-run", help="List the runs and where they stand; run nothing.")
    ] = False,
    retry: Annotated[
        str | None,
        _option(_HOW, "--retry", help="Do runs again that ended so: failed,timeout,oom,skipped."),
    ] = None,
    shard: Annotated[
        str | None, _option(_HOW, "--shard", help="I/N: only the runs of shard I of N, from 0.")
    ] = None,
    time_limit: Annotated[
        str | None, _option(_HOW, "--time-limit", help="Of one run: 90, 10m, 2h.")
    ] = None,
    memory_limit: Annotated[
        str | None, _option(_HOW, "--memory-limit", help="Of one run: 500M, 8G.")
    ] = None,
) -> None:
    """Options that say how runs are done."""


def _panel_options(
    panel: Annotated[
        Path | None,
        _option(_OWN, "--panel", help="Score these genes: a CSV with a column gene, or a list."),
    ] = None,
) -> None:
    """Options of commands that can score any panel."""


def _out_options(
    out: Annotated[
        Path | None, _option(_OWN, "--out", help="Write the panel as CSV: rank, gene, score.")
    ] = None,
) -> None:
    """Options of commands that choose one panel."""


def _command(
    name: str, help: str, *groups: Callable[..., None]
) -> Callable[[Callable[[dict[str, Any]], int]], None]:
    """Make a command whose options are those of the groups; its body gets their values."""

    def register(body: Callable[[dict[str, Any]], int]) -> None:
        def command(**values: Any) -> None:
            raise typer.Exit(_guarded(body, values))

        parameters: dict[str, inspect.Parameter] = {}
        for group in groups:
            parameters |= inspect.signature(group, eval_str=True).parameters
        command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters.values()}
        app.command(name, help=help)(command)

    return register


def _guarded(body: Callable[[dict[str, Any]], int], values: dict[str, Any]) -> int:
    """Run a command's body; an error becomes one clear message and an exit code."""
    if values.get("output", "text") not in ("text", "json"):
        return _fail(f"--output {values['output']}: give text or json", values, 2)
    try:
        return body(values)
    except InputError as error:
        if values.get("debug"):
            raise
        return _fail(str(error), values, 2)
    except PanelbenchError as error:
        if values.get("debug"):
            raise
        return _fail(str(error), values, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; what has finished is kept, run it again to go on", values, 130)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if values.get("debug"):
            raise
        return _fail(f"{type(error).__name__}: {error}", values, 1)


def _fail(message: str, values: dict[str, Any], code: int) -> int:
    if values.get("output") == "json":
        print(json.dumps({"format": JSON_FORMAT, "error": message, "exit_code": code}))
    print(f"panelbench: {message}", file=sys.stderr)
    return code


# -- from options to a request ------------------------------------------------------------


def _request(values: dict[str, Any]) -> Request:
    from panelbench.request import Request, parse_sets

    own: dict[str, Any] = {}
    if values.get("group"):
        own |= {"group": values["group"], "scheme": "groups"}
    for name, key in (("hvg", "hvg"), ("layer", "layer"), ("min_cells_per_class", "min_cells")):
        if values.get(name) is not None:
            own[key] = values[name]
    if values.get("no_stratify"):
        own["stratify"] = False
    if values.get("make_unique"):
        own["make_unique"] = True
    return Request(
        suite=values.get("suite"),
        dataset=values.get("dataset") or (),
        method=values.get("method") or (),
        task=values.get("task") or (),
        k=values.get("k") or (),
        seed=values.get("seed") or (),
        evaluator=values.get("evaluator") or (),
        sets=parse_sets(values.get("set_") or ()),
        data=values.get("data"),
        label=values.get("label") or (),
        target=values.get("target") or (),
        data_options=own,
        panel=values.get("panel"),
        datasets=values.get("datasets"),
    )


def _settings(values: dict[str, Any]) -> Settings:
    from panelbench.settings import (
        Settings,
        default_cache,
        default_mirrors,
        parse_retry,
        parse_size,
        parse_time,
    )

    return Settings(
        results=values["results"].absolute(),
        cache=(values["cache"] or default_cache()).absolute(),
        mirrors=tuple(values["mirror"] or default_mirrors()),
        methods_dirs=tuple(path.absolute() for path in values["methods_dir"] or ()),
        jobs=values.get("jobs"),
        device=values.get("device", "auto"),
        retry=parse_retry(values.get("retry")),
        time_limit=parse_time(values.get("time_limit")),
        memory_limit=parse_size(values.get("memory_limit")),
        quiet=False,
    )


def _stage(values: dict[str, Any], stages: tuple[str, ...]) -> int:
    from panelbench import api, show
    from panelbench.settings import parse_shard

    request, settings = _request(values), _settings(values)
    as_json = values["output"] == "json"
    shard = parse_shard(values.get("shard"))
    if values.get("dry_run"):
        states = api.inspect(request, settings, shard)
        show.states(states, stages, as_json=as_json)
        return 0
    done = api.perform(
        request, settings, stages, shard, lambda s: print(s, file=sys.stderr, flush=True)
    )
    if values.get("out") is not None:
        count = api.write_panel(done, settings, values["out"])
        print(f"{values['out']}: {count} genes", file=sys.stderr)
    show.done(done, settings, as_json=as_json, shard=shard)
    return done.exit_code


# -- commands ------------------------------------------------------------------------------


@_command(
    "preprocess",
    "Fetch, check, filter and normalise data sets.",
    *(_grid_options, _place_options, _run_options),
)
def _preprocess(values: dict[str, Any]) -> int:
    # Data sets can be prepared without naming a method.
    if not values["suite"] and not values["method"]:
        values["method"] = ["random"]
    return _stage(values, ("preprocess",))


@_command(
    "select",
    "Let methods rank genes on training cells.",
    *(_grid_options, _out_options, _place_options, _run_options),
)
def _select(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "select"))


@_command(
    "evaluate",
    "Score panels on test cells.",
    *(_grid_options, _panel_options, _place_options, _run_options),
)
def _evaluate(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "evaluate"))


@_command(
    "report",
    "Write tables, figures and a page from the records.",
    *(_grid_options, _panel_options, _place_options),
)
def _report(values: dict[str, Any]) -> int:
    return _stage(values, ("report",))


@_command(
    "run",
    "Preprocess, select, evaluate and report, doing only what is missing.",
    *(_grid_options, _panel_options, _out_options, _place_options, _run_options),
)
def _run(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "select", "evaluate", "report"))


def _list_options(
    what: Annotated[str, typer.Argument(help="methods, datasets, suites or runs.")],
) -> None:
    """Argument of list."""


@_command(
    "list",
    "List methods, datasets, suites or runs.",
    *(_list_options, _place_options),
)
def _list(values: dict[str, Any]) -> int:
    from panelbench import show

    return show.listing(values["what"], _settings(values), values["datasets"], values["output"])


def _show_options(
    run: Annotated[str, typer.Argument(help="Key of a run, or its first digits.")],
) -> None:
    """Argument of show."""


@_command("show", "Show the records of one run.", _show_options, _place_options)
def _show(values: dict[str, Any]) -> int:
    from panelbench import show

    return show.run(values["run"], _settings(values), values["output"])


def _clean_options(
    what: Annotated[
        str,
        typer.Argument(help="leftovers (of killed runs), cache, or runs (deletes results)."),
    ] = "leftovers",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only runs on this data set.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Only runs of this method.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only records with this status.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Options of clean."""


@_command("clean", "Delete leftovers, the cache or records.", _clean_options, _place_options)
def _clean(values: dict[str, Any]) -> int:
    from panelbench import clean

    return clean.clean(
        values["what"],
        _settings(values),
        dataset=values["dataset"],
        method=values["method"],
        status=values["status"],
        yes=values["yes"],
    )


def _version(value: bool) -> None:
    if value:
        print(f"panelbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Benchmark methods that choose small gene panels from single-cell data."""


def main() -> None:
    """Entry point of the ``panelbench`` command."""
    app()


if __name__ == "__main__":
    main()
