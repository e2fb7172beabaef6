"""Macro-F1 of YOTO and of the classical selectors on all development data sets.

    python tests/perf/yoto_quality.py --out runs.jsonl                       # the defaults
    python tests/perf/yoto_quality.py --out runs.jsonl --variant "epochs=100" --datasets mca_fine
    python tests/perf/yoto_quality.py --out runs.jsonl --classical
    python tests/perf/yoto_quality.py --out learned.jsonl --selector persist markermap hsic-lasso
    python tests/perf/yoto_quality.py --out missing.jsonl --datasets mca_gut --missing 0.3
    python tests/perf/yoto_quality.py --table runs.jsonl                 # against the classical

Needs the data folder (``../shared/data``, or --data). Every run is one line of JSON in --out, and
what is there is not run again. A run of YOTO gives the score of its own predictor and of a random
forest on its panel, a classical selector that of a forest. `yoto_data` describes data and splits,
`yoto_table` the tables.
"""

from __future__ import annotations

import argparse
import ast
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from yoto_data import SETS, SINGLE, Split, load

from panelbench.errors import PanelbenchError
from panelbench.method import Task, frozen_mapping

CLASSICAL = (
    "mrmr-f", "mrmr-rf", "wilcoxon", "wilcoxon-tie", "t-test", "cosg", "rf-importance",
    "hsic-lasso",
)  # fmt: skip


Job = Callable[[Split, list[int], int], Iterator[Any]]
"""Runs of one method on a split for some k and a seed: pairs of k and what is kept."""


def score(truth: np.ndarray, found: np.ndarray) -> float:
    """Macro-F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, found, average="macro"))


def forest(split: Split, panel: np.ndarray, task: str, seed: int) -> float:
    """Macro-F1 of a random forest on a panel."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(random_state=seed)
    model.fit(split.X[:, panel], split.labels[task].values)
    return score(split.truth[task], model.predict(split.X_test[:, panel]))


def make_task(split: Split, k: int, seed: int, *names: str) -> Task:
    """A task over some or all labels of a split."""
    labels = {name: split.labels[name] for name in names or split.labels}
    return Task(
        split.X, split.genes, frozen_mapping(labels), k, seed,
        counts=np.expm1(split.X), groups=split.groups,
    )  # fmt: skip


def columns(split: Split, ranking: Any, k: int) -> np.ndarray:
    """Columns of the first k genes of a ranking."""
    place = {gene: i for i, gene in enumerate(split.genes)}
    return np.array([place[gene] for gene in list(ranking)[:k]])


def yoto_run(split: Split, k: int, seed: int, params: Any) -> dict[str, Any]:
    """One training for all tasks: its own predictor, and a forest per task on its panel."""
    from panelbench.methods import yoto

    start = time.process_time()
    selection = yoto.select(make_task(split, k, seed), params)
    seconds = time.process_time() - start
    panel = columns(split, selection.ranking, k)
    predictor: Any = selection.predictor
    own = {
        name: score(truth, predictor.predict_proba(name, split.X_test[:, panel]).argmax(axis=1))
        for name, truth in split.truth.items()
    }
    on_panel = {name: forest(split, panel, name, seed) for name in split.truth}
    return {
        "own": own,
        "forest": on_panel,
        "seconds": round(seconds, 1),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "panel": split.genes[panel].tolist(),
        "info": {key: selection.info[key] for key in ("chosen",) if key in selection.info},
    }


def selector_runs(split: Split, method: str, ks: list[int], seed: int) -> Iterator[Any]:
    """Another selector, a panel per task: a forest on it. One ranking serves every k if it may."""
    from panelbench.registry import discover

    spec = discover().methods[method]
    trained: dict[int, Any] = {}
    for k in ks:
        size = max(ks) if spec.nested else k
        if size not in trained:
            start = time.process_time()
            trained[size] = (
                {
                    name: spec.select(make_task(split, size, seed, name), spec.params()).ranking
                    for name in split.truth
                },
                time.process_time() - start,
            )
        rankings, seconds = trained[size]
        panels = {name: columns(split, ranking, k) for name, ranking in rankings.items()}
        yield (
            k,
            {
                "forest": {
                    name: forest(split, panel, name, seed) for name, panel in panels.items()
                },
                "seconds": round(seconds, 1),
                "panel": split.genes[next(iter(panels.values()))].tolist(),
            },
        )


def hidden(split: Split, task: str, share: float, seed: int) -> Split:
    """The split with a share of the training labels of one task left out."""
    target = split.labels[task]
    gone = np.random.default_rng(seed).random(len(target.values)) < share
    values = np.where(gone, -1, target.values)
    return replace(split, labels={**split.labels, task: replace(target, values=values)})


def parameters(text: str) -> dict[str, Any]:
    """Parameters written as "beta=0.3, preset=paper"."""
    parts = [part.split("=", 1) for part in text.split(", ") if part]
    quoted = (v if v[0] in "0123456789.([TFN-" else repr(v) for _, v in parts)
    body = ", ".join(f"{n!r}: {v}" for (n, _), v in zip(parts, quoted, strict=True))
    found: dict[str, Any] = ast.literal_eval("{" + body + "}")
    return found


def jobs(args: argparse.Namespace, name: str) -> dict[str, Job]:
    """What is run on a data set, by the name it is kept under."""
    from panelbench.methods import yoto

    def training(variant: str, task: str = "", share: float = 0.0) -> Job:
        params = yoto.Params(**parameters(variant))

        def job(split: Split, ks: list[int], seed: int) -> Iterator[Any]:
            for k in ks:
                yield (
                    k,
                    yoto_run(hidden(split, task, share, seed) if task else split, k, seed, params),
                )

        return job

    def selector(method: str) -> Job:
        return lambda split, ks, seed: selector_runs(split, method, ks, seed)

    names = CLASSICAL if args.classical else args.selector
    if names:
        return {method: selector(method) for method in names}
    found = {variant or "defaults": training(variant) for variant in args.variant or [""]}
    for share in args.missing:
        for task in SETS[name].tasks:
            found[f"defaults, {share:.0%} of {task} hidden"] = training("", task, share)
    return found


def runs(args: argparse.Namespace, done: set[str]) -> Iterator[dict[str, Any]]:
    """Do all runs that are asked for and not there yet."""
    for seed in args.seeds:
        for name in args.datasets:
            for variant, job in jobs(args, name).items():
                what = {
                    k: {"dataset": name, "k": k, "seed": seed, "variant": variant} for k in args.k
                }
                missing = [k for k, item in what.items() if identity(item) not in done]
                try:
                    for k, found in job(load(args.data, name, seed), missing, seed):
                        yield {"run": what[k]} | found
                except PanelbenchError as error:  # does not suit these data, and says so
                    print(f"{variant} on {name}: {error}", flush=True)


def identity(run: dict[str, Any]) -> str:
    """Key of a run among those kept."""
    return json.dumps(run, sort_keys=True)


def read(files: list[Path]) -> list[dict[str, Any]]:
    """Lines of runs kept."""
    return [json.loads(line) for file in files if file.exists() for line in file.open()]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=SINGLE, choices=list(SETS))
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variant", action="append", help='parameters, as "beta=0.3, epochs=200"')
    parser.add_argument("--classical", action="store_true", help="the classical selectors")
    parser.add_argument("--selector", nargs="+", default=[], help="other selectors of the suite")
    parser.add_argument(
        "--missing", type=float, nargs="+", default=[], help="shares of each task's labels to hide"
    )
    parser.add_argument("--out", type=Path, help="keep the runs here, as lines of JSON")
    parser.add_argument("--table", type=Path, nargs="+", help="tables of kept runs, no new run")
    parser.add_argument("--picture", type=Path, help="with --table: mean ranks, as SVG")
    args = parser.parse_args()
    if args.table:
        import yoto_table

        lines = read(args.table)
        if args.missing:
            yoto_table.each_task(lines)
        elif args.selector:
            yoto_table.more_genes(lines, args.selector)
        else:
            yoto_table.tables(lines, args.variant, args.picture)
        return
    torch.set_num_threads(1)
    done = {identity(line["run"]) for line in read([args.out] if args.out else [])}
    for line in runs(args, done):
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
        means = {w: np.mean([*line[w].values()]) for w in ("own", "forest") if w in line}
        text = " ".join(f"{w} {v:.3f}" for w, v in means.items())
        print(line["run"], text, f"{line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
