"""The two stages: eliminate most genes, then select k among those left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.method import Task
from panelbench.nn import generator

from .data import Cells
from .gates import BinaryGates
from .mask import BinaryMask, panel
from .network import Network
from .noise import Noise
from .search import BISECTIONS, Found, search
from .training import History, Settings, train

if TYPE_CHECKING:
    import torch

    from .network import Loss

    Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Problem:
    """What both stages share.

    Attributes
    ----------
    task
        The task; gives the seeds.
    cells
        Training cells with all genes.
    loss, n_outputs
        Loss of a batch, and the network outputs it needs.
    hidden
        Widths of the hidden layers.
    preselected
        Columns of the genes that the network always sees, int64.
    """

    task: Task
    cells: Cells
    loss: Loss
    n_outputs: int
    hidden: tuple[int, ...]
    preselected: np.ndarray

    @property
    def candidates(self) -> np.ndarray:
        """Columns of all other genes, int64, ascending."""
        return np.setdiff1d(np.arange(self.task.n_genes), self.preselected)

    def network(self, n_masked: int, generator: torch.Generator) -> Network:
        """Build a fresh network: the preselected genes come first among its inputs."""
        widths = [len(self.preselected) + n_masked, *self.hidden, self.n_outputs]
        return Network(widths, generator, self.cells.device)

    def noise(self, purpose: str) -> Noise:
        """Randomness on the cells' device."""
        return Noise(self.task.int_seed(f"persist {purpose}"), self.cells.device)

    def weights(self, purpose: str) -> torch.Generator:
        """Generator of initial weights."""
        return generator(self.task, f"persist {purpose}")


@dataclass(frozen=True)
class Selected:
    """Result of the selection.

    Attributes
    ----------
    inputs
        int64: column of each input of the network, the preselected first.
    mask, network, history
        What was trained, and how it went.
    rows
        int64: the column that each row prefers; columns may repeat.
    genes, scores, refilled
        Distinct columns, best first, their probabilities, and how many of the last merely fill up.
    """

    inputs: np.ndarray
    mask: BinaryMask
    network: Network
    history: History
    rows: np.ndarray
    genes: np.ndarray
    scores: np.ndarray
    refilled: int


def eliminate(
    problem: Problem,
    settings: Settings,
    target: int,
    *,
    at_least: int,
    tol: float,
    max_trials: int,
    start: float,
    progress: Progress,
) -> Found:
    """Close most gates; `Found.genes` are columns of the task (Covert et al. 2023)."""
    candidates = problem.candidates
    cells = problem.cells.of_genes(np.r_[problem.preselected, candidates])
    noise, weights = problem.noise("gates"), problem.weights("gates' network")
    shuffle = problem.task.rng("persist gates' batches")
    state: list[tuple[BinaryGates, Network]] = []
    done = 0

    def trial(penalty: float, fresh: bool) -> np.ndarray:
        nonlocal done
        if fresh:
            state[:] = [
                (BinaryGates(len(candidates), noise), problem.network(len(candidates), weights))
            ]
        gates, network = state[0]

        def told(fraction: float, message: str) -> None:
            progress((done + fraction) / (max_trials + BISECTIONS), f"gates, {message}")

        train(
            gates, network, cells, problem.loss, settings, shuffle,
            penalty=penalty, progress=told,
        )  # fmt: skip
        done += 1
        return gates.probabilities.cpu().numpy()

    found = search(
        trial, len(candidates), target,
        at_least=at_least, tol=tol, max_trials=max_trials, start=start,
    )  # fmt: skip
    return Found(candidates[found.genes], found.trials, found.fallback)


def select(
    problem: Problem, settings: Settings, n_rows: int, candidates: np.ndarray, progress: Progress
) -> Selected:
    """Let each of `n_rows` rows settle on one of the candidates (Covert et al. 2023)."""
    inputs = np.r_[problem.preselected, candidates]
    mask = BinaryMask(n_rows, len(candidates), problem.noise("mask"))
    network = problem.network(len(candidates), problem.weights("mask's network"))
    history = train(
        mask, network, problem.cells.of_genes(inputs), problem.loss, settings,
        problem.task.rng("persist mask's batches"), progress=progress,
    )  # fmt: skip
    genes, scores, refilled = panel(mask.logits.cpu().numpy())
    return Selected(
        inputs=inputs,
        mask=mask,
        network=network,
        history=history,
        rows=candidates[mask.genes.cpu().numpy()],
        genes=candidates[genes],
        scores=scores,
        refilled=refilled,
    )
