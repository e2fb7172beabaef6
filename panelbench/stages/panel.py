"""The panel: the first genes of a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from panelbench.records.keys import digest


def panel_of(result: Mapping[str, Any], k: int | None) -> list[str]:
    """The panel of a selection's result: as large as the method found it should be, or of size k.

    All of the ranking for None, of a method that finds no size.
    """
    return list(result.get("ranking", ())[: result.get("size", k)])


def panel_digest(panel: Sequence[str]) -> str:
    """Digest of a panel, by which an evaluation knows what it scored."""
    return digest(list(panel))
