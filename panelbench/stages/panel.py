"""The panel: the first k genes of a ranking."""

from __future__ import annotations

from collections.abc import Sequence

from panelbench.records.keys import digest


def panel_of(ranking: Sequence[str], k: int | None) -> list[str]:
    """The panel of size k of a ranking; all of it for None."""
    return list(ranking[:k])


def panel_digest(panel: Sequence[str]) -> str:
    """Digest of a panel, by which an evaluation knows what it scored."""
    return digest(list(panel))
