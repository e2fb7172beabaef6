"""Parts of a record that are parsed, or read from its file, when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from panelbench.records.store import Record


class Ranking(Sequence[str]):
    """A ranking of which the first genes are known; the others are read when asked for."""

    __slots__ = ("_first", "_length", "_read")

    def __init__(self, first: list[str], length: int, read: Callable[[], Record]) -> None:
        self._first, self._length, self._read = first, length, read

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        whole = place if isinstance(place, slice) else slice(place, place + 1)
        start, stop = whole.start or 0, -1 if whole.stop is None else whole.stop
        known = start >= 0 and 0 <= stop <= len(self._first)
        return (self._first if known else self._read().result["ranking"])[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Details:
    """What the index has of the large parts of a record, parsed when it is asked for."""

    __slots__ = ("_content", "read")

    def __init__(self, content: str | dict[str, Any], read: Callable[[], Record]) -> None:
        self._content = content
        self.read = read

    def __getitem__(self, part: str) -> dict[str, Any] | None:
        """What is known of a part; None when that is nothing."""
        if not isinstance(self._content, dict):
            try:
                self._content = self._parts(json.loads(self._content))
            except (ValueError, TypeError, AttributeError, RecursionError):
                self._content = {}
        return self._content.get(part)

    def _parts(self, found: dict[str, Any]) -> dict[str, Any]:
        parts = {name: value for name, value in found.items() if isinstance(value, dict)}
        if "leading" in found:
            first, length = found["leading"]
            ranking = first if len(first) == length else Ranking(first, length, self.read)
            parts["result"] = {**parts.get("result", {}), "ranking": ranking}
        return parts


class Unread(Mapping[str, Any]):
    """A part of a record, read from the record's file when it is asked for."""

    __slots__ = ("_details", "_head", "_part")

    def __init__(self, details: Details, part: str, head: Mapping[str, Any] | None = None) -> None:
        self._details, self._part, self._head = details, part, head or {}

    def __getitem__(self, name: str) -> Any:
        if name in self._head:
            return self._head[name]
        known = self._details[self._part]
        return known[name] if known and name in known else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[str, Any]:
        # Of costs the index has all, and it has what is empty.
        known = self._details[self._part]
        if known is not None and (self._part == "cost" or not known):
            return known
        found: Mapping[str, Any] = getattr(self._details.read(), self._part)
        return found
