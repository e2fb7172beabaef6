"""Tables of a design's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from panelbench.design.cells import Profile
from panelbench.design.choice import Choice, Standing, difference
from panelbench.design.gains import Gain
from panelbench.design.genes import COLUMNS
from panelbench.design.pairs import Pair
from panelbench.design.selectors import CONTROL, reason
from panelbench.report.grid import Grid
from panelbench.report.results import Results, ScoreLine


@dataclass(frozen=True)
class Listing(Grid):
    """A table with columns of text among its numbers: their numbers from 0."""

    texts: tuple[int, ...] = ()

    @classmethod
    def of(cls, grid: Grid, *texts: int) -> Listing:
        """A table, and which of its columns are text."""
        return cls(**vars(grid), texts=texts)


def gene_table(lines: Sequence[Mapping[str, Any]], unit: str, label: str) -> Listing:
    """The panel, gene by gene; `label` is the selector's, which need not be said each time."""
    costs = any(line["cost"] != "" for line in lines)
    columns = [
        "Gene", "Rank", "Why", "Marks", "AUROC", f"Mean {unit}", "Seen in", "Highest in",
        "Mean there", "Seen there", *(["Cost"] if costs else []), "Alike on the panel",
        "Substitutes off it",
    ]  # fmt: skip
    rows = [
        (
            line["gene"],
            str(line["rank"]),
            line["why"].removeprefix(f"{label}, "),
            line["marks"] or f"none; best {line['best_class']}",
            f"{line['best_auroc']:.2f}",
            amount(line["mean"]),
            f"{line['detection']:.0%}",
            line["highest_class"],
            amount(line["mean_in_class"]),
            f"{line['detection_in_class']:.0%}",
            *([amount(line["cost"])] if costs else []),
            line["substitutes_on_panel"],
            line["substitutes_off_panel"],
        )
        for line in lines
    ]
    caption = (
        "AUROC: of the class that the gene tells best from all others. Alike and substitutes: "
        "genes of the highest correlation over all cells, with it; one that is not on the panel "
        "can stand in for a probe that cannot be made."
    )
    records = [{name: line[name] for name in COLUMNS} for line in lines]
    grid = Grid.plain("panel", "The panel", columns, rows, caption=caption, records=records)
    return Listing.of(grid, 2, 3, 7, len(columns) - 2, len(columns) - 1)


def amount(value: Any) -> str:
    """A number with as many digits as say something; a text as it is."""
    if isinstance(value, str):
        return value
    size = abs(float(value))
    return f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 0.01 else f"{value:.4f}"


def selector_table(choice: Choice, ks: Sequence[int]) -> Listing:
    """Selectors in the order of the rule."""
    columns = (
        "Selector", *(f"Macro F1, k = {k}" for k in ks), "Behind the best", "±\u00a0s.e.",
        "Agreement", "Seconds", "Verdict", "Why it was tried",
    )  # fmt: skip
    rows = []
    for place, item in enumerate(choice.standings):
        one = item.candidate
        rows.append(
            (
                one.label,
                *(_percent(float(np.mean(one.scores[k]))) for k in ks),
                _percent(item.behind),
                _percent(item.error),
                _plain(one.stability),
                _plain(one.seconds, 1),
                _verdict(place, item),
                reason(one.variant) or ("what any panel gives" if one.variant == CONTROL else ""),
            )
        )
    caption = (
        "Macro F1 in percent: mean over parts of the cells, each held away once. Agreement: "
        "Nogueira's index of the panels of the parts, 1 where all are the same, 0 as at random. "
        "Standard errors are over few parts that share cells: rough. Seconds: of one selection."
    )
    grid = Grid.plain("selectors", "Selectors", columns, rows, caption=caption)
    return Listing.of(grid, len(columns) - 2, len(columns) - 1)


def _verdict(place: int, item: Standing) -> str:
    if place == 0:
        return "taken"
    if not item.candidate.competes:
        return "control"
    if not item.candidate.complete:
        return f"no score: {item.candidate.problem.splitlines()[0][:120]}"
    return "as good" if item.as_good else "behind"


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"


def _plain(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def size_table(growth: Mapping[int, np.ndarray], elbow: int) -> Listing:
    """Scores of the first genes of the winner's panels."""
    best = max(growth, key=lambda size: (growth[size].mean(), -size))
    rows = []
    for size in sorted(growth):
        behind, error = difference(growth[best], growth[size])
        note = "elbow" if size == elbow else "best" if size == best else ""
        rows.append(
            (str(size), _percent(growth[size].mean()), _percent(behind), _percent(error), note)
        )
    columns = ("Genes", "Macro F1", "Behind the best size", "±\u00a0s.e.", "Note")
    caption = (
        "Of the first genes of the winner's panels of the parts, on the cells held away. Elbow: "
        "the smallest size within one standard error of the best."
    )
    return Listing.of(Grid.plain("sizes", "Sizes", columns, rows, caption=caption), 4)


def gain_table(found: Sequence[Gain], growth: Mapping[int, np.ndarray]) -> Listing:
    """What each further gene adds; `growth` has scores of the first genes, for some sizes."""
    rows = []
    for rank, gain in enumerate(found, start=1):
        pairs = [" / ".join(pair) for pair in gain.first]
        more = f" and {len(pairs) - 4} more" if len(pairs) > 4 else ""
        raised = "–"
        if gain.most is not None:
            pair, before, after = gain.most
            raised = f"{' / '.join(pair)}: {before:.2f} to {after:.2f}"
        rows.append(
            (
                gain.gene,
                str(rank),
                _percent(growth[rank].mean()) if rank in growth else "",
                str(len(pairs)),
                "; ".join(pairs[:4]) + more or "–",
                f"{gain.together:.1%}",
                raised,
            )
        )
    columns = (
        "Gene", "Rank", "Macro F1 so far", "New pairs", "Is the first to tell apart",
        "Pairs told apart so far", "Raises most",
    )  # fmt: skip
    caption = (
        "A gene tells two classes apart where its AUROC between their cells is above 0.8 (all "
        "cells, at most 500 of a class). Genes that are the first for no pair may still count "
        "together with others, or stand in where one fails. Macro F1, in percent: of the first "
        "genes of the panels of the parts, for some sizes."
    )
    grid = Grid.plain("gains", "What each further gene adds", columns, rows, caption=caption)
    return Listing.of(grid, 4, 6)


def pair_table(pairs: Sequence[Pair]) -> Listing:
    """Pairs that the panel confuses, and what would help."""
    rows = [
        (
            f"{pair.a} / {pair.b}",
            f"{pair.share:.0%}",
            f"{pair.wrong[0]} + {pair.wrong[1]}",
            f"{pair.on_panel[0]} ({pair.on_panel[1]:.2f})",
            "; ".join(f"{gene} ({score:.2f})" for gene, score in pair.off_panel)
            or "no single gene is better",
        )
        for pair in pairs
    ]
    columns = ("Classes", "Confused", "Cells", "Best gene on the panel", "Genes off it that would")
    caption = (
        "Confused: of the held-out cells of both that were predicted as either, those predicted "
        "wrong; pairs above 5%. In brackets the AUROC between the two classes; genes off the panel "
        "are named where they are better than its best and better than chance gives among so many "
        "genes. They were found on the cells that they are judged on."
    )
    grid = Grid.plain("pairs", "Pairs that the panel confuses", columns, rows, caption=caption)
    return Listing.of(grid, 3, 4)


def class_table(
    lines: Sequence[ScoreLine],
    total: np.ndarray,
    profile: Profile,
    genes: Sequence[Mapping[str, Any]],
) -> Listing:
    """Classes: how well they are found, what they are taken for, which genes mark them."""
    rows = []
    for code, name in enumerate(profile.classes):
        scores = [line.per_class_f1[name] for line in lines if name in line.per_class_f1]
        seen = int(total[code].sum())
        others = total[code].copy()
        others[code] = 0
        most = int(others.argmax())
        marks = [line["gene"] for line in genes if name in line["marks"].split("; ")]
        rows.append(
            (
                name,
                f"{profile.sizes[code]:,}",
                _percent(float(np.mean(scores))) if scores else "–",
                _percent(total[code, code] / seen) if seen else "–",
                f"{profile.classes[most]} ({others[most] / seen:.0%})" if others.any() else "–",
                str(len(marks)),
                ", ".join(marks[:8]) + (f" and {len(marks) - 8} more" if len(marks) > 8 else "")
                or "–",
            )
        )
    columns = ("Class", "Cells", "F1", "Found", "Most taken for", "Markers", "Which")
    caption = (
        "F1 in percent, mean over parts; found: share of the class's held-out cells that were "
        "predicted right. Markers: genes of the panel that tell the class from all others."
    )
    grid = Grid.plain("classes", "Class by class", columns, rows, caption=caption)
    return Listing.of(grid, 4, 6)


def other_table(closer: Results) -> Listing:
    """The winner's panels scored in other ways."""
    rows = []
    metrics = closer.evaluators.metrics
    for name in dict.fromkeys(line.evaluator.variant for line in closer.scores):
        lines = [line for line in closer.scores if line.evaluator.variant == name]
        if lines[0].kind == "view":
            continue
        bad = next((line for line in lines if line.status != "ok"), None)
        label = lines[0].evaluator.label
        for metric in dict.fromkeys(key for line in lines for key in line.metrics):
            item = metrics[metric]
            values = np.array([line.metrics[metric] for line in lines if metric in line.metrics])
            values = 100 * values if item.percent else values
            form = f"{values.mean():.1f}%" if item.percent else amount(values.mean())
            spread = amount(values.std(ddof=1)) if len(values) > 1 else "–"
            way = "higher" if item.higher_is_better else "lower"
            rows.append((item.label, label, form, spread, str(len(values)), way))
        if bad is not None and not bad.metrics:
            rows.append((label, label, "–", "–", "0", bad.reason.splitlines()[0][:100]))
    columns = ("What", "Evaluator", "Mean", "± sd", "Parts", "Better is")
    caption = "Of the winner's panels of the parts, on the cells held away."
    grid = Grid.plain("other-ways", "In other ways", columns, rows, caption=caption)
    return Listing.of(replace(grid, stubs=2), 5)
