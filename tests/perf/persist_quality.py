"""PERSIST's panels on real data: soft, hard and refitted classifiers side by side.

    python tests/perf/persist_quality.py --dataset citeseq --k 32 --set select_epochs=50
    python tests/perf/persist_quality.py --dataset pbmc3k --k 32
    python tests/perf/persist_quality.py --planted

Needs the data folder (``../shared/data``, or --data). Cells are split 80/20, stratified, one split
per seed. pbmc3k: genes in at least 3 training cells, then the 1,838 most dispersed ones. Refits on
the panel: a random forest and 5 nearest neighbours on z-scored log-normalised genes, logistic
regression on binary genes. --planted: 8 seeds of synthetic data with four genes that matter.
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def read(folder: Path, name: str) -> tuple[Any, np.ndarray]:
    """Counts (CSR, cells x genes) and labels."""
    from scipy import io, sparse

    if name == "citeseq":
        counts = io.loadmat(folder / "mirror/CITEseq.mat")["G"].T.astype(np.float32)
        codes = io.loadmat(folder / "mirror/CITEseq-labels.mat")
        labels = next(value for key, value in codes.items() if not key.startswith("_"))
        return sparse.csr_matrix(counts), labels.ravel().astype(str)
    import anndata

    cells = anndata.read_h5ad(folder / f"{name}.h5ad")
    return sparse.csr_matrix(cells.X, dtype=np.float32), np.array(cells.obs["celltype"], dtype=str)


def run(
    folder: Path, name: str, k: int, seed: int, unsupervised: bool, params: dict[str, Any]
) -> None:
    """Select on one split and print one line."""
    import scanpy as sc
    from anndata import AnnData
    from panelbench.methods import persist
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier

    from panelbench.method import Target, Task, frozen_mapping

    counts, labels = read(folder, name)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=labels
    )
    cells = AnnData(counts.copy())
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    genes = np.arange(cells.n_vars)
    if name == "pbmc3k":
        seen = np.flatnonzero(np.asarray((counts[train] > 0).sum(axis=0)).ravel() >= 3)
        part = cells[train, seen].copy()
        sc.pp.highly_variable_genes(part, n_top_genes=1838)
        genes = seen[part.var["highly_variable"].to_numpy()]
    log = cells.X[:, genes].toarray()
    scaled = (log - log[train].mean(axis=0)) / np.maximum(log[train].std(axis=0), 1e-6)
    binary = (counts[:, genes] > 0).toarray().astype(np.float32)
    classes, codes = np.unique(labels, return_inverse=True)
    target = Target("type", "classification", codes[train], tuple(classes.tolist()))
    common: dict[str, Any] = {
        "genes": np.array([f"g{gene}" for gene in genes]),
        "k": k,
        "seed": seed,
    }
    start = time.process_time()
    if unsupervised:
        task = Task(
            X=log[train], counts=counts[train][:, genes], targets=frozen_mapping({}), **common
        )
        found = persist.select_unsupervised(task, persist.UnsupParams(**params))
    else:
        task = Task(X=binary[train], targets=frozen_mapping({"type": target}), **common)
        found = persist.select(task, persist.Params(**params))
    seconds = time.process_time() - start
    place = {gene: column for column, gene in enumerate(task.genes.tolist())}
    panel = [place[gene] for gene in list(found.ranking)[:k]]
    scores = {}

    def score(reading: str, predicted: np.ndarray) -> None:
        accuracy = float((predicted == codes[test]).mean())
        macro = f1_score(codes[test], predicted, average="macro", zero_division=0)
        scores[reading] = f"{accuracy:.3f} / {macro:.3f}"

    if isinstance(found.predictor, persist.PersistPredictor):
        for mode in ("soft", "hard"):
            reader = found.predictor.in_mode(mode)
            X = binary[test][:, [place[gene] for gene in reader.genes]]
            score(mode, reader.predict_proba("type", X).argmax(axis=1))
    for reading, matrix, model in (
        ("forest", scaled, RandomForestClassifier(random_state=seed)),
        ("neighbours", scaled, KNeighborsClassifier()),
        ("logistic, binary", binary, LogisticRegression(max_iter=1000)),
    ):
        model.fit(matrix[train][:, panel], codes[train])
        score(reading, model.predict(matrix[test][:, panel]))
    facts = {key: value for key, value in found.info.items() if key not in ("curves", "rows")}
    print(f"{name} k {k} seed {seed}: {scores}\n  {seconds:.0f} s of CPU, {facts}", flush=True)


def planted(params: dict[str, Any]) -> None:
    """How often all of 4 planted genes are found, 8 seeds a row."""
    from panelbench.methods import persist

    from panelbench.method import Target, Task, frozen_mapping

    for n_genes, k in ((50, 4), (50, 8), (200, 8), (200, 24)):
        full, accuracy, found_genes = 0, [], []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            X = rng.integers(0, 2, (2500, n_genes))
            codes = X[:, :4] @ 2 ** np.arange(4)
            X = (X ^ (rng.random(X.shape) < 0.05)).astype(np.float32)
            target = Target("class", "classification", codes[:2000], tuple(map(str, range(16))))
            task = Task(
                X=X[:2000],
                genes=np.array([f"g{i}" for i in range(n_genes)]),
                targets=frozen_mapping({"class": target}),
                k=k,
                seed=seed,
            )
            found = persist.select(task, persist.Params(**({"hidden": (64,)} | params)))
            hit = len({"g0", "g1", "g2", "g3"} & set(found.ranking))
            full += hit == 4
            found_genes.append(hit)
            assert isinstance(found.predictor, persist.PersistPredictor)
            panel = [int(gene[1:]) for gene in found.ranking]
            hard = found.predictor.in_mode("hard").predict_proba("class", X[2000:][:, panel])
            accuracy.append(float((hard.argmax(axis=1) == codes[2000:]).mean()))
        print(
            f"G {n_genes} k {k}: all four in {full} of 8 seeds {found_genes}, hard accuracy "
            f"{min(accuracy):.3f} to {max(accuracy):.3f} (ceiling 0.815)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dataset", choices=["citeseq", "pbmc3k"], default="citeseq")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--unsupervised", action="store_true")
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="parameters, as name=value")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    params = {}
    for item in args.set:
        name, value = item.split("=")
        params[name] = ast.literal_eval(value)
    if args.planted:
        planted(params)
        return
    for seed in args.seeds:
        run(args.data, args.dataset, args.k, seed, args.unsupervised, params)


if __name__ == "__main__":
    main()
