"""Auxiliary gene learning on breast cancer sections: does it help, and how far down the list?

    python tests/perf/agl_her2st.py DATA/her2st.h5ad runs.jsonl             # all runs, resumable
    python tests/perf/agl_her2st.py DATA/her2st.h5ad runs.jsonl --tables    # Markdown from them

Inputs are 81 hand-made image features, targets log(1 + counts) without size factors. Primary genes
are the 50 most variable ones on the training spots, of all genes (`variable`, as in the paper) or
of those found in half of the spots (`detected`). Folds: `inter` holds out one of the six sections
(five of patient C, one of patient B) and validates on the next section of patient C; `intra`
rotates five folds of the spots of every section, the next fold being validation. A value is the
Pearson correlation of a gene over the test spots of a section, averaged over primary genes, then
over sections. "Adjusted": the logarithm of the spot's total count is regressed out of truth and
prediction, by gene and section, before they are correlated.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from panelbench.methods import agl

STRATEGIES: dict[str, dict[str, Any]] = {
    "agl-none": {"strategy": "none"},
    "agl-all": {"strategy": "all"},
    "agl": {},
    "agl-hvg 500": {"strategy": "hvg", "n_auxiliary": 500},
    "agl-hvg 2000": {"strategy": "hvg", "n_auxiliary": 2000},
    "agl-hvg 6000": {"strategy": "hvg", "n_auxiliary": 6000},
    "agl-random 2000": {"strategy": "random", "n_auxiliary": 2000},
    "agl-uncertainty": {"strategy": "uncertainty"},
    "agl-amal": {"strategy": "amal"},
}
BASELINES = ("ridge", "ridge, shuffled")
COMMON: dict[str, Any] = {
    "hidden": (128, 64), "lr": 5e-4, "epochs": 200, "patience": 15, "warmup": 10, "min_cells": 10,
    "lr_weights": 1e-2,
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """The spots."""

    inputs: np.ndarray
    expression: np.ndarray
    genes: np.ndarray
    section: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Fold:
    """Rows of one split."""

    name: str
    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read(path: Path) -> Data:
    """Read the spots; a spot of fewer than 200 genes is left out."""
    import anndata as ad

    data = ad.read_h5ad(path)
    counts = data.X.toarray()
    keep = (counts > 0).sum(axis=1) >= 200
    return Data(
        np.asarray(data.obsm["image_features"], dtype=np.float32)[keep],
        np.log1p(counts[keep]).astype(np.float32),
        data.var_names.to_numpy(dtype=str),
        data.obs["section"].to_numpy(dtype=str)[keep],
        np.log(counts[keep].sum(axis=1)),
    )


def folds(data: Data, kind: str, seed: int) -> Iterator[Fold]:
    """Splits of a kind; only the intra ones depend on the seed."""
    if kind == "inter":
        names = np.unique(data.section)
        of_c = [name for name in names if name.startswith("C")]
        for name in names:
            after = of_c[(of_c.index(name) + 1) % len(of_c)] if name in of_c else of_c[-1]
            test, validation = data.section == name, data.section == after
            yield Fold(str(name), *map(np.flatnonzero, (~test & ~validation, validation, test)))
        return
    rng = np.random.default_rng([seed, 11])
    part = np.empty(len(data.section), dtype=int)
    for name in np.unique(data.section):
        rows = rng.permutation(np.flatnonzero(data.section == name))
        part[rows] = np.arange(len(rows)) % 5
    for i in range(5):
        test, validation = part == i, part == (i + 1) % 5
        yield Fold(str(i), *map(np.flatnonzero, (~test & ~validation, validation, test)))


def adjusted(values: np.ndarray, depth: np.ndarray, section: np.ndarray) -> np.ndarray:
    """Regress depth out of every column, section by section."""
    result = values.astype(np.float64)
    for name in np.unique(section):
        rows = section == name
        x = depth[rows] - depth[rows].mean()
        y = result[rows] - result[rows].mean(axis=0)
        result[rows] = y - np.outer(x, x @ y / (x @ x))
    return result


def run(data: Data, fold: Fold, method: str, seed: int, primary: str) -> dict[str, Any]:
    """Train on a fold and score its test spots."""
    start = time.process_time()
    rows = np.concatenate([fold.training, fold.validation])
    validation = np.arange(len(rows)) >= len(fold.training)
    inputs, expression = data.inputs[rows], data.expression[rows]

    training = expression[~validation]
    order, _ = agl.dispersion_order(training)
    often = (training > 0).sum(axis=0) >= (10 if primary == "variable" else len(training) / 2)
    outputs = order[often[order]][:50]
    names = data.genes[outputs].tolist()

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(purpose.encode())])

    facts: dict[str, Any] = {}
    if method.startswith("ridge"):
        if method == "ridge, shuffled":
            inputs = inputs[rng("shuffle").permutation(len(inputs))]
        predictor: Any = agl.fit_ridge(
            inputs, expression[:, outputs], names, validation, data.section[rows]
        )
    else:
        problem = agl.Problem(
            inputs, expression, data.genes, validation, data.section[rows], primary=tuple(names)
        )
        fitted = agl.fit(problem, agl.Params(**COMMON | STRATEGIES[method]), rng)
        predictor = fitted.predictor
        facts = {
            "k": fitted.k,
            "last_k": fitted.last_k,
            "n": len(fitted.auxiliary),
            "best": fitted.best_epoch,
            "epochs": len(fitted.trace),
            "saturated": fitted.saturated,
            "ks": [entry["k"] for entry in fitted.trace],
            "curve": [entry["validation"] for entry in fitted.trace],
        }
    predicted = predictor.predict(data.inputs[fold.test])
    truth = data.expression[fold.test][:, outputs]
    section, depth = data.section[fold.test], data.depth[fold.test]
    return {
        "raw": agl.mean_correlation(predicted, truth, section),
        "adjusted": agl.mean_correlation(
            adjusted(predicted, depth, section), adjusted(truth, depth, section), section
        ),
        "seconds": round(time.process_time() - start, 1),
        **facts,
    }


def run_all(args: argparse.Namespace) -> None:
    """Append one line per run that is not there yet."""
    data, known = read(args.data), {key(line) for line in lines(args.runs)}
    for seed in args.seeds:
        for kind in args.kinds:
            for fold in folds(data, kind, seed):
                for method in args.methods:
                    facts = {"kind": kind, "fold": fold.name, "seed": seed, "method": method,
                             "primary": args.primary}  # fmt: skip
                    if key(facts) in known:
                        continue
                    facts |= run(data, fold, method, seed, args.primary)
                    with args.runs.open("a") as file:
                        file.write(json.dumps(facts) + "\n")
                    shown = {k: v for k, v in facts.items() if k not in ("ks", "curve")}
                    print(shown, flush=True)


def lines(path: Path) -> list[dict[str, Any]]:
    """Runs that were written."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    """What identifies a run."""
    return tuple(run[name] for name in ("primary", "kind", "fold", "seed", "method"))


def tables(args: argparse.Namespace) -> None:
    """Print means over folds and seeds, and paired differences to none and to all."""
    runs = lines(args.runs)
    found = {key(run): run for run in runs}
    for primary, kind in product(("variable", "detected"), ("inter", "intra")):
        here = [run for run in runs if (run["primary"], run["kind"]) == (primary, kind)]
        print(f"\n### {kind}, primary genes: {primary}\n")
        print("| method | runs | Pearson | minus none | minus all | adjusted | minus none | k |")
        print("|" + "---|" * 8)
        for method in (*BASELINES, *STRATEGIES):
            mine = [run for run in here if run["method"] == method]
            if not mine:
                continue
            cells = [f"{np.mean([r['raw'] for r in mine]):.3f}"]
            for value, other in (("raw", "agl-none"), ("raw", "agl-all")):
                cells.append(paired(mine, found, value, other))
            cells.append(f"{np.mean([r['adjusted'] for r in mine]):.3f}")
            cells.append(paired(mine, found, "adjusted", "agl-none"))
            ks = [r["k"] for r in mine if method in ("agl", "agl-amal")]
            shown = f"{np.median(ks):.0f} ({min(ks)} to {max(ks)}) of {mine[0]['n']}" if ks else ""
            print(f"| {method} | {len(mine)} | " + " | ".join(cells) + f" | {shown} |")
        print("\nPaired differences: mean, spread (sd) over folds and seeds, and how many are > 0.")


def paired(mine: list[dict[str, Any]], found: dict[Any, Any], value: str, other: str) -> str:
    """Differences to another method on the same folds and seeds."""
    partners = [found.get(key(run | {"method": other})) for run in mine]
    pairs = [
        run[value] - partner[value]
        for run, partner in zip(mine, partners, strict=True)
        if partner is not None and partner is not run
    ]
    if not pairs:
        return ""
    positive = sum(p > 0 for p in pairs)
    return f"{np.mean(pairs):+.3f} ± {np.std(pairs):.3f} ({positive}/{len(pairs)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="*", default=["inter", "intra"])
    parser.add_argument("--primary", choices=("variable", "detected"), default="variable")
    parser.add_argument("--methods", nargs="*", default=[*BASELINES, *STRATEGIES])
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables(args) if args.tables else run_all(args)


if __name__ == "__main__":
    main()
