"""Write a design: the panel as CSV, figures, and one page that holds everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench import __version__
from panelbench.design import figures, tables
from panelbench.design.cells import Profile
from panelbench.design.choice import RULE, difference, enough
from panelbench.design.gains import gains
from panelbench.design.genes import COLUMNS, gene_lines
from panelbench.design.pairs import Pair, confused
from panelbench.design.perform import Found
from panelbench.design.selectors import CONTROL
from panelbench.design.suites import METRIC
from panelbench.records.files import write_atomically
from panelbench.report import cell_figures
from panelbench.report.figures import style
from panelbench.report.grid import to_csv
from panelbench.report.html import Picture, constraint_lines, fill
from panelbench.report.panel_file import panel_csv
from panelbench.report.results import Results, ScoreLine
from panelbench.report.summary import Summary
from panelbench.running.settings import Settings
from panelbench.scoring.metrics import f1_macro
from panelbench.suite.specs import FigureSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Written:
    """Files of a design, the lines of its panel, and what its page says first."""

    page: Path
    panel: Path
    files: tuple[Path, ...]
    genes: Sequence[Mapping[str, Any]]
    verdict: tuple[str, ...]


def write(found: Found, settings: Settings) -> Written:
    """Write ``index.html``, ``panel.csv`` and ``figures/`` into the folder of the design.

    The records and the prepared cells are read; nothing is trained. With several sizes each
    has its own ``panel-K.csv`` too.
    """
    out = settings.results
    profile = Profile.of(found, settings)
    lines = gene_lines(found, profile)
    judged = [line for line in found.parts.scores
              if line.row.variant == found.choice.winner.variant and line.k == found.k]  # fmt: skip
    total = _total(judged, len(profile.classes))
    growth = _growth(found.closer)
    elbow = enough(growth) if growth else found.k
    pairs = confused(total, profile, found.panel)
    added = gains(profile, found.panel)
    drawn = _draw(found, profile, total, growth, elbow, [gain.together for gain in added])
    files = [_panels(found, size, out) for size in found.records if len(found.records) > 1]
    for name, picture in drawn.items():
        path = out / "figures" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, picture.svg.decode())
        files.append(path)
    panel = out / "panel.csv"
    write_atomically(panel, to_csv(lines, COLUMNS))
    verdict = _verdict(found, elbow, pairs, profile)
    page = out / "index.html"
    text = fill(
        "design.html.j2",
        title=f"{found.k} genes for {found.asked.base.title.removeprefix('Panels on ')}",
        verdict=verdict,
        tiles=_tiles(found, profile, elbow),
        constraints=constraint_lines(found.asked.base.constraints),
        panel=found.panel,
        figures=drawn,
        rule=RULE,
        folds=found.folds,
        group=found.asked.group,
        genes=tables.gene_table(
            lines, "count" if profile.counts is not None else "value", found.choice.winner.label
        ),
        selectors=tables.selector_table(found.choice, found.asked.base.ks),
        sizes=tables.size_table(growth, elbow) if growth else None,
        gains=tables.gain_table(added, growth),
        classes=tables.class_table(judged, total, profile, lines),
        pairs=tables.pair_table(pairs),
        others=tables.other_table(found.closer),
        facts=_facts(found),
    )
    write_atomically(page, text)
    return Written(page, panel, (page, panel, *files), lines, verdict)


def _panels(found: Found, size: int, out: Path) -> Path:
    """Write the panel of one of several sizes."""
    path = out / f"panel-{size}.csv"
    write_atomically(path, panel_csv(found.records[size].result, size))
    return path


def _total(lines: list[ScoreLine], n: int) -> np.ndarray:
    """Cells by true and predicted class, over all parts."""
    total = np.zeros((n, n), dtype=np.int64)
    for line in lines:
        if line.confusion:
            total += np.asarray(line.confusion, dtype=np.int64)
    return total


def _growth(closer: Results) -> dict[int, np.ndarray]:
    """By number of first genes, the score of each part."""
    curves: dict[int, list[float]] = {}
    for line in sorted(closer.scores, key=lambda line: line.seed):
        if line.evaluator.id == "growth" and line.status == "ok":
            arrays = cell_figures.read_arrays(line.arrays)
            for size, guess in zip(arrays.get("sizes", ()), arrays.get("guesses", ()), strict=True):
                curves.setdefault(int(size), []).append(f1_macro(arrays["codes"], guess))
    most = max(map(len, curves.values()), default=0)
    return {size: np.array(some) for size, some in curves.items() if len(some) == most}


# -- figures -------------------------------------------------------------------------------


def _draw(
    found: Found,
    profile: Profile,
    total: np.ndarray,
    growth: Mapping[int, np.ndarray],
    elbow: int,
    together: list[float],
) -> dict[str, Picture]:
    """All figures by name."""
    winner = found.choice.winner
    others = {
        item.candidate.label: {
            k: float(item.candidate.scores[k].mean()) for k in found.asked.base.ks
        }
        for item in found.choice.standings
        # The winner has a curve of its own where one size is asked for.
        if item.candidate.complete and (item.candidate is not winner or len(found.records) > 1)
    }
    shown = figures.Curve(growth, others, _ceiling(found), elbow, found.k)
    drawn = {}
    with style():
        blocks = figures.Blocks.of(profile, found.panel)
        made: dict[str, tuple[str, Figure | None]] = {
            "dots": ("Panel genes by class: size and colour of the dots", figures.dot_plot(blocks)),
            "heat": ("Panel genes by class: mean expression", figures.heat_map(blocks)),
            "curve": ("Score by number of genes", figures.curve(shown, winner.label)),
            "apart": ("Pairs of classes told apart by a single gene of the first ones",
                      figures.told_apart(together)),
            "confusion": ("Confusion matrix: held-out cells of all parts, % of the true class",
                          figures.confusion(total, profile.classes)),
            "umap": ("Held-out cells of the first part by all genes and by the panel (UMAP)",
                     _umap(found)),
        }  # fmt: skip
        for name, (title, figure) in made.items():
            if figure is not None:
                drawn[name] = Picture(title, _svg(figure))
    return drawn


def _svg(figure: Figure) -> bytes:
    """A figure as SVG without a date."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=150, bbox_inches="tight", metadata={"Date": None})
    return buffer.getvalue()


def _umap(found: Found) -> Figure | None:
    """Maps of the same cells by all genes and by the panel's; None without any."""
    spec = FigureSpec(name="umap", kind="umap")
    content = [cell_figures.umap(Summary(some), spec) for some in (found.ceiling, found.closer)]
    blocks = [block for some in content if some is not None for block in some.blocks]
    if not blocks:
        return None
    pictures = tuple(picture for block in blocks for picture in block.pictures)
    block = cell_figures.Block(blocks[0].title, blocks[0].palette, pictures)
    return cell_figures.draw_umap(cell_figures.CellContent("", (block,), 3.6))


def _ceiling(found: Found) -> float:
    """Score of all genes on the first part; NaN where they have none."""
    values = [line.metrics[METRIC] for line in found.ceiling.scores if METRIC in line.metrics]
    return values[0] if values else float("nan")


# -- words ---------------------------------------------------------------------------------


def _tiles(found: Found, profile: Profile, elbow: int) -> list[tuple[str, str]]:
    winner = found.choice.winner
    scores = winner.scores[found.k]
    error = scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else float("nan")
    ceiling = _ceiling(found)
    tiles = [
        (str(found.k), "genes"),
        (winner.label, "chose them"),
        (f"{100 * scores.mean():.1f} ± {100 * error:.1f}", "macro F1, % (held-out cells)"),
        (str(elbow), "genes at the elbow"),
        (f"{len(profile.codes):,}", "cells"),
        (str(int((profile.sizes > 0).sum())), "classes"),
        (f"{int(profile.allowed.sum()):,}", "candidate genes"),
    ]
    if np.isfinite(ceiling):
        there = f"with all genes, % (first part; panel {100 * scores[0]:.1f})"
        tiles.insert(3, (f"{100 * ceiling:.1f}", there))
    return tiles


def _verdict(found: Found, elbow: int, pairs: list[Pair], profile: Profile) -> tuple[str, ...]:
    """What the page says first, in sentences."""
    standings, winner = found.choice.standings, found.choice.winner
    scores = winner.scores[found.k]
    good = [item.candidate.label for item in standings[1:] if item.as_good]
    rest = [item.candidate.label for item in standings[1:]
            if item.candidate.competes and not item.as_good]  # fmt: skip
    said = [
        f"{winner.label} chose these {found.k} genes from all {len(profile.codes):,} cells. On "
        f"cells that it had not seen ({found.folds} parts"
        + (f", {found.asked.group} kept whole" if found.asked.group else "")
        + f"), its panels reach a macro F1 of {100 * scores.mean():.1f}%."
    ]
    words = f"As good by the rule: {', '.join(good)}." if good else "No other was as good."
    said.append(words + (f" Behind: {', '.join(rest)}." if rest else ""))
    control = next(
        (item.candidate for item in standings if item.candidate.variant == CONTROL), None
    )
    if control is not None and control.complete:
        said.append(f"Genes at random reach {100 * control.scores[found.k].mean():.1f}%.")
    ks = found.asked.base.ks
    if len(ks) > 1:
        more, _ = difference(winner.scores[max(ks)], winner.scores[found.k])
        said.append(
            f"Of the sizes asked for ({', '.join(map(str, ks))}), {found.k} is the smallest within "
            "one standard error of the best"
            + (f"; {max(ks)} genes score {100 * more:+.1f} points." if max(ks) > found.k else ".")
        )
    elif elbow <= 0.8 * found.k:
        said.append(
            f"The curve bends at {elbow} genes: more raise the score by less than its standard "
            "error, and stand in where probes fail."
        )
    if pairs:
        named = "; ".join(f"{pair.a} and {pair.b}" for pair in pairs[:3])
        said.append(f"What it confuses most: {named}.")
    return tuple(said)


def _facts(found: Found) -> list[tuple[str, str]]:
    """How it was made."""
    asked, run = found.asked, found.final
    lines = [
        ("Data", ", ".join(Path(file.name).name for file in asked.spec.files) or asked.spec.id),
        ("Classes", asked.task),
        ("Parts", f"{found.folds}, {asked.group} kept whole" if asked.group
         else f"{found.folds}, of the same class shares"),
        ("Selectors", ", ".join(row.label for row in found.parts.rows)),
        ("Winner's parameters", ", ".join(f"{k}={v}" for k, v in run.question.params.items())
         or "none"),
        ("Key of the final selection", run.key),
        ("Records", "runs/ beside this page; `panelbench show KEY --results` this folder"),
        ("panelbench", __version__),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in
                                (found.record.environment.get("versions") or {}).items())),
    ]  # fmt: skip
    lines += [("Note", str(note)) for note in found.facts.get("notes") or ()]
    left = (found.record.result.get("constraints") or {}).get("left_out") or {}
    if left:
        told = ", ".join(f"{name}: {count}" for name, count in left.items())
        lines.append(("Left out by constraints", told))
    return [(name, text) for name, text in lines if text]


def as_json(found: Found) -> dict[str, Any]:
    """What a program wants to know."""
    return {
        "k": found.k,
        "winner": found.choice.winner.variant,
        "panel": found.panel,
        "folds": found.folds,
        "selectors": [
            {
                "method": item.candidate.variant,
                "f1_macro": {str(k): v.tolist() for k, v in item.candidate.scores.items()},
                "behind": item.behind,
                "error": item.error,
                "as_good": item.as_good,
                "stability": item.candidate.stability,
                "seconds": item.candidate.seconds,
                "problem": item.candidate.problem,
            }
            for item in found.choice.standings
        ],
    }
