"""Tables of kept runs: YOTO against the best classical selector, its ranks and its stability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from yoto_data import SETS

Key = tuple[str, int, str]
"""Data set, k, and who scored: a classical selector, or a variant with ``own`` or ``forest``."""


def scores(lines: list[dict[str, Any]], variants: Sequence[str]) -> dict[Key, dict[int, float]]:
    """Macro-F1 by seed, the mean over tasks."""
    found: dict[Key, dict[int, float]] = defaultdict(dict)
    for line in lines:
        run = line["run"]
        where = run["dataset"], run["k"]
        if "own" not in line:
            found[*where, run["variant"]][run["seed"]] = float(np.mean([*line["forest"].values()]))
        elif run["variant"] in variants:
            for who in ("own", "forest"):
                name = f"{run['variant']} {who}"
                found[*where, name][run["seed"]] = float(np.mean([*line[who].values()]))
    return found


def jaccard(lines: list[dict[str, Any]], variants: Sequence[str]) -> dict[Key, float]:
    """Mean share of genes that the panels of two seeds have in common; synthetic cells have other
    genes for each seed, so none."""
    panels: dict[Key, list[set[str]]] = defaultdict(list)
    for line in lines:
        run = line["run"]
        if SETS[run["dataset"]].synthetic:
            continue
        if "own" not in line or run["variant"] in variants:
            panels[run["dataset"], run["k"], run["variant"]].append(set(line["panel"]))
    return {
        key: float(np.mean([len(a & b) / max(1, len(a | b)) for a, b in combinations(sets, 2)]))
        for key, sets in panels.items()
        if len(sets) > 1
    }


def left_out(found: dict[Key, dict[int, float]], variants: Sequence[str]) -> None:
    """Print what each data set gets from the setting that wins on the others.

    A setting's gap on a data set is the mean of its own predictor and the forest on its panel less
    the best classical selector, over the sizes and seeds that all settings have. The setting with
    the best mean rank on the other data sets is chosen, among equals by the worst gap there.
    """
    from scipy.stats import rankdata

    whole = [f"{variant} {who}" for variant in variants for who in ("own", "forest")]
    cells: dict[str, list[np.ndarray]] = defaultdict(list)
    for data, k in sorted({key[:2] for key in found}):
        if not all((data, k, who) in found for who in whole):
            continue
        seeds = set.intersection(*(set(found[data, k, who]) for who in whole))
        values = {
            who: np.mean([by_seed[seed] for seed in seeds])
            for (d, size, who), by_seed in found.items()
            if (d, size) == (data, k) and seeds and seeds <= set(by_seed)
        }
        classical = [v for who, v in values.items() if not who.endswith((" own", " forest"))]
        if classical:
            ours = np.array([values[who] for who in whole]).reshape(-1, 2)
            cells[data].append(np.column_stack([ours, np.full(len(ours), max(classical))]))
    if len(variants) < 2 or len(cells) < 2:
        return
    scored = {data: np.mean(parts, axis=0) for data, parts in cells.items()}
    gaps = {data: part[:, :2].mean(axis=1) - part[:, 2] for data, part in scored.items()}
    ranks = {data: rankdata(-gap) for data, gap in gaps.items()}
    print("\n| setting | mean rank | worst gap | mean gap |\n|---|---|---|---|")
    for number, variant in enumerate(variants):
        ours = np.array([gap[number] for gap in gaps.values()])
        place = np.mean([rank[number] for rank in ranks.values()])
        print(f"| {variant} | {place:.2f} | {ours.min():+.3f} | {ours.mean():+.3f} |")
    print(
        "\n| left out | chosen by the others | own | forest | best classical |\n" + "|---" * 5 + "|"
    )
    for data, part in scored.items():
        others = [name for name in scored if name != data]
        keys = [
            (np.mean([ranks[o][i] for o in others]), -min(gaps[o][i] for o in others), i)
            for i in range(len(variants))
        ]
        number = min(keys)[2]
        own, forest, best = part[number]
        print(f"| {data} | {variants[number]} | {own:.3f} | {forest:.3f} | {best:.3f} |")


def more_genes(lines: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Print what twice the genes bring each selector, and how alike its panels are between seeds.

    A variant of YOTO counts by the forest on its panel, like every other selector.
    """
    found: dict[Key, dict[int, float]] = defaultdict(dict)
    for line in lines:
        run = line["run"]
        mean = float(np.mean([*line["forest"].values()]))
        found[run["dataset"], run["k"], run["variant"]][run["seed"]] = mean
    common = jaccard(lines, names)
    print(
        "| data set | selector | seeds | k 32 | k 64 | change | Jaccard 32 / 64 |\n"
        + "|---" * 7
        + "|"
    )
    for data in sorted({key[0] for key in found}):
        for name in names:
            few, many = found.get((data, 32, name), {}), found.get((data, 64, name), {})
            seeds = sorted(set(few) & set(many))
            if not seeds:
                continue
            a, b = (float(np.mean([by[seed] for seed in seeds])) for by in (few, many))
            alike = " / ".join(f"{common.get((data, k, name), float('nan')):.2f}" for k in (32, 64))
            print(
                f"| {data} | {name} | {len(seeds)} | {a:.3f} | {b:.3f} | {b - a:+.3f} | {alike} |"
            )


def each_task(lines: list[dict[str, Any]]) -> None:
    """Print the own predictor's score of every task, and its change against the same seed's run
    with all labels, mean and standard error."""
    found: dict[tuple[str, int, str], dict[int, dict[str, float]]] = defaultdict(dict)
    for line in lines:
        run = line["run"]
        found[run["dataset"], run["k"], run["variant"]][run["seed"]] = line["own"]
    print("| data set | k | labels | seeds | task | own | change |\n" + "|---" * 7 + "|")
    for (data, k, variant), by_seed in found.items():
        whole = found.get((data, k, "defaults"), {})
        seeds = sorted(set(by_seed) & set(whole))
        for task in by_seed[seeds[0]] if seeds else ():
            change = np.array([by_seed[seed][task] - whole[seed][task] for seed in seeds])
            error = change.std(ddof=1) / len(change) ** 0.5 if len(change) > 1 else float("nan")
            mean = np.mean([by_seed[seed][task] for seed in seeds])
            text = f"{change.mean():+.3f} ± {error:.3f}" if variant != "defaults" else ""
            print(f"| {data} | {k} | {variant} | {len(seeds)} | {task} | {mean:.3f} | {text} |")


def tables(
    lines: list[dict[str, Any]], variants: Sequence[str] | None, picture: Path | None = None
) -> None:
    """Print, over the seeds that every method has: scores, ranks, stability, what more genes do."""
    import pandas as pd

    from panelbench.report import figures
    from panelbench.scoring.comparison import cliques, compare

    variants = variants or ["defaults"]
    found = scores(lines, variants)
    common = jaccard(lines, variants)
    left_out(found, variants)
    names = sorted({who for *_, who in found})
    ours = [who for who in names if who.endswith((" own", " forest"))]
    classical = [who for who in names if who not in ours]
    rows: dict[tuple[str, int], dict[str, float]] = {}
    print(f"| data set | k | seeds | {' | '.join(ours)} | best classical | gap | rank | Jaccard |")
    print("|" + "---|" * (7 + len(ours)))
    for data, k in sorted({key[:2] for key in found}):
        if not all((data, k, who) in found for who in ours):
            continue
        seeds = set.intersection(*(set(found[data, k, who]) for who in ours))
        here = {
            who: float(np.mean([values[seed] for seed in seeds]))
            for who in names
            if seeds and seeds <= set(values := found.get((data, k, who), {}))
        }
        if not here or not set(here) & set(classical):
            continue
        rows[data, k] = here
        best = max((who for who in classical if who in here), key=here.__getitem__)
        ranks = [1 + sum(here[c] > here[who] for c in classical if c in here) for who in ours]
        gap = max(here[who] for who in ours) - here[best]
        print(
            f"| {data} | {k} | {len(seeds)} | {' | '.join(f'{here[who]:.3f}' for who in ours)} "
            f"| {best} {here[best]:.3f} | {gap:+.3f} | {' / '.join(map(str, ranks))} "
            f"| {common.get((data, k, variants[0]), float('nan')):.2f} |".replace("nan", "")
        )
    if not rows:
        return
    table = pd.DataFrame(rows).T.rename(columns=lambda who: who.replace("defaults ", "YOTO, "))
    compared = compare(table, incomplete="drop-columns")
    print("\nMean ranks over", compared.columns, "columns:", *compared.notes)
    if picture and (content := figures.RanksContent.of(compared)):
        with figures.style():
            picture.write_bytes(figures.save(figures.critical_difference(content))["svg"])
    for who, rank in compared.mean_rank.items():
        print(f"  {rank:.2f} {who}")
    print(f"Friedman p = {compared.p_value:.2g}; not told apart:", *cliques(compared))
    for who in ours:
        one = [who, *classical]
        alone = compare(pd.DataFrame(rows).T[one], incomplete="drop-columns").mean_rank
        changes = []
        for data in sorted({data for data, _ in rows}):
            few, many = (found.get((data, k, who), {}) for k in (32, 64))
            both = set(few) & set(many)
            changes += [np.mean([many[seed] - few[seed] for seed in both])] if both else []
        print(f"{who}: mean rank {alone[who]:.2f} of {len(one)}; from k 32 to 64", end=" ")
        print(" ".join(f"{change:+.3f}" for change in changes))
