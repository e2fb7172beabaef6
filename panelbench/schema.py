"""What all models of YAML files share: unknown keys are errors, and messages say where.

A misspelt option can never be ignored silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from panelbench.errors import ConfigError, hint

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$")]


class Model(BaseModel):
    """Base of all models: immutable, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate data against a model.

    Raises
    ------
    ConfigError
        Naming the place (`where`), the key, what is wrong and the keys that exist.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        # A list whose only item is wrong is called too short as well: say the cause only.
        causes = [item["loc"] for item in items if item["type"] != "too_short"]
        lines = [
            _explain(model, item)
            for item in items
            if item["type"] != "too_short"
            or not any(cause[: len(item["loc"])] == item["loc"] for cause in causes)
        ]
        raise ConfigError(f"{where}: " + "; ".join(dict.fromkeys(lines))) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"]) or "top level"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return f"unknown key {path!r} ({hint(str(item['loc'][-1]), known)})"
    if item["type"] == "missing":
        return f"key {path!r} is missing"
    return f"{path}: {complaint(item)}"


def complaint(item: Any) -> str:
    """What one of pydantic's errors expected and what it found, in the suite's words."""
    message = item["msg"].removeprefix("Value error, ")
    return f"{message[:1].lower() + message[1:]} (found {item['input']!r:.60})"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the model that a location inside `model` points to."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        current = next(_models_in(info.annotation), None) if info else None
    return sorted(current.model_fields) if current else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that an annotation such as ``tuple[Annotated[Step, ...], ...]`` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


# The loader in C is ten times faster and just as safe; not every build of PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_DEEPEST = 100
"""Levels of lists within lists beyond which a text is no suite and no value."""


def load_yaml(text: str) -> Any:
    """Read YAML.

    Raises
    ------
    yaml.YAMLError
        When it is not YAML, or nested so deeply that the parser's own stack would overflow.
    """
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    dashes = max((len(line) - len(line.lstrip("- ?")) for line in text.splitlines()), default=0)
    if deepest > _DEEPEST or dashes > 4 * _DEEPEST:
        raise yaml.YAMLError("nested too deeply")
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises
    ------
    ConfigError
        When it is missing or not YAML, with the line.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or "cannot be parsed"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
