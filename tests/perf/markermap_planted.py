"""What MarkerMap and its relatives find where the truth is planted.

    python tests/perf/markermap_planted.py markers                     # 20 markers of 5 classes
    python tests/perf/markermap_planted.py markers --preset robust --seeds 0 1
    python tests/perf/markermap_planted.py factors --genes 200 --cells 2722 --k 10 --epochs 100
    python tests/perf/markermap_planted.py toy --genes 1000 --cells 2200 --k 50
    python tests/perf/markermap_planted.py toy --genes 10000 --cells 22000 --k 50 --seeds 0

``markers``: every marker is shifted by two standard deviations in its class. ``toy``: the MarkerMap
paper's illustration, values -1 and 1, the state is whether the first three genes agree; one gene
alone, or two, tell nothing. ``factors``: half of the genes are copies of ten hidden factors with
noise, the others noise; 500 of the cells are for the squared error of all genes, fitted by least
squares on the panel's. A tenth of the other cells is for validation. Toy and factors have a fixed
rate (--lr), width (--hidden) and number of epochs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from panelbench.method import Target, Task, frozen_mapping


def task_of(X: np.ndarray, codes: np.ndarray, k: int, seed: int) -> Task:
    """Standardised values and one target."""
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    names = tuple(f"c{i}" for i in range(int(codes.max()) + 1))
    target = Target("state", "classification", codes.astype(np.int64), names)
    genes = np.array([f"g{i:05d}" for i in range(X.shape[1])])
    return Task(X=X, genes=genes, targets=frozen_mapping({"state": target}), k=k, seed=seed)


def markers(seed: int, args: argparse.Namespace) -> tuple[Task, set[int]]:
    """Five classes with four markers each."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(5, size=args.cells)
    X = rng.normal(size=(args.cells, args.genes))
    for code in range(5):
        X[codes == code, 4 * code : 4 * code + 4] += 2
    return task_of(X, codes, args.k, seed), set(range(20))


def toy(seed: int, args: argparse.Namespace) -> tuple[Task, set[int]]:
    """Two states that only three genes together tell."""
    rng = np.random.default_rng(seed)
    X = rng.choice(np.array([-1, 1], np.float32), size=(args.cells, args.genes))
    codes = (X[:, 0] == X[:, 1]) & (X[:, 1] == X[:, 2])
    return task_of(X, codes.astype(int), args.k, seed), {0, 1, 2}


def factors(args: argparse.Namespace) -> None:
    """Print the squared errors of panels: random, one gene per factor, MarkerMap's."""
    from panelbench.methods import markermap
    from sklearn.linear_model import LinearRegression

    for seed in args.seeds:
        rng = np.random.default_rng(seed)
        size = (args.cells, args.genes // 2)
        copies = np.repeat(rng.normal(size=(args.cells, 10)), size[1] // 10, axis=1)
        X = np.hstack([copies + 0.3 * rng.normal(size=size), rng.normal(size=size)])
        X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
        train, test = X[:-500], X[-500:]

        def error(genes: Any, train: Any = train, test: Any = test) -> float:
            fit = LinearRegression().fit(train[:, genes], train)
            return float(((fit.predict(test[:, genes]) - test) ** 2).mean())

        draws = np.random.default_rng(0)
        chance = np.mean([error(draws.permutation(args.genes)[: args.k]) for _ in range(20)])
        given = markermap.MarkerMapParams(
            lr=args.lr, hidden=args.hidden, min_epochs=args.epochs, max_epochs=args.epochs
        )
        names = np.array([f"g{i:05d}" for i in range(args.genes)])
        task = Task(X=train, genes=names, targets=frozen_mapping({}), k=args.k, seed=seed)
        found = markermap.select_unsupervised(task, given)
        panel = sorted(int(gene[1:]) for gene in list(found.ranking)[: args.k])
        told = [gene for gene in panel if gene < size[1]]
        print(
            f"seed {seed}: error {error(panel):.3f}, random {chance:.3f}, one gene per factor "
            f"{error(range(0, size[1], size[1] // 10)):.3f}; {len(panel) - len(told)} genes of "
            f"noise, {len({gene // (size[1] // 10) for gene in told})} of 10 factors",
            flush=True,
        )


def main() -> None:
    from panelbench.registry import discover

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["markers", "toy", "factors"])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--cells", type=int, default=1200)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--method", nargs="*")
    parser.add_argument("--preset", default="paper", choices=["paper", "robust"])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hidden", type=int, default=64)
    args = parser.parse_args()
    if args.data == "factors":
        factors(args)
        return
    registry = discover()
    if args.data == "markers":
        make, names = markers, "markermap markermap-joint markermap-unsup concrete-vae gumbel-vae"
    else:
        make, names = toy, "markermap t-test wilcoxon cosg rf-importance"
    for name in args.method or names.split():
        method = registry.methods[name]
        given: dict[str, Any] = {}
        if args.data == "toy" and name == "markermap":
            given = {"lr": args.lr, "hidden": args.hidden}
            given |= {"min_epochs": args.epochs, "max_epochs": args.epochs}
        elif args.data == "markers":
            given = {"preset": args.preset}
        for seed in args.seeds:
            task, planted = make(seed, args)
            start = time.process_time()
            found = method.select(task, method.params(**given))
            place = {gene: i + 1 for i, gene in enumerate(found.ranking)}
            ranks = sorted(place[gene] for gene in task.genes[sorted(planted)] if gene in place)
            rate = f", rate {found.info['lr']:.2g}" if "lr" in found.info else ""
            print(
                f"{name}, seed {seed}: {sum(r <= args.k for r in ranks)} of {len(planted)} on the "
                f"panel, first at {ranks[0]}, last at {ranks[-1]}{rate}, "
                f"{time.process_time() - start:.0f} processor seconds",
                flush=True,
            )


if __name__ == "__main__":
    main()
