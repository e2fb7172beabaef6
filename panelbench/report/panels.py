"""The panels themselves: stability over seeds, known markers, overlap between methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from panelbench.report.grid import Grid
from panelbench.report.results import Results
from panelbench.report.summary import Summary, ordered
from panelbench.scoring.panel_metrics import jaccard, marker_recovery, stability
from panelbench.suite.runs import Row

MIN_SEEDS = 3
"""Below this many seeds the interval of the stability has no width, or none that means anything."""


@dataclass(frozen=True)
class Group:
    """Panels that differ by the seed only."""

    dataset: str
    row: Row
    tasks: tuple[str, ...]
    k: int


def panels(results: Results) -> dict[Group, dict[int, tuple[str, ...]]]:
    """Panels of all selections by seed: a nested ranking gives one for every k of the suite.

    Controls that keep all genes choose none and are left out, as are methods that find a size of
    their own.
    """
    # With label noise, the panels chosen with least of it.
    least = min(level.fraction for level in results.suite.noise_levels)
    found: dict[Group, dict[int, tuple[str, ...]]] = {}
    for line in results.selections:
        declared, ranking = line.row.declared, tuple(line.ranking)
        if line.status != "ok" or not ranking or not declared.asked_size:
            continue
        if line.noise not in (0.0, least):
            continue
        ks = [k for k in results.suite.ks if k <= line.k] if declared.nested else [line.k]
        for k in ks:
            group = Group(line.dataset, line.row, line.tasks, k)
            found.setdefault(group, {})[line.seed] = ranking[:k]
    order = {row: i for i, row in enumerate(results.rows)}
    datasets = ordered((g.dataset for g in found), [e.dataset for e in results.suite.datasets])
    return {
        group: dict(sorted(found[group].items()))
        for group in sorted(
            found, key=lambda g: (datasets.index(g.dataset), order[g.row], g.tasks, g.k)
        )
    }


def group_name(summary: Summary, group: Group) -> str:
    """Label of the method; with its tasks where it chooses a panel for each."""
    row = group.row
    alone = row.declared.multitask or not row.declared.supervised
    several = len(summary.tasks.get(group.dataset, ())) > 1
    return f"{row.label} ({', '.join(group.tasks)})" if several and not alone else row.label


def stability_grid(summary: Summary) -> Grid:
    """How alike the panels of different seeds are, and how many known markers they hold."""
    lines = []
    for group, by_seed in summary.panels.items():
        facts = summary.results.datasets.get(group.dataset, {})
        chosen = list(by_seed.values())
        n_genes = facts.get("genes")
        index = stability(chosen, int(n_genes)) if n_genes else stability([], 0)
        if len(chosen) < MIN_SEEDS:
            index = index._replace(low=float("nan"), high=float("nan"))
        markers: Mapping[str, tuple[str, ...]] = facts.get("markers") or {}
        found = [marker_recovery(panel, markers) for panel in chosen] if markers else []
        lines.append(
            {
                "dataset": group.dataset,
                "method": group.row.variant,
                "label": group_name(summary, group),
                "tasks": " ".join(group.tasks),
                "k": group.k,
                "seeds": len(chosen),
                "jaccard": jaccard(chosen),
                "stability": index.value,
                "stability_low": index.low,
                "stability_high": index.high,
                "marker_recall": _mean([item["marker_recall"] for item in found if item]),
                "marker_classes": _mean([item["marker_classes"] for item in found if item]),
            }
        )
    known = any(np.isfinite(float(str(line["marker_recall"]))) for line in lines)
    rows = [
        (
            line["label"],
            line["dataset"],
            line["k"],
            line["seeds"],
            line["jaccard"],
            line["stability"],
            f"{line['stability_low']:.2f} to {line['stability_high']:.2f}"
            if np.isfinite(float(str(line["stability_low"])))
            else "–",
            *((line["marker_recall"], line["marker_classes"]) if known else ()),
        )
        for line in lines
    ]
    columns = ("Method", "Data set", "k", "Seeds", "Jaccard", "Stability", "95% interval") + (
        ("Markers recovered", "Cell types with a marker") if known else ()
    )
    return Grid.plain(
        "stability",
        "How stable the panels are",
        columns,
        rows,
        stubs=2,
        caption=(
            "Jaccard: mean over pairs of seeds. Stability: index of Nogueira et al. 2018, 1 when "
            "all seeds choose the same genes, 0 as at random; its interval is asymptotic in the "
            "number of seeds, and left out below three. Seeds change the training cells as well as "
            "the method's own randomness."
        ),
        records=lines,
    )


def overlap_grids(summary: Summary) -> list[Grid]:
    """Mean Jaccard index between the methods' panels of the same seed, at the largest k."""
    found = summary.panels
    grids = []
    for dataset in summary.datasets:
        here = [group for group in found if group.dataset == dataset]
        if not here:
            continue
        k = max(group.k for group in here)
        groups = [group for group in here if group.k == k]
        if len(groups) < 2:
            continue
        names = [group_name(summary, group) for group in groups]
        chosen = [{seed: set(panel) for seed, panel in found[group].items()} for group in groups]
        rows = []
        for name, one in zip(names, chosen, strict=True):
            values = [_overlap(one, two) for two in chosen]
            rows.append((name, *(f"{v:.2f}" if np.isfinite(v) else "–" for v in values)))
        grids.append(
            Grid.plain(
                f"overlap-{dataset}",
                f"Overlap between methods, {dataset}, k = {k}",
                ("Method", *names),
                rows,
                caption="Jaccard index of two panels of the same seed, mean over seeds.",
            )
        )
    return grids


def _overlap(one: Mapping[int, set[str]], two: Mapping[int, set[str]]) -> float:
    """Mean Jaccard index of two methods' panels of the same seed."""
    pairs = [(one[seed], two[seed]) for seed in one.keys() & two.keys()]
    return _mean([len(a & b) / len(a | b) for a, b in pairs])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
