"""Times and sizes as people write them."""

from __future__ import annotations

from collections.abc import Mapping

from panelbench.errors import ConfigError


def _with_unit(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    number = text.strip().rstrip("".join(units) + "".join(units).lower()).strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        value = float(number) * units[unit] if unit else float(number)
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{what} {text}: write a positive number, for example {example}")
    return value


def seconds(text: str, what: str = "time") -> float:
    """Seconds in ``90``, ``90s``, ``10m`` or ``2h``.

    Raises
    ------
    ConfigError
        Naming `what` when it is no such time.
    """
    return _with_unit(text, {"S": 1, "M": 60, "H": 3600}, what, "90, 10m or 2h")


def size(text: str, what: str = "memory") -> int:
    """Bytes in ``500M``, ``8G`` or ``8GiB``; units are powers of 1024.

    Raises
    ------
    ConfigError
        Naming `what` when it is no such size.
    """
    short = text.strip().upper().removesuffix("IB").removesuffix("B")
    units = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
    return int(_with_unit(short, units, what, "500M or 8G"))
