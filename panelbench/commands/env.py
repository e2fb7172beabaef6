"""Environments of methods: which there are, made beforehand, removed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panelbench.commands.output import print_json, print_rows, short_path
from panelbench.errors import ConfigError, Fault, UnknownName

if TYPE_CHECKING:
    from panelbench.environments.place import Place
    from panelbench.running.settings import Settings

_GB = 1e9
ACTIONS = ("list", "make", "remove")


def asked(
    what: Annotated[
        str, typer.Argument(help="list, make (those that are missing), or remove.")
    ] = "list",
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help="Of which methods. Default: list and make all; remove what no method asks for.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Arguments of ``env``."""


def environments(what: str, methods: Sequence[str], settings: Settings, output: str) -> int:
    """List, make or remove environments.

    Returns
    -------
    Exit code: 1 when one could not be made.

    Raises
    ------
    UnknownName
        For another action, or a method that there is not.
    ConfigError
        For a method that has no environment of its own.
    """
    if what not in ACTIONS:
        raise UnknownName("action", what, ACTIONS, "panelbench env")
    places = _places(settings)
    chosen = _chosen(places, methods, settings)
    if what == "make":
        return _make(chosen)
    if what == "remove":
        return _remove(
            [p.folder for p in chosen.values()] if methods else _unused(places, settings)
        )
    lines = [_line(name, place) for name, place in chosen.items()]
    if not methods:
        lines += [_left(folder) for folder in _unused(places, settings)]
    if output == "json":
        print_json(environments=lines)
        return 0
    print_rows(["method", "state", "python", "packages", "size", "folder"], [*map(_row, lines)])
    return 0


def _places(settings: Settings) -> dict[str, Place]:
    """Environments that methods declare, by method."""
    from panelbench.environments.place import Place, environments_folder
    from panelbench.registry import discover

    root = environments_folder(settings.cache)
    return {
        method.id: Place(root, method.environment)
        for method in discover(settings.methods_dirs).methods.values()
        if method.environment is not None
    }


def _chosen(
    places: dict[str, Place], methods: Sequence[str], settings: Settings
) -> dict[str, Place]:
    from panelbench.registry import discover

    for name in methods:
        discover(settings.methods_dirs).get(name, "panelbench env")
        if name not in places:
            raise ConfigError(f"{name} has no environment of its own: {', '.join(places)} have one")
    return {name: places[name] for name in methods} if methods else places


def _unused(places: dict[str, Place], settings: Settings) -> list[Path]:
    """Folders that no method asks for: older requirements, what a killed process left."""
    from panelbench.environments.place import environments_folder, folders

    asked_for = {place.folder for place in places.values()}
    return [f for f in folders(environments_folder(settings.cache)) if f not in asked_for]


def _make(places: dict[str, Place]) -> int:
    from panelbench.environments.make import make

    failed = 0
    for name, place in places.items():
        there = bool(place.facts())
        try:
            facts = make(place, name, lambda text: print(text, file=sys.stderr, flush=True))
        except Fault as error:
            print(f"panelbench: {error}", file=sys.stderr)
            failed += 1
            continue
        how = "is there" if there else f"made in {facts['seconds']:.0f} s"
        print(f"{name}: {how}, {facts['bytes'] / _GB:.2f} GB, {short_path(place.folder)}")
    return 1 if failed else 0


def _remove(wanted: Sequence[Path]) -> int:
    from panelbench.environments.make import being_made, remove

    there = [folder for folder in wanted if folder.exists() and not being_made(folder)]
    for folder in there:
        print(f"removed {short_path(folder)}, {remove(folder) / _GB:.2f} GB")
    if not there:
        print("nothing to remove; `panelbench env remove METHOD` removes one that is in use")
    return 0


def _line(name: str, place: Place) -> dict[str, Any]:
    facts = place.facts()
    return {
        "method": name,
        "state": "made" if facts else "missing",
        "python": facts.get("python") or place.version,
        "packages": len(place.environment.requirements),
        "bytes": facts.get("bytes", 0),
        "folder": str(place.folder),
    }


def _left(folder: Path) -> dict[str, Any]:
    """Line of a folder that no method asks for."""
    from panelbench.environments.make import being_made
    from panelbench.environments.place import FACTS
    from panelbench.records.facts import read_facts

    facts = read_facts(folder / FACTS)
    unfinished = "being made" if being_made(folder) else "not finished"
    return {
        "method": "",
        "state": "no method asks for it" if facts else unfinished,
        "python": facts.get("python", ""),
        "packages": len(facts.get("requirements", ())),
        "bytes": facts.get("bytes", 0),
        "folder": str(folder),
    }


def _row(line: dict[str, Any]) -> list[str]:
    """A line for people."""
    size = f"{line['bytes'] / _GB:.2f} GB" if line["bytes"] else ""
    return [size if name == "bytes" else str(value) for name, value in line.items()]
