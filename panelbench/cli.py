"""The command line. Bodies import their stage, so that ``--help`` is instant."""

from __future__ import annotations

import inspect
import io
import json
import signal
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panelbench import __version__
from panelbench.commands import JSON_FORMAT, design, env, options
from panelbench.errors import ConfigError, InputError, PanelbenchError
from panelbench.text import printable

if TYPE_CHECKING:
    from panelbench.running.settings import Settings
    from panelbench.suite.request import Request

app = typer.Typer(
    name="panelbench",
    help="Benchmark methods that choose small gene panels from single-cell data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _command(
    name: str, help: str, *groups: Callable[..., None], without: Collection[str] = ()
) -> Callable[[Callable[[dict[str, Any]], int]], None]:
    """Make a command whose options are those of the groups; its body gets their values."""

    def register(body: Callable[[dict[str, Any]], int]) -> None:
        def command(**values: Any) -> None:
            raise typer.Exit(_guarded(body, values))

        parameters: dict[str, inspect.Parameter] = {}
        for group in groups:
            parameters |= inspect.signature(group, eval_str=True).parameters
        for unwanted in without:
            del parameters[unwanted]
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
    except Stopped as signal_:
        words = f"stopped by {signal_.name}; what has finished is kept, run it again to go on"
        return _fail(words, values, 128 + signal_.number)
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
    print(f"panelbench: {printable(message)}", file=sys.stderr)
    return code


# -- from options to a request ------------------------------------------------------------


def _request(values: dict[str, Any]) -> Request:
    from panelbench.suite.constraint_options import NAMES as CONSTRAINTS
    from panelbench.suite.request import Request, parse_sets

    own: dict[str, Any] = {}
    group, split = values.get("group"), values.get("split")
    if group and (values.get("data") or not split):
        own |= {"group": group, "scheme": "groups"}
    if split and values.get("data"):
        own["scheme"] = split
    for name in ("hvg", "layer", "gene_names", "min_genes", "min_cells_per_class"):
        if values.get(name) is not None:
            own[name.removesuffix("_per_class")] = values[name]
    if values.get("labels") is not None:
        own["label_file"] = values["labels"]
    if values.get("no_stratify"):
        own["stratify"] = False
    own |= {name: True for name in ("make_unique", "log1p", "lognorm") if values.get(name)}
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
        split=None if values.get("data") else split,
        group=group,
        panel=values.get("panel") or (),
        constraints={name: values[name] for name in CONSTRAINTS if values.get(name) is not None},
        datasets=values.get("datasets"),
        max_cells=values.get("max_cells"),
        **({"max_runs": values["max_runs"]} if values.get("max_runs") else {}),
    )


def _settings(values: dict[str, Any]) -> Settings:
    from panelbench.records.places import default_cache
    from panelbench.running.needs import parse_needs
    from panelbench.running.settings import Settings, default_mirrors, parse_retry
    from panelbench.units import seconds, size

    time, memory = values.get("time_limit"), values.get("memory_limit")
    return Settings(
        results=values["results"].absolute(),
        cache=(values["cache"] or default_cache()).absolute(),
        mirrors=tuple(values["mirror"] or default_mirrors()),
        methods_dirs=tuple(path.absolute() for path in values["methods_dir"] or ()),
        evaluators_dirs=tuple(path.absolute() for path in values["evaluators_dir"] or ()),
        jobs=values.get("jobs"),
        together=values.get("together"),
        device=values.get("device", "auto"),
        retry=parse_retry(values.get("retry")),
        time_limit=None if time is None else seconds(time, "--time-limit"),
        memory_limit=None if memory is None else size(memory, "--memory-limit"),
        needs=parse_needs(values.get("need") or ()),
        quiet=False,
    )


def _stage(values: dict[str, Any], stages: tuple[str, ...]) -> int:
    from panelbench import api
    from panelbench.commands import show
    from panelbench.running.settings import parse_shard

    request, settings = _request(values), _settings(values)
    as_json = values["output"] == "json"
    shard = parse_shard(values.get("shard"))
    keys = tuple(key for text in values.get("key") or () for key in text.split(",") if key)
    if values.get("paper"):
        from panelbench.commands import papers

        dry_run = bool(values.get("dry_run"))
        name = values["paper"]
        return papers.paper(
            name, request, settings, stages, shard=shard, dry_run=dry_run, as_json=as_json
        )
    if values.get("dry_run"):
        states = api.inspect(request, settings, shard, keys)
        show.states(states, stages, as_json=as_json)
        return 0
    done = api.perform(
        request,
        settings,
        stages,
        shard,
        values.get("out"),
        lambda summary: print(summary, file=sys.stderr, flush=True),
        keys,
    )
    show.done(done, settings, as_json=as_json, shard=shard)
    return done.exit_code


# -- commands ------------------------------------------------------------------------------


@_command(
    "preprocess",
    "Fetch, check, filter and normalise data sets.",
    *(options.grid, options.place, options.run, options.limits),
)
def _preprocess(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess",))


@_command(
    "select",
    "Let methods rank genes on training cells.",
    *(
        options.grid,
        options.constraints,
        options.out,
        options.place,
        options.run,
        options.limits,
    ),
)
def _select(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "select"))


@_command(
    "evaluate",
    "Score panels on test cells.",
    *(
        options.grid,
        options.panel,
        options.constraints,
        options.place,
        options.run,
        options.limits,
    ),
)
def _evaluate(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "evaluate"))


@_command(
    "report",
    "Write tables, figures and a page from the records.",
    *(options.grid, options.paper, options.panel, options.constraints, options.place),
)
def _report(values: dict[str, Any]) -> int:
    return _stage(values, ("report",))


@_command(
    "run",
    "Preprocess, select, evaluate and report, doing only what is missing.",
    *(
        options.grid,
        options.paper,
        options.panel,
        options.constraints,
        options.out,
        options.place,
        options.run,
        options.limits,
    ),
)
def _run(values: dict[str, Any]) -> int:
    return _stage(values, ("preprocess", "select", "evaluate", "report"))


@_command(
    "design",
    "Choose a panel from data alone: try selectors, take one, write a page.",
    *(design.asked, options.grid, options.constraints, options.place, options.run, options.limits),
    without=design.WITHOUT,
)
def _design(values: dict[str, Any]) -> int:
    out = values["out"]
    if out.suffix or out.is_file():
        raise ConfigError(f"--out {out}: give a folder; it holds the page and the panel")
    return design.design(_request(values), _settings(values | {"results": out}), values)


@_command(
    "submit",
    "Send what is missing to the queue of a cluster (Slurm, Dask).",
    *(
        options.grid,
        options.panel,
        options.constraints,
        options.place,
        options.limits,
        options.queue,
    ),
)
def _submit(values: dict[str, Any]) -> int:
    from panelbench.commands import submit

    return submit.submit(_request(values), _settings(values), values)


@_command(
    "list",
    "List methods, evaluators, datasets, tasks, suites or runs.",
    *(options.listing, options.place),
)
def _list(values: dict[str, Any]) -> int:
    from panelbench.commands import listing

    return listing.listing(values["what"], _settings(values), values["datasets"], values["output"])


@_command("show", "Show the records of one run.", options.show, options.place)
def _show(values: dict[str, Any]) -> int:
    from panelbench.commands import listing

    return listing.run(values["run"], _settings(values), values["output"])


@_command("clean", "Delete leftovers, the cache or records.", options.clean, options.place)
def _clean(values: dict[str, Any]) -> int:
    from panelbench.commands import clean

    return clean.clean(
        values["what"],
        _settings(values),
        dataset=values["dataset"],
        method=values["method"],
        status=values["status"],
        yes=values["yes"],
    )


@_command("env", "List, make or remove environments of methods.", env.asked, options.place)
def _env(values: dict[str, Any]) -> int:
    chosen = values["methods"] or ()
    return env.environments(values["what"], chosen, _settings(values), values["output"])


@_command("pack", "Pack finished records into one file per suite.", options.pack, options.place)
def _pack(values: dict[str, Any]) -> int:
    from panelbench.commands import pack

    return pack.pack(values["suite"], _settings(values))


@_command("unpack", "Put packed records back, byte for byte.", options.pack, options.place)
def _unpack(values: dict[str, Any]) -> int:
    from panelbench.commands import pack

    return pack.unpack(values["suite"], _settings(values))


@_command("test-method", "Try the contract on a method of your own.", options.contract)
def _test_method(values: dict[str, Any]) -> int:
    from panelbench.commands import contract

    return contract.test_methods(values["file"], values["set_"] or (), values["output"])


@_command("test-evaluator", "Try the contract on an evaluator of your own.", options.contract)
def _test_evaluator(values: dict[str, Any]) -> int:
    from panelbench.commands import contract

    return contract.test_evaluators(values["file"], values["set_"] or (), values["output"])


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


class Stopped(KeyboardInterrupt):
    """A signal that asks the command to end, as schedulers send before they kill."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, signal.Signals(number).name
        super().__init__(self.name)


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def main() -> None:
    """Entry point of the ``panelbench`` command."""
    for stream in (sys.stdout, sys.stderr):
        # A locale without such letters must not stop a command that is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    app()


if __name__ == "__main__":
    main()
