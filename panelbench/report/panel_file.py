"""A panel as a file: rank, gene, score, and what constraints moved."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from panelbench.stages.panel import panel_of


def panel_csv(result: Mapping[str, Any], k: int) -> str:
    """The panel of a selection's result as CSV.

    Under constraints a fourth column says why a gene is there that the ranking did not put there.
    """
    panel = panel_of(result, k)
    scores = result.get("scores") or [""] * len(panel)
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    told = result.get("constraints") or {}
    why, header = told.get("moved_in", {}), ["rank", "gene", "score"]
    table.writerow([*header, "note"] if told else header)
    table.writerows(
        (rank, gene, score, *([why.get(gene, "")] if told else []))
        for rank, (gene, score) in enumerate(zip(panel, scores, strict=False), start=1)
    )
    return buffer.getvalue()
