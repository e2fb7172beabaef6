"""Macro-F1 of YOTO and of the classical selectors on three real data sets, setting by setting.

    python tests/perf/yoto_quality.py                                     # the defaults
    python tests/perf/yoto_quality.py --variant preset=paper --variant "beta=0.3, epochs=200"
    python tests/perf/yoto_quality.py --classical --datasets mca_gut
    python tests/perf/yoto_quality.py --single --datasets mca_gut --k 64
    python tests/perf/yoto_quality.py --missing 0.5 0.9 --datasets mca_gut --k 64

Needs the data folder (``../shared/data``, or --data). Splits are 80/20, stratified by the first
task, one per seed; counts are log-normalised to 10,000; mca_gut and pbmc3k keep the 2,000 genes
most variable among the training cells (Seurat v3). Every class counts, however rare. One line
per run, then the table of means; --out keeps the lines (JSON) and skips what is there.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.method import Target, Task, frozen_mapping

TASKS = {
    "citeseq": ["cell_type"],
    "mca_gut": ["compartment_derived", "cell_type_broad", "cell_type_fine"],
    "pbmc3k": ["lineage_derived", "cell_type_coarse_derived", "celltype"],
}
EPOCHS = {"citeseq": 80, "mca_gut": 400, "pbmc3k": 250}
"""About 2,200 steps each, where a variant does not say."""


@dataclass(frozen=True)
class Split:
    """Training and test cells of a data set."""

    X: np.ndarray
    X_test: np.ndarray
    genes: np.ndarray
    labels: Mapping[str, Target]
    truth: Mapping[str, np.ndarray]


@lru_cache(maxsize=1)
def load(folder: Path, name: str, seed: int) -> Split:
    """Read, split, log-normalise and choose genes on the training cells."""
    import anndata
    import scanpy as sc
    from scipy import io, sparse
    from sklearn.model_selection import train_test_split

    warnings.simplefilter("ignore")
    if name == "citeseq":
        counts = io.loadmat(folder / "mirror/CITEseq.mat")["G"].T.astype(np.float32)
        cells = anndata.AnnData(sparse.csr_matrix(counts))
        codes = io.loadmat(folder / "mirror/CITEseq-labels.mat")
        codes = next(value for key, value in codes.items() if not key.startswith("_"))
        cells.obs["cell_type"] = codes.ravel().astype(str)
    else:
        cells = anndata.read_h5ad(folder / f"{name}.h5ad")
    first = cells.obs[TASKS[name][0]].astype(str)
    train, test = map(
        np.sort,
        train_test_split(np.arange(cells.n_obs), test_size=0.2, random_state=seed, stratify=first),
    )
    columns = np.arange(cells.n_vars)
    if name != "citeseq":
        seen = np.flatnonzero(np.asarray((cells[train].X > 0).sum(axis=0)).ravel() >= 3)
        part = cells[train, seen].copy()
        sc.pp.highly_variable_genes(part, flavor="seurat_v3", n_top_genes=2000)
        columns = seen[part.var["highly_variable"].to_numpy()]
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    X = cells.X[:, columns].toarray().astype(np.float32)
    labels, truth = {}, {}
    for task in TASKS[name]:
        values = cells.obs[task].astype(str).astype("category")
        codes = values.cat.codes.to_numpy().astype(np.int64)
        labels[task] = Target(task, "classification", codes[train], tuple(values.cat.categories))
        truth[task] = codes[test]
    return Split(X[train], X[test], np.asarray(cells.var_names)[columns].astype(str), labels, truth)


def forest(split: Split, panel: np.ndarray, task: str, seed: int) -> float:
    """Macro-F1 of a random forest on a panel."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import f1_score

    model = RandomForestClassifier(random_state=seed)
    model.fit(split.X[:, panel], split.labels[task].values)
    found = model.predict(split.X_test[:, panel])
    return float(f1_score(split.truth[task], found, average="macro"))


def yoto_run(split: Split, labels: Mapping[str, Target], k: int, seed: int, params: Any) -> Any:
    """Macro-F1 per task of the built-in predictor and of a forest on the panel."""
    from panelbench.methods import yoto
    from sklearn.metrics import f1_score

    task = Task(split.X, split.genes, frozen_mapping(dict(labels)), k, seed)
    start = time.perf_counter()
    selection = yoto.select(task, params)
    seconds = time.perf_counter() - start
    place = {gene: i for i, gene in enumerate(split.genes)}
    panel = np.array([place[gene] for gene in selection.ranking[:k]])
    assert selection.predictor is not None
    builtin = {
        name: float(
            f1_score(
                split.truth[name],
                selection.predictor.predict_proba(name, split.X_test[:, panel]).argmax(axis=1),
                average="macro",
            )
        )
        for name in labels
    }
    turnover = float(np.mean(selection.info["curves"]["turnover"][-10:]))
    return builtin, {name: forest(split, panel, name, seed) for name in labels}, seconds, turnover


def runs(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every run that was asked for: what identifies it, and a function that does it."""
    from panelbench.methods import hsic_lasso, mrmr, yoto

    variants = args.variant or [""]
    for seed in args.seeds:
        for k in args.k:
            for name in args.datasets:
                base = {"dataset": name, "k": k, "seed": seed}
                split = load(args.data, name, seed)
                if args.classical:
                    methods = {
                        "mrmr-f": (mrmr.select_by_f, mrmr.Params()),
                        "mrmr-rf": (mrmr.select_by_forest, mrmr.Params()),
                        "hsic-lasso": (hsic_lasso.select, hsic_lasso.Params()),
                    }
                    for label, (select, params) in methods.items():
                        yield (
                            base | {"variant": label},
                            lambda s=select, p=params, x=split, r=base: classical(
                                x, s, p, r["k"], r["seed"]
                            ),
                        )
                    continue
                for text in variants:
                    given = {"epochs": EPOCHS[name]} | ast.literal_eval(_as_dict(text))
                    params = yoto.Params(**given)
                    for task in split.labels if args.single else []:
                        what = f"{text or 'defaults'}, {task} alone"
                        yield (
                            base | {"variant": what, "epochs": params.epochs},
                            lambda x=split, t=task, r=base, p=params: yoto_run(
                                x, {t: x.labels[t]}, r["k"], r["seed"], p
                            ),
                        )
                    for share in [] if args.single else args.missing or [0.0]:
                        for hidden in split.labels if share else [""]:
                            labels = dict(split.labels)
                            if hidden:
                                labels[hidden] = without(labels[hidden], share, seed)
                            what = text or "defaults"
                            what += f", {share:.0%} of {hidden} missing" if hidden else ""
                            yield (
                                base | {"variant": what, "epochs": params.epochs},
                                lambda x=split, ls=labels, r=base, p=params: yoto_run(
                                    x, ls, r["k"], r["seed"], p
                                ),
                            )


def _as_dict(text: str) -> str:
    parts = [part.split("=", 1) for part in text.split(", ") if part]
    quoted = (v if v[0] in "0123456789.([TFN-" else repr(v) for _, v in parts)
    return "{" + ", ".join(f"{n!r}: {v}" for (n, _), v in zip(parts, quoted, strict=True)) + "}"


def without(target: Target, share: float, seed: int) -> Target:
    """Remove a share of the labels at random."""
    values = target.values.copy()
    values[np.random.default_rng(seed).random(len(values)) < share] = -1
    return replace(target, values=values)


def classical(split: Split, select: Any, params: Any, k: int, seed: int) -> Any:
    """One panel and one forest per task."""
    place = {gene: i for i, gene in enumerate(split.genes)}
    scores, start = {}, time.perf_counter()
    for name, target in split.labels.items():
        task = Task(split.X, split.genes, frozen_mapping({name: target}), k, seed)
        panel = [place[gene] for gene in list(select(task, params).ranking)[:k]]
        scores[name] = forest(split, np.array(panel), name, seed)
    return {}, scores, time.perf_counter() - start, 0.0


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--datasets", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variant", action="append", help='parameters, as "beta=0.3, epochs=200"')
    parser.add_argument("--classical", action="store_true", help="mRMR-f, mRMR-rf, HSIC Lasso")
    parser.add_argument("--single", action="store_true", help="one training per task")
    parser.add_argument(
        "--missing", type=float, nargs="+", help="hide a share of one task's labels"
    )
    parser.add_argument("--out", type=Path, help="keep the runs here, as lines of JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, dict[str, Any]] = {}
    if args.out and args.out.exists():
        lines = map(json.loads, args.out.read_text().splitlines())
        done = {json.dumps(line["run"], sort_keys=True): line for line in lines}
    lines = []
    for run, function in runs(args):
        key = json.dumps(run, sort_keys=True)
        if key not in done:
            builtin, by_forest, seconds, turnover = function()
            done[key] = {"run": run, "builtin": builtin, "forest": by_forest, "seconds": seconds,
                         "turnover": turnover}  # fmt: skip
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
        lines.append(done[key])
        mean = {w: np.mean([*lines[-1][w].values()] or [np.nan]) for w in ("builtin", "forest")}
        print(
            run,
            *(f"{w} {v:.3f}" for w, v in mean.items()),
            f"{lines[-1]['seconds']:.0f} s",
            flush=True,
        )
    table(lines)


def table(lines: list[dict[str, Any]]) -> None:
    """Means over seeds, per task and over tasks; the spread is that of the seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        run = line["run"]
        groups.setdefault((run["dataset"], run["k"], run["variant"]), []).append(line)
    print("\n| data set | k | variant | seeds | built-in | forest | built-in per task | s |")
    print("|" + "---|" * 8)
    for (name, k, variant), members in sorted(groups.items()):
        cells = []
        for which in ("builtin", "forest"):
            means = [np.mean([*m[which].values()]) for m in members if m[which]]
            cells.append(f"{np.mean(means):.3f} ± {np.std(means):.3f}" if means else "–")
        which = "builtin" if members[0]["builtin"] else "forest"
        tasks = " / ".join(
            f"{np.mean([m[which][task] for m in members]):.3f}" for task in members[0][which]
        )
        seconds = np.mean([m["seconds"] for m in members])
        print(
            f"| {name} | {k} | {variant} | {len(members)} | {cells[0]} | {cells[1]} "
            f"| {tasks} | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
