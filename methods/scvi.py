"""scVI: a generative model of the counts of all genes, the reference for reconstruction.

It selects nothing. The MarkerMap paper (Gregory et al. 2024) compares its own reconstruction
from a panel with what scVI draws after having seen every gene. The model is that of the library
``scvi-tools``, with its defaults.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le

from panelbench.method import Selection, Task, method
from panelbench.nn import expect_cells, seeded
from panelbench.ranking import gene_variances, rank_by_score

if TYPE_CHECKING:
    from scvi.module import VAE  # type: ignore[import-not-found]

_CELLS = 1024
"""Cells that are reconstructed at a time."""
_FULL_EPOCHS = 20_000
"""Cells up to which the library trains for all epochs; beyond, for that many cells' worth."""


@dataclass(frozen=True)
class Params:
    """Parameters of scVI, with the library's defaults.

    Attributes
    ----------
    n_hidden, n_layers, n_latent
        Width and number of hidden layers, and width of the latent space.
    max_epochs
        Epochs for up to 20,000 cells; for more cells as many fewer.
    batch_size
        Cells per step.
    train_size
        Share of the cells that are trained on; the others are only watched.
    """

    n_hidden: Annotated[int, Ge(1)] = 128
    n_layers: Annotated[int, Ge(1)] = 1
    n_latent: Annotated[int, Ge(1)] = 10
    max_epochs: Annotated[int, Ge(1)] = 400
    batch_size: Annotated[int, Ge(1)] = 128
    train_size: Annotated[float, Gt(0), Le(1)] = 0.9


class ScviPredictor:
    """Draws counts of all genes for cells whose counts it is given.

    Parameters
    ----------
    genes
        All genes of the training cells.
    state
        The network's parameters and buffers by name.
    facts
        Sizes of the network (`Params`), and the seed of the draw.
    """

    def __init__(
        self, genes: Sequence[str], state: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> None:
        self.genes: Sequence[str] = [str(gene) for gene in genes]
        self.state, self.facts = dict(state), dict(facts)

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """One sample of the posterior predictive distribution for each cell.

        The same cells get the same sample again.

        Parameters
        ----------
        X
            Counts, shape (n_cells, n_genes), columns as `genes`.

        Returns
        -------
        float32 counts of the same shape.
        """
        import torch

        X = expect_cells(X, len(self.genes)).astype(np.float32)
        module = self._module()
        drawn = np.empty_like(X)
        with seeded(self.facts["seed"]):
            for start in range(0, len(X), _CELLS):
                part = torch.tensor(X[start : start + _CELLS])
                drawn[start : start + _CELLS] = module.sample(_batch(part)).numpy()
        return drawn

    def predict_proba(self, task: str, X: np.ndarray) -> np.ndarray:
        """Refuse: the model knows no classes."""
        raise ValueError(f"scvi reconstructs expression; it predicts no task ({task})")

    def predict(self, task: str, X: np.ndarray) -> np.ndarray:
        """Refuse: the model knows no targets."""
        raise ValueError(f"scvi reconstructs expression; it predicts no task ({task})")

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the network's state, and genes, sizes and seed for JSON."""
        return dict(self.state), {"genes": list(self.genes), **self.facts}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> ScviPredictor:
        """Rebuild a predictor from what `save` returned."""
        rest = {name: value for name, value in facts.items() if name != "genes"}
        return cls(facts["genes"], arrays, rest)

    def _module(self) -> VAE:
        """The network, on the CPU, ready to be read."""
        import torch
        from scvi.module import VAE

        sizes = {name: self.facts[name] for name in ("n_hidden", "n_layers", "n_latent")}
        with torch.random.fork_rng(devices=[]):  # it draws first weights, to be replaced
            module = VAE(n_input=len(self.genes), n_batch=1, n_labels=1, **sizes)
        module.load_state_dict({name: torch.tensor(item) for name, item in self.state.items()})
        return module.eval()


@method(
    "scvi",
    params=Params,
    label="scVI",
    cut=False,
    predictor=ScviPredictor,
    reconstructs=True,
    needs="counts",
    gpu="optional",
    minutes=600.0,
    libraries=("scvi-tools", "torch"),
    cite="Lopez et al. 2018",
    doi="10.1038/s41592-018-0229-2",
)
def select(task: Task, params: Params) -> Selection:
    """Every gene by variance, with a model that draws all counts anew (scVI, Lopez et al. 2018).

    A control: the panel is not cut to k. ``info["loss"]`` is the training loss by epoch, the
    negative evidence lower bound per cell.
    """
    seed = task.int_seed("model")
    # The library draws from torch's global generator, what it builds upon may from the others.
    with seeded(seed, task.device):
        module, losses = _train(task, params)
    sizes = {name: getattr(params, name) for name in ("n_hidden", "n_layers", "n_latent")}
    state = {name: item.cpu().numpy() for name, item in module.state_dict().items()}
    ranked = rank_by_score(task, gene_variances(task.X))
    return Selection(
        ranking=ranked.ranking,
        scores=ranked.scores,
        predictor=ScviPredictor(
            task.genes.tolist(), state, {**sizes, "seed": task.int_seed("draw")}
        ),
        info={"loss": losses},
    )


def _train(task: Task, params: Params) -> tuple[VAE, list[float]]:
    """The trained network, and its loss by epoch."""
    from anndata import AnnData
    from lightning.pytorch.callbacks import LambdaCallback  # type: ignore[import-not-found]
    from scipy.sparse import csr_matrix
    from scvi.model import SCVI  # type: ignore[import-not-found]

    epochs = max(1, round(params.max_epochs * min(1.0, _FULL_EPOCHS / task.n_cells)))
    cells = AnnData(csr_matrix(task.X, copy=True))
    order = task.rng("watched cells").permutation(task.n_cells)
    n_train = max(1, round(params.train_size * task.n_cells))

    def progress(trainer: Any, plan: Any) -> None:
        task.progress((trainer.current_epoch + 1) / epochs, f"epoch {trainer.current_epoch + 1}")

    with _quiet():
        SCVI.setup_anndata(cells)
        model = SCVI(
            cells, n_hidden=params.n_hidden, n_layers=params.n_layers, n_latent=params.n_latent
        )
        model.train(
            max_epochs=epochs,
            accelerator="gpu" if task.device.startswith("cuda") else "cpu",
            devices=[_cuda_index(task.device)] if task.device.startswith("cuda") else 1,
            batch_size=params.batch_size,
            datasplitter_kwargs={
                "external_indexing": [np.sort(order[:n_train]), np.sort(order[n_train:])]
            },
            enable_progress_bar=False,
            default_root_dir=str(task.scratch),
            callbacks=[LambdaCallback(on_train_epoch_end=progress)],
        )
    losses = model.history["elbo_train"].iloc[:, 0].astype(float)
    return model.module.cpu().eval(), losses.tolist()


def _batch(X: Any) -> dict[str, Any]:
    """Cells in the form in which the library's network takes them: one batch, one label."""
    import torch
    from scvi import REGISTRY_KEYS

    same = torch.zeros((len(X), 1))
    return {REGISTRY_KEYS.X_KEY: X, REGISTRY_KEYS.BATCH_KEY: same, REGISTRY_KEYS.LABELS_KEY: same}


def _cuda_index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither the trainer's remarks on the machine nor warnings about its loaders."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "scvi")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
