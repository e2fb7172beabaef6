"""Parameters of methods and evaluators: frozen dataclasses filled from text or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from panelbench.errors import ConfigError, UnknownName
from panelbench.method import Method
from panelbench.records.keys import digest


def make_params(method: Method, given: Mapping[str, Any], where: str = "") -> Any:
    """Build a method's parameters, values converted to the declared types.

    Raises
    ------
    ConfigError
        For an unknown parameter (with near matches) or a value that does not fit its type.
    """
    return validated(method.params, given, f"method {method.id}{where}")


def validated(params: type, given: Mapping[str, Any], where: str) -> Any:
    """Fill a frozen dataclass of parameters from text or YAML values.

    Raises
    ------
    ConfigError
        Naming `where`, the parameter and what was expected.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [item.name for item in fields(params)]
    for name in given:
        if name not in known:
            raise UnknownName("parameter", name, known, where)
    try:
        return TypeAdapter(params).validate_python(dict(given))
    except ValidationError as error:
        item = error.errors()[0]
        name = ".".join(str(part) for part in item["loc"]) or "parameters"
        message = item["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{where}: parameter {name}: {message[:1].lower() + message[1:]} "
            f"(found {item['input']!r:.60})"
        ) from None


def params_dict(params: Any) -> dict[str, Any]:
    """Parameters as JSON-ready values, defaults included."""
    from pydantic import TypeAdapter

    dumped: dict[str, Any] = TypeAdapter(type(params)).dump_python(params, mode="json")
    return dumped


def _short(value: Any) -> str:
    """Text of a parameter value; a long one as its digest."""
    text = str(value)
    return text if len(text) <= 40 else digest(value)[:8]


def variant_name(id: str, params: Any) -> str:
    """Id with the parameters that differ from their defaults: ``mrmr-f[relevance=rf]``."""
    values, defaults = params_dict(params), params_dict(type(params)())
    changed = [f"{n}={_short(values[n])}" for n in values if values[n] != defaults[n]]
    return f"{id}[{','.join(changed)}]" if changed else id
