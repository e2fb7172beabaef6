"""The contract as a command: which rules a method or an evaluator of one's own keeps."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from panelbench.commands.output import print_json
from panelbench.contract.rules import Outcome, Verdict
from panelbench.errors import InputError, PanelbenchError, UnknownName
from panelbench.records.code import module_file
from panelbench.registry import EVALUATOR, METHOD, Found, Kind, discover, discover_evaluators
from panelbench.suite.request import parse_sets
from panelbench.text import printable

COLOURS: dict[Verdict, str] = {"passed": "green", "failed": "red", "not asked": "yellow"}

Examine = Callable[[Any, Mapping[str, Any]], Iterator[Outcome]]


def test_methods(file: Path, sets: Sequence[str], output: str) -> int:
    """Try all rules on the methods of a module; see `_test`."""
    from panelbench.contract.methods import RULES, MethodTrial

    return _test(
        METHOD, discover, lambda item, given: RULES.examine(MethodTrial(item, given)),
        file, sets, output,
    )  # fmt: skip


def test_evaluators(file: Path, sets: Sequence[str], output: str) -> int:
    """Try all rules on the evaluators of a module; see `_test`."""
    from panelbench.contract.evaluators import RULES, EvaluatorTrial

    return _test(
        EVALUATOR, discover_evaluators,
        lambda item, given: RULES.examine(EvaluatorTrial(item, given)),
        file, sets, output,
    )  # fmt: skip


def _test(
    kind: Kind,
    find: Callable[[Sequence[Path]], Found[Any]],
    examine: Examine,
    file: Path,
    sets: Sequence[str],
    output: str,
) -> int:
    """Try all rules on what a module declares, and print how each is kept.

    Returns
    -------
    Exit code: 0 when none is broken, else 1.

    Raises
    ------
    InputError
        When there is no such module, or it declares nothing of this kind.
    PanelbenchError
        When it cannot be imported.
    """
    chosen = _declared_in(kind, find, file)
    given = _given(sets, [item.id for item in chosen])
    found: dict[str, list[Outcome]] = {}
    for item in chosen:
        outcomes = examine(item, given[item.id])
        if output == "json":
            found[item.id] = list(outcomes)
        else:
            print(f"{kind.name} {item.id} ({module_file(item.module)})")
            found[item.id] = [_told(outcome) for outcome in outcomes]
            counts = Counter(outcome.verdict for outcome in found[item.id])
            print(", ".join(f"{counts[v]} {v}" for v in COLOURS if counts[v]) + "\n")
    failed = any(item.verdict == "failed" for items in found.values() for item in items)
    if output == "json":
        rules = {id: [asdict(outcome) for outcome in items] for id, items in found.items()}
        print_json(**{f"{kind.name}s": rules}, exit_code=int(failed))
    return int(failed)


def _told(outcome: Outcome) -> Outcome:
    """Print one outcome as soon as it is known."""
    line = Text.assemble(
        (f"  {outcome.verdict:<11}", COLOURS[outcome.verdict]), printable(outcome.asks)
    )
    if outcome.why:
        line.append(f"\n{'':13}{printable(outcome.why)}")
    Console(soft_wrap=True, highlight=False).print(line)
    return outcome


def _given(sets: Sequence[str], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters of ``--set`` by id."""
    found: dict[str, dict[str, Any]] = {id: {} for id in ids}
    for name, value in parse_sets(sets).items():
        id, _, parameter = name.partition(".")
        if id not in found:
            raise UnknownName("name", id, ids, f"--set {name}")
        found[id][parameter] = value
    return found


def _declared_in(kind: Kind, find: Callable[[Sequence[Path]], Found[Any]], file: Path) -> list[Any]:
    """What a module, a package or all modules of a folder declare."""
    if not file.exists():
        raise InputError(f"{file}: there is no such file; give the module of the {kind.name}")
    place = file.resolve()
    if place.name == "__init__.py":
        place = place.parent
    shipped = Path(importlib.import_module(kind.package).__path__[0]).resolve()
    whole = place == shipped or (place.is_dir() and not (place / "__init__.py").exists())
    folder = place if whole else place.parent
    found = find([] if folder == shipped else [folder])
    for broken in found.broken.values():
        if not whole and Path(broken.place).resolve().is_relative_to(place):
            raise PanelbenchError(f"{broken.place} cannot be imported: {broken.error}")
    chosen = [item for item in found.declared.values() if _file(item).is_relative_to(place)]
    if not chosen:
        raise InputError(
            f'{file} declares no {kind.name}: put @{kind.name}("its-name", ...) above a function'
        )
    return chosen


def _file(item: Any) -> Path:
    return Path(str(sys.modules[item.module].__file__)).resolve()
