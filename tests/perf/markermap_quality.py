"""MarkerMap and its relatives on CITE-seq in the suite's protocol, setting by setting.

    python tests/perf/markermap_quality.py                                  # the paper's preset
    python tests/perf/markermap_quality.py --variant preset=robust --seeds 0 1 2
    python tests/perf/markermap_quality.py --method markermap --variant "lr=1e-3, t_decay=0.9"

Needs the folder with the data files (``../shared/data/mirror``, or --mirror). Data, splits and
scaling are those of the suite `markermap`. One line per run: accuracy of nearest neighbours and of
a random forest on the panel, weighted F1 of the neighbours, accuracy of the method's own classifier
where it has one; mean squared error of its own reconstruction of the test cells, and of least
squares from the panel (predicting each gene's mean gives about 1).
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.method import Task

METHODS = ("markermap", "markermap-joint", "markermap-unsup", "concrete-vae", "gumbel-vae")


def prepared(mirror: Path, folder: Path) -> tuple[Any, Any]:
    """CITE-seq and its recipe, as the suite has them."""
    from panelbench.data.catalogue import find_catalogue, load_catalogue
    from panelbench.schema import parse, read_yaml
    from panelbench.stages.prepared import load
    from panelbench.stages.preprocess import prepare
    from panelbench.suite.specs import DatasetEntry

    suite = Path(__file__).parents[2] / "panelbench/suite/shipped/markermap.yaml"
    asked = next(item for item in read_yaml(suite)["datasets"] if item["dataset"] == "citeseq")
    entry = parse(DatasetEntry, asked, str(suite))
    spec = load_catalogue(find_catalogue())["citeseq"]
    spec = spec.model_copy(update={"recipe": entry.recipe, "split": entry.split})
    prepare(spec, folder / "citeseq.h5ad", folder, [mirror])
    return load(folder / "citeseq.h5ad"), spec


def split(cells: Any, spec: Any, method: Any, k: int, seed: int) -> tuple[Task, Any, Any]:
    """A task, and the test cells' expression and labels."""
    from panelbench.stages.fold import fit_fold
    from panelbench.stages.selection import labels_of
    from panelbench.stages.task import build_task, target

    fold = fit_fold(cells, spec, seed)
    rows = np.sort(np.concatenate([fold.train, fold.validation]))
    labels = labels_of(cells, [spec.tasks[0]])
    build = {"k": k, "seed": seed, "validation": np.isin(rows, fold.validation)}
    task = build_task(fold.take(cells, rows), method, labels, **build)
    test = fold.take(cells, fold.test)
    X = np.asarray(test.X.toarray() if hasattr(test.X, "toarray") else test.X, np.float32)
    return task, X, (target(fold.take(cells, rows), labels[0]), target(test, labels[0]))


def score(task: Task, found: Any, X: np.ndarray, labels: Any, name: str) -> dict[str, float]:
    """What the docstring of this file lists."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.neighbors import KNeighborsClassifier

    place = {gene: i for i, gene in enumerate(task.genes)}
    panel = [place[gene] for gene in list(found.ranking)[: task.k]]
    train, test = labels[0].values, labels[1].values
    seen, new = task.dense()[:, panel], X[:, panel]
    neighbours = KNeighborsClassifier().fit(seen, train).predict(new)
    forest = RandomForestClassifier(random_state=task.seed).fit(seen, train).predict(new)
    result = {
        "knn": accuracy_score(test, neighbours),
        "knn F1": f1_score(test, neighbours, average="weighted"),
        "rf": accuracy_score(test, forest),
    }
    if "classifier" in found.predictor.parts:
        proba = found.predictor.predict_proba(name, new)
        result["own"] = accuracy_score(test, proba.argmax(axis=1))
    if "decoder" in found.predictor.parts:
        result["own mse"] = float(np.square(found.predictor.reconstruct(new) - X).mean())
    linear = LinearRegression().fit(seen, task.dense()).predict(new)
    return result | {"linear mse": float(np.square(linear - X).mean())}


def runs(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Method, variant and scores of every run."""
    from panelbench.registry import discover

    cells, spec = prepared(args.mirror, folder)
    registry = discover()
    for name in args.method:
        method = registry.methods[name]
        for variant in args.variant:
            given = {}
            for part in filter(None, (p.strip() for p in variant.split(","))):
                key, _, value = part.partition("=")
                try:
                    given[key] = ast.literal_eval(value)
                except ValueError:
                    given[key] = value
            for seed in args.seeds:
                task, X, labels = split(cells, spec, method, args.k, seed)
                start = time.perf_counter()
                found = method.select(task, method.params(**given))
                seconds = time.perf_counter() - start
                line = score(task, found, X, labels, spec.tasks[0].name)
                facts = {key: found.info[key] for key in ("lr", "epochs", "temperature")}
                turnover = float(np.mean(found.info["curves"]["panel turnover"][-5:]))
                yield name, variant, line | facts | {"turnover": turnover, "s": seconds}


def main() -> None:
    import tempfile

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", type=Path, default=Path("../shared/data/mirror"))
    parser.add_argument("--method", nargs="*", default=METHODS)
    parser.add_argument("--variant", action="append")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--k", type=int, default=50)
    args = parser.parse_args()
    args.variant = args.variant or [""]
    with tempfile.TemporaryDirectory() as folder:
        for name, variant, line in runs(args, Path(folder)):
            numbers = ", ".join(f"{key} {value:.4g}" for key, value in line.items())
            print(f"{name} [{variant}]: {numbers}", flush=True)


if __name__ == "__main__":
    main()
