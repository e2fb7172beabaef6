"""The genes themselves: every panel, what its seeds agree on, and the classes its genes mark."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from panelbench.report.grid import Grid, csv_text, guarded
from panelbench.report.panels import Group, group_name
from panelbench.report.summary import Summary

COLUMNS = ("dataset", "method", "tasks", "k", "seed", "rank", "gene", "seeds_with_it", "marks")
INSIDE = 2_000_000
"""Bytes up to which the page holds the file of all panels; it shows every panel in any case."""


@dataclass(frozen=True)
class MethodPanels:
    """The panels of one method on one data set."""

    title: str
    grid: Grid


def genes_csv(summary: Summary) -> str:
    """One line per gene of each panel; `COLUMNS` names its fields."""
    return csv_text(COLUMNS, _lines(summary))


def _lines(summary: Summary) -> Iterator[tuple[Any, ...]]:
    shown = cache(guarded)
    for group, by_seed in summary.panels.items():
        known = _marks(summary, group.dataset)
        marks = {gene: shown("; ".join(classes)) for gene, classes in known.items()}
        shared = Counter(gene for panel in by_seed.values() for gene in panel)
        first = (shown(group.dataset), shown(group.row.variant), shown(" ".join(group.tasks)))
        for seed, panel in by_seed.items():
            for rank, gene in enumerate(panel, start=1):
                more = shown(gene), shared[gene], marks.get(gene, "")
                yield *first, group.k, seed, rank, *more


def method_panels(summary: Summary) -> list[MethodPanels]:
    """Panels by method and data set, those of all sizes and seeds below each other."""
    tables: dict[tuple[str, str], list[tuple[Group, Mapping[int, Sequence[str]]]]] = {}
    for group, by_seed in summary.panels.items():
        place = (group.dataset, group_name(summary, group))
        tables.setdefault(place, []).append((group, by_seed))
    several = len(summary.datasets) > 1
    found = []
    for number, ((dataset, name), groups) in enumerate(tables.items(), start=1):
        rows = [row for group, by_seed in groups for row in _rows(summary, group, by_seed)]
        title = f"{name}, {dataset}" if several else name
        grid = Grid.plain(
            f"genes-{number}", title, ("k", "Seed", "Genes, best first"), rows, stubs=3
        )
        found.append(MethodPanels(title, grid))
    return found


def _rows(
    summary: Summary, group: Group, by_seed: Mapping[int, Sequence[str]]
) -> list[tuple[str, str, str]]:
    rows = [(str(group.k), str(seed), ", ".join(panel)) for seed, panel in by_seed.items()]
    if len(by_seed) > 1:
        counts = Counter(gene for panel in by_seed.values() for gene in panel)
        most = [gene for gene, count in counts.items() if count > len(by_seed) / 2]
        # Best first: by the number of seeds that agree, then by the best place it has.
        place = {gene: min(panel.index(gene) for panel in by_seed.values() if gene in panel)
                 for gene in most}  # fmt: skip
        most.sort(key=lambda gene: (-counts[gene], place[gene], gene))
        rows.append((str(group.k), "most", ", ".join(most) or "none"))
    marks = _marks(summary, group.dataset)
    known: dict[str, list[str]] = {}
    for gene in next(iter(by_seed.values())):
        for name in marks.get(gene, ()):
            known.setdefault(name, []).append(gene)
    if known:
        first = next(iter(by_seed))
        text = "; ".join(f"{name}: {', '.join(genes)}" for name, genes in sorted(known.items()))
        rows.append((str(group.k), f"markers, {first}", text))
    return rows


def _marks(summary: Summary, dataset: str) -> dict[str, list[str]]:
    """Classes that a gene is a known marker of."""
    found: dict[str, list[str]] = {}
    for name, genes in (summary.results.datasets.get(dataset, {}).get("markers") or {}).items():
        for gene in genes:
            found.setdefault(gene, []).append(name)
    return found


def address_of(text: str, file: str) -> str:
    """Where a page offers a CSV file: in itself, or beside it when it is large."""
    data = text.encode()
    if len(data) > INSIDE:
        return file
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(data).decode("ascii")
