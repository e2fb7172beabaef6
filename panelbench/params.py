"""Parameters of methods and evaluators: frozen dataclasses filled from text or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from panelbench.errors import ConfigError, UnknownName
from panelbench.method import Method
from panelbench.records.keys import digest

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def make_params(method: Method, given: Mapping[str, Any], where: str = "") -> Any:
    """Build a method's parameters, values converted to the declared types.

    Raises
    ------
    ConfigError
        For an unknown parameter (with near matches), or values that do not fit their type, their
        range or each other.
    """
    return validated(method.params, given, f"method {method.id}{where}")


def validated(params: type, given: Mapping[str, Any], where: str) -> Any:
    """Fill a frozen dataclass of parameters from text or YAML values.

    Raises
    ------
    ConfigError
        Naming `where` and, for everything that does not fit, the parameter, what was expected
        and what was found.
    """
    from pydantic import ValidationError

    from panelbench.schema import complaint

    known = [item.name for item in fields(params)]
    for name in given:
        if name not in known:
            raise UnknownName("parameter", name, known, where)
    try:
        return _adapter(params).validate_python(dict(given))
    except ValidationError as error:
        wrong = [
            # A rule between parameters belongs to none, and its message holds their values.
            f"parameter {'.'.join(map(str, item['loc']))}: {complaint(item)}"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        ]
        raise ConfigError(f"{where}: {'; '.join(wrong)}") from None


def params_dict(params: Any) -> dict[str, Any]:
    """Parameters as JSON-ready values, defaults included."""
    dumped: dict[str, Any] = _adapter(params.__class__).dump_python(params, mode="json")
    return dumped


@cache
def _adapter(params: type) -> TypeAdapter[Any]:
    """Make what checks and writes parameters of a class; it takes longer than to plan a run."""
    from pydantic import ConfigDict, TypeAdapter

    # NaN and infinity fit some ranges and mean nothing; no key could hold them either.
    params.__pydantic_config__ = ConfigDict(allow_inf_nan=False)  # type: ignore[attr-defined]
    return TypeAdapter(params)


def _short(value: Any) -> str:
    """Text of a parameter value; a long one as its digest."""
    text = str(value)
    return text if len(text) <= 40 else digest(value)[:8]


def variant_name(id: str, params: Any) -> str:
    """Id with the parameters that differ from their defaults: ``mrmr-f[relevance=rf]``."""
    values, defaults = params_dict(params), params_dict(type(params)())
    changed = [f"{n}={_short(values[n])}" for n in values if values[n] != defaults[n]]
    return f"{id}[{','.join(changed)}]" if changed else id
