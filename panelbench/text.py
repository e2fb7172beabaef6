"""Text that others wrote, made fit to be shown: in a terminal, on a page, in a table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""Sequences by which a terminal is told to colour, move or rename itself."""

_UNSEEN = {"Cc", "Cf", "Co", "Cn"}
"""Categories of characters that nobody can see; some turn the text around them."""


def printable(text: str) -> str:
    """Text without escape sequences and characters that cannot be seen; line breaks stay.

    What no encoding can write (half a surrogate pair) becomes a question mark.
    """
    if text.isprintable():
        return text
    return "".join(map(_sign, _ESCAPES.sub("", text)))


def _sign(sign: str) -> str:
    category = unicodedata.category(sign)
    if sign in "\n\t":
        return sign
    if category in ("Zl", "Zp"):
        return "\n"
    return "?" if category == "Cs" else "" if category in _UNSEEN else sign


def printable_parts(value: Any) -> Any:
    """The same for every text in a value: in lists, tuples and mappings, their keys too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_parts(key): printable_parts(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(printable_parts(item) for item in value)
    return value
