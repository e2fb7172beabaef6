"""What to cite: the papers of the methods and data sets of a report, with DOIs and as BibTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panelbench.report.results import Results


@dataclass(frozen=True)
class Source:
    """A paper, and what of the report comes from it.

    Attributes
    ----------
    text
        As declared: ``Authors Year`` and, for data sets, where it was published.
    doi
        "" where it has none, or none is declared.
    used_for
        Labels of methods and ids of data sets.
    """

    text: str
    doi: str
    used_for: tuple[str, ...]

    @property
    def link(self) -> str:
        """Address of the paper, "" without a DOI."""
        return f"https://doi.org/{self.doi}" if self.doi else ""


def sources(results: Results) -> list[Source]:
    """Sources of a suite's methods, then of its data sets; one that serves several stands once."""
    labels = {row.method: row.label.partition("[")[0] for row in reversed(results.rows)}
    found: dict[tuple[str, str], list[str]] = {}
    for row in results.rows:
        if row.declared.cite:
            place = found.setdefault((row.declared.cite, row.declared.doi), [])
            place.append(labels[row.method])
    for name, facts in results.datasets.items():
        if facts.get("citation"):
            key = (_text(facts, "citation"), _text(facts, "doi"))
            found.setdefault(key, []).append(name)
    return [Source(*key, tuple(dict.fromkeys(names))) for key, names in found.items()]


def _text(facts: Mapping[str, Any], name: str) -> str:
    return str(facts.get(name) or "")


_FORM = re.compile(r"(?P<authors>.+?) (?P<year>(?:19|20)\d\d)\b[,;]?\s*(?P<where>.*)", re.DOTALL)


def bibtex(items: Sequence[Source]) -> str:
    """Entries for all sources; keys are first author and year, with a letter where they repeat."""
    keys: dict[str, int] = {}
    return "\n".join(_entry(item, keys) for item in items)


def _entry(item: Source, keys: dict[str, int]) -> str:
    form = _FORM.match(item.text)
    fields = {"howpublished": item.text}
    if form is not None:
        authors = re.sub(r",? et al\.", " and others", form["authors"])
        authors = re.sub(r",? & |, ", " and ", authors)
        fields = {"author": authors, "year": form["year"], "howpublished": form["where"]}
    fields |= {"doi": item.doi, "note": f"Used for {', '.join(item.used_for)}"}
    lines = [f"  {name} = {{{_escaped(text, name)}}}" for name, text in fields.items() if text]
    return f"@misc{{{_key(fields, keys)},\n" + ",\n".join(lines) + "\n}\n"


def _key(fields: Mapping[str, str], keys: dict[str, int]) -> str:
    first = fields.get("author", fields.get("howpublished", "")).split(" and ")[0]
    plain = unicodedata.normalize("NFKD", first).encode("ascii", "ignore").decode()
    key = re.sub(r"[^a-z]", "", plain.lower())[:20] or "source"
    key += fields.get("year", "")
    keys[key] = keys.get(key, 0) + 1
    return key if keys[key] == 1 else f"{key}{chr(ord('a') + keys[key] - 1)}"


def _escaped(text: str, field: str) -> str:
    """Text without what would end a field or a line; a DOI stays as it is."""
    if field == "doi":
        return re.sub(r"[{}\s\\]", "", text)
    flat = " ".join(text.split()).replace("\\", "").replace("{", "(").replace("}", ")")
    return re.sub(r"([&%$#_])", r"\\\1", flat)
