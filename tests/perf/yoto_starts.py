"""Orders of genes that YOTO's scores could start from, judged without the cells that judge them.

    python tests/perf/yoto_starts.py --out starts.jsonl [--datasets her2st ...] [--seeds 0 1 2]
    python tests/perf/yoto_starts.py --table starts.jsonl runs.jsonl

Boosting, marker lists of two tests, and boosting with them, by the product of places. Every fold of
the training cells is predicted from a panel of the other folds (as the default does to choose its
start): the loss of the default's networks, and its standard error against boosting. The test cells
get a forest on the panel of all training cells. With --table, what wins on the other data sets is
judged on each one, and so are ways to choose by the folds; ``runs.jsonl`` holds the classical
selectors (`yoto_quality`).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from yoto_data import SINGLE, Split, load
from yoto_quality import forest, make_task, read

MARGIN = 2.0
TESTS = ("wilcoxon", "t-test")


def orders(split: Split, cells: Any, encoding: Any, seed: int, used: Any) -> dict[str, np.ndarray]:
    """Candidates, best first, by each order, from the cells used (None: all)."""
    from panelbench.methods.yoto.relevance import relevances
    from panelbench.methods.yoto.start import best_first

    from panelbench.registry import discover

    count = min(len(cells.genes), 512)
    boosting = best_first(relevances(cells, encoding, count, used)["boosting"]).numpy()
    place = {gene: i for i, gene in enumerate(split.genes[cells.genes])}
    found = {"boosting": boosting}
    part = split if used is None else subset(split, used.numpy())
    for name in TESTS:
        method = discover().methods[name]
        task = make_task(part, 64, seed, next(iter(split.truth)))
        ranking = method.select(task, method.params()).ranking
        listed = [place[gene] for gene in ranking if gene in place][:64]
        found[name] = np.array([*listed, *(g for g in boosting if g not in set(listed))])
    logs = {name: np.log1p(np.argsort(order)) for name, order in found.items()}
    for name in TESTS:
        product = logs["boosting"] + logs[name]
        found[f"boosting and {name}"] = np.argsort(product, kind="stable")
    product = logs["boosting"] + (logs[TESTS[0]] + logs[TESTS[1]]) / 2
    found["all three"] = np.argsort(product, kind="stable")
    return found


def subset(split: Split, cells: np.ndarray) -> Split:
    """A split with some of its training cells."""
    labels = {n: replace(t, values=t.values[cells]) for n, t in split.labels.items()}
    groups = None if split.groups is None else split.groups[cells]
    return replace(split, X=split.X[cells], labels=labels, groups=groups)


def judge(split: Split, seed: int, ks: list[int]) -> list[dict[str, Any]]:
    """Scores of all orders on one split, a row per k."""
    import torch
    from panelbench.methods import yoto
    from panelbench.methods.yoto.crossfit import passes
    from panelbench.methods.yoto.data import Cells
    from panelbench.methods.yoto.encoding import Encoding
    from panelbench.methods.yoto.fit import Fit
    from panelbench.methods.yoto.folds import assign_folds

    from panelbench.nn import one_thread

    settings = yoto.settings(yoto.Params())
    task, name = make_task(split, 32, seed), next(iter(split.truth))
    rows = []
    with one_thread():
        cells = Cells(task, standardize=True)
        encoding = Encoding(cells, settings.levels, task.rng("yoto levels"))
        folds = assign_folds(cells.labels, cells.groups, settings.folds, task.rng("yoto folds"))
        fold, epochs = torch.from_numpy(folds), max(1, passes(settings, cells.n_cells) // 2)
        outside = [fold != number for number in fold.unique().tolist()]
        nested = [orders(split, cells, encoding, seed, used) for used in outside]
        for k in ks:
            row, losses = {}, {}
            for order, best in orders(split, cells, encoding, seed, None).items():
                loss = torch.zeros(cells.n_cells, dtype=torch.float64)
                for found, used in zip(nested, outside, strict=True):
                    fit = Fit(task, cells, torch.from_numpy(found[order][:k]), encoding, settings)
                    loss += fit.held_out(used[None], (0.3,), epochs)[0]
                losses[order] = loss
                less = loss - losses["boosting"]
                row[order] = {
                    "test": forest(split, cells.genes[best[:k]], name, seed),
                    "loss": float(loss.mean()),
                    "difference": float(less.mean()),
                    "error": float(less.std()) / len(less) ** 0.5,
                }
            rows.append({"k": k, "seed": seed, "orders": row})
    return rows


def choices(row: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Test score of every order, and of what the folds would choose."""
    found = {name: facts["test"] for name, facts in row.items()}
    both, plain = row["boosting and wilcoxon"], row["boosting"]
    ahead = both["difference"] < -MARGIN * both["error"]
    found["chosen: boosting and wilcoxon where ahead by 2 errors"] = (both if ahead else plain)[
        "test"
    ]
    found["chosen: the lesser loss of the two"] = min(both, plain, key=lambda x: x["loss"])["test"]
    found["chosen: the least loss of all"] = min(row.values(), key=lambda x: x["loss"])["test"]
    return found


def table(kept: Path, classical: list[Path]) -> None:
    """Print mean ranks and gaps, and each data set judged by what wins on the others."""
    from scipy.stats import rankdata

    best: dict[Any, dict[str, float]] = defaultdict(dict)
    for item in read(classical):
        run = item["run"]
        if "own" not in item:
            key = (run["dataset"], run["k"], run["seed"])
            best[key][run["variant"]] = next(iter(item["forest"].values()))
    scores: dict[Any, list[dict[str, float]]] = defaultdict(list)
    known: dict[Any, list[dict[str, float]]] = defaultdict(list)
    for line in kept.read_text().splitlines():
        row = json.loads(line)
        scores[row["dataset"], row["k"]].append(choices(row["orders"]))
        known[row["dataset"], row["k"]].append(best[row["dataset"], row["k"], row["seed"]])
    columns, names = sorted(scores), list(next(iter(scores.values()))[0])
    means = np.array([[np.mean([s[n] for s in scores[c]]) for n in names] for c in columns])
    yard = np.array([max(np.mean([k[m] for k in known[c]]) for m in known[c][0]) for c in columns])
    ranks = rankdata(-means, axis=1)
    print("| start | mean rank | worst gap | mean gap |\n|---|---|---|---|")
    for i, name in enumerate(names):
        gap = means[:, i] - yard
        print(f"| {name} | {ranks[:, i].mean():.2f} | {gap.min():+.3f} | {gap.mean():+.3f} |")
    print("\n| left out | chosen by the others | its forest | boosting | best classical |")
    print("|---|---|---|---|---|")
    for dataset in sorted({c[0] for c in columns}):
        here = np.array([c[0] == dataset for c in columns])
        won = int(ranks[~here].mean(axis=0).argmin())
        values = (means[here, won], means[here, names.index("boosting")], yard[here])
        print(f"| {dataset} | {names[won]} | " + " | ".join(f"{v.mean():.3f}" for v in values), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--datasets", nargs="+", choices=SINGLE, default=SINGLE)
    parser.add_argument("--k", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", nargs="+", type=Path)
    args = parser.parse_args()
    if args.table:
        table(args.table[0], args.table[1:])
        return
    for name in args.datasets:
        for seed in args.seeds:
            for row in judge(load(args.data, name, seed), seed, args.k):
                with args.out.open("a") as out:
                    out.write(json.dumps({"dataset": name, **row}) + "\n")


if __name__ == "__main__":
    main()
