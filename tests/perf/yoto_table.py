"""Tables of kept runs: YOTO against the best classical selector, its ranks and its stability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

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
    """Mean share of genes that the panels of two seeds have in common."""
    panels: dict[Key, list[set[str]]] = defaultdict(list)
    for line in lines:
        run = line["run"]
        if "own" not in line or run["variant"] in variants:
            panels[run["dataset"], run["k"], run["variant"]].append(set(line["panel"]))
    return {
        key: float(np.mean([len(a & b) / len(a | b) for a, b in combinations(sets, 2)]))
        for key, sets in panels.items()
        if len(sets) > 1
    }


def tables(lines: list[dict[str, Any]], variants: Sequence[str] | None) -> None:
    """Print, over the seeds that every method has: scores, ranks, stability, what more genes do."""
    import pandas as pd

    from panelbench.scoring.comparison import cliques, compare

    variants = variants or ["defaults"]
    found = scores(lines, variants)
    common = jaccard(lines, variants)
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
            f"| {common.get((data, k, variants[0]), float('nan')):.2f} |"
        )
    if not rows:
        return
    compared = compare(pd.DataFrame(rows).T, incomplete="drop-columns")
    print("\nMean ranks over", compared.columns, "columns:", *compared.notes)
    for who, rank in compared.mean_rank.items():
        print(f"  {rank:.2f} {who}")
    print(f"Friedman p = {compared.p_value:.2g}; not told apart:", *cliques(compared))
    for who in ours:
        one = [who, *classical]
        alone = compare(pd.DataFrame(rows).T[one], incomplete="drop-columns").mean_rank
        changes = [
            rows[data, 64][who] - rows[data, 32][who]
            for data, k in rows
            if k == 64 and (data, 32) in rows
        ]
        print(f"{who}: mean rank {alone[who]:.2f} of {len(one)}; from k 32 to 64", end=" ")
        print(" ".join(f"{change:+.3f}" for change in changes))
