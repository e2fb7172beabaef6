"""The panel gene by gene: why it is there, what it marks, how much of it there is, substitutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from panelbench.design.cells import Profile
from panelbench.design.perform import Found
from panelbench.stages.constraints import Constraints

COLUMNS = (
    "rank", "gene", "score", "why", "marks", "best_class", "best_auroc", "mean", "detection",
    "highest_class", "mean_in_class", "detection_in_class", "cost", "substitutes_on_panel",
    "substitutes_off_panel",
)  # fmt: skip
"""Columns of ``panel.csv``."""
ALIKE = 3
"""Substitutes that are named."""


def gene_lines(found: Found, profile: Profile) -> list[dict[str, Any]]:
    """One line per gene of the panel, in its order; `COLUMNS` names the fields.

    ``marks`` are classes that the gene tells from all others with an AUROC above 0.8 and is seen
    in more than a fifth of (or what constraints say of markers). Means are of counts where the data
    have counts. Substitutes are the genes of the highest Pearson correlation over all cells, with
    it; off the panel, those that constraints allow.
    """
    panel, result = found.panel, found.record.result
    wanted = found.final.question.constraints or Constraints()
    columns = profile.columns(panel)
    alone, seen = profile.marking(panel), profile.detection[:, columns]
    marked = (alone > wanted.marker_auroc) & (seen > wanted.marker_detection)
    mean, detection = profile.overall(profile.means), profile.overall(profile.detection)
    alike = _alike(profile, panel)
    scores = result.get("scores") or [None] * len(panel)
    why = _reasons(result, panel, found.choice.winner.label, wanted.include)
    lines = []
    for number, (gene, column) in enumerate(zip(panel, columns.tolist(), strict=True)):
        best = int(alone[:, number].argmax())
        high = int(profile.means[:, column].argmax())
        marks = np.flatnonzero(marked[:, number])
        marks = marks[np.argsort(-alone[marks, number], kind="stable")]
        lines.append(
            {
                "rank": number + 1,
                "gene": gene,
                "score": scores[number],
                "why": why[gene],
                "marks": "; ".join(profile.classes[code] for code in marks),
                "best_class": profile.classes[best],
                "best_auroc": float(alone[best, number]),
                "mean": float(mean[column]),
                "detection": float(detection[column]),
                "highest_class": profile.classes[high],
                "mean_in_class": float(profile.means[high, column]),
                "detection_in_class": float(profile.detection[high, column]),
                "cost": wanted.costs.get(gene, ""),
                "substitutes_on_panel": alike[number][0],
                "substitutes_off_panel": alike[number][1],
            }
        )
    return lines


def _reasons(
    result: Mapping[str, Any], panel: Sequence[str], label: str, include: Sequence[str]
) -> dict[str, str]:
    """Why each gene is on the panel: a constraint's note, or its place with the method."""
    told = result.get("constraints") or {}
    notes: dict[str, str] = {**told.get("moved_in", {}), **dict.fromkeys(include, "included")}
    marker_of = (result.get("info") or {}).get("marker_of") or []
    # The classes that brought genes stand in the order of the method's ranking, which
    # constraints change: they are told only where the panel is that ranking's.
    known = dict(zip(panel, marker_of, strict=False)) if not told else {}
    scores = result.get("scores") or ()
    found = dict.fromkeys(panel, label)
    for gene, score in zip(panel, scores, strict=False):
        found[gene] = f"{label}, score {score:.3g}"
    for gene in panel:
        if gene in known:
            found[gene] += f", for {known[gene]}"
        if gene in notes:
            found[gene] = f"constraint: {notes[gene]}"
    return found


def _alike(profile: Profile, panel: Sequence[str]) -> list[tuple[str, str]]:
    """Names and correlations of the most similar genes, on the panel and off it."""
    matrix = profile.correlations(panel)
    columns = profile.columns(panel)
    on = np.zeros(len(profile.genes), dtype=bool)
    on[columns] = True
    found = []
    for row, own in zip(matrix, columns.tolist(), strict=True):
        texts = []
        for mask in (on, profile.allowed & ~on):
            places = np.flatnonzero(mask)
            places = places[places != own]
            order = places[np.argsort(-row[places], kind="stable")[:ALIKE]]
            texts.append("; ".join(f"{profile.genes[i]} ({row[i]:.2f})" for i in order))
        found.append((texts[0], texts[1]))
    return found
