"""The panel: the first k genes of a ranking."""

from __future__ import annotations

from collections.abc import Sequence

from panelbench.records.keys import digest


def panel_of(ranking: Sequence[str], k: int) -> list[str]:
    """The panel of size k of a ranking; all of it for k = 0."""
    return list(ranking[:k] if k else ranking)


def panel_digest(ranking: Sequence[str], k: int) -> str:
    """Digest of the panel of size k, by which an evaluation knows what it scored."""
    return digest(panel_of(ranking, k))
