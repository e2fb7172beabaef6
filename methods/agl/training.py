"""Training the network and moving the weights: the two schedules.

Source: Shiku et al. 2026 (AAAI 40), algorithm 1, and the code published with it. They differ:
the code moves the cut by one pass before every epoch; the algorithm alternates between training to
the end and moving the cut to the end. The paper's text starts from all auxiliary genes and its
figure from half of them: the schedule ``"paper"`` trains on all first, then starts the cut at
`start`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import Cells, endless, shuffled
from .correlations import mean_correlation
from .hyper import alignments, normalised, unrolled
from .mask import NEGLIGIBLE, n_kept
from .network import Batch, Network
from .params import Settings
from .weights import FreeWeights, LearnedCut, Weights

if TYPE_CHECKING:
    import torch


@dataclass
class Best:
    """The network with the best validation correlation, and the weights it was trained with."""

    network: Network
    mask: np.ndarray
    epoch: int
    score: float


@dataclass
class Trainer:
    """A network, the weights of the genes, and the cells they learn from.

    Attributes
    ----------
    trace
        One entry per epoch: its number, whether it trained the network or tried a cut, validation
        correlation, genes kept, sum of the mask and the cut.
    saturated
        Whether the cut stood at a bound for more than one pass.
    """

    network: Network
    weights: Weights
    cells: Cells
    settings: Settings
    rng: np.random.Generator
    progress: Callable[[float, str], None]
    trace: list[dict[str, Any]] = field(default_factory=list)
    saturated: bool = False

    def __post_init__(self) -> None:
        self._validation = endless(self.cells.cutting, self.settings.batch_pass, self.rng)

    def run(self) -> Best:
        """Train by the schedule that the settings name."""
        if self.settings.schedule == "paper":
            return self._staged()
        return self._interleaved()

    def _interleaved(self) -> Best:
        best, waited = None, 0
        for epoch in range(self.settings.epochs):
            if self.weights.learns and epoch >= self.settings.warmup:
                self.move_weights(self.network)
            self.train_epoch(self.network)
            score = self._record(self.network, "train")
            waited += 1
            if best is None or score > best.score:
                best, waited = self._keep(self.network, score), 0
            if waited >= self.settings.patience:
                break
        assert best is not None
        return best

    def _staged(self) -> Best:
        n_genes = self.weights.n_primary + self.weights.n_auxiliary
        first = np.ones(n_genes) if self.weights.learns else None
        best = self._train_out(self.network, None, first)
        while self.weights.learns and len(self.trace) < self.settings.epochs:
            self._move_out(best.network)
            found = self._train_out(best.network.copy(), best)
            if found is best:
                break
            best = found
        return best

    def _train_out(self, network: Network, best: Best | None, w: np.ndarray | None = None) -> Best:
        """Train until the validation correlation has not risen for `patience` epochs."""
        waited = 0
        while waited < self.settings.patience and len(self.trace) < self.settings.epochs:
            self.train_epoch(network, w)
            score = self._record(network, "train", w)
            waited += 1
            if best is None or score > best.score:
                best, waited = self._keep(network, score, w), 0
        assert best is not None
        return best

    def _move_out(self, network: Network) -> None:
        """Move the weights until a network trained with them for an epoch does not get better."""
        kept, top, waited = copy.deepcopy(self.weights), -math.inf, 0
        while waited < self.settings.patience and len(self.trace) < self.settings.epochs:
            self.move_weights(network)
            network = network.copy()
            self.train_epoch(network)
            score = self._record(network, "move")
            waited += 1
            if score > top:
                kept, top, waited = copy.deepcopy(self.weights), score, 0
        self.weights = kept

    def train_epoch(self, network: Network, w: np.ndarray | None = None) -> None:
        """Train on all training cells once, under given weights or the present ones."""
        for rows in shuffled(self.cells.training, self.settings.batch_size, self.rng):
            active = self._active(self.weights.all() if w is None else w)
            batch = self._batch(rows, len(active))
            scaled, _ = normalised(active, active, self.settings.normalizer)
            losses = network.train(batch, scaled, self.settings.lr)
            if self.weights.watches:
                self.weights.observe(losses.double().cpu().numpy())

    def move_weights(self, network: Network) -> None:
        """One pass over the training cells that moves the weights and leaves the network alone."""
        for rows in shuffled(self.cells.training, self.settings.batch_pass, self.rng):
            validation = self._batch(next(self._validation), self.weights.n_primary)
            if isinstance(self.weights, FreeWeights):
                genes = slice(self.weights.n_primary, None)
                found = alignments(network, self._batch(rows, None), validation, genes)
                self.weights.step(found.double().cpu().numpy())
            elif isinstance(self.weights, LearnedCut):
                self.weights.step(self._cut_gradient(network, self.weights, rows, validation))
        if isinstance(self.weights, LearnedCut) and self.weights.end_pass():
            self.saturated = True

    def _cut_gradient(
        self, network: Network, weights: LearnedCut, rows: np.ndarray, validation: Batch
    ) -> float:
        n_primary, settings = weights.n_primary, self.settings
        if settings.hyper == "fast":
            window = weights.window()
            genes = slice(n_primary + window.start, n_primary + window.stop)
            c = alignments(network, self._batch(rows, genes.stop), validation, genes)
            total = weights.all().sum() if settings.normalizer == "detached" else 1.0
            return -float(weights.slope()[window] @ c.double().cpu().numpy()) / total
        active = self._active(weights.all())
        slope = np.concatenate([np.zeros(n_primary), weights.slope()])[: len(active)]
        w, w_dot = normalised(active, self._tensor(slope), settings.normalizer)
        _, gradient = unrolled(
            network,
            self._batch(rows, len(active)),
            validation,
            w,
            w_dot,
            steps=settings.inner_steps,
            lr=settings.inner_lr,
            rule=settings.inner_rule,
        )
        return gradient

    def _active(self, w: np.ndarray) -> torch.Tensor:
        """Weights of the genes up to the last one that counts."""
        counting = np.flatnonzero(w > NEGLIGIBLE)
        return self._tensor(w[: max(int(counting[-1]) + 1, self.weights.n_primary)])

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        import torch

        like = self.network.weight
        return torch.from_numpy(values).to(dtype=like.dtype, device=like.device)

    def _batch(self, rows: np.ndarray, n_genes: int | None) -> Batch:
        batch = self.cells.batch(rows, n_genes, within_groups=self.settings.within_groups)
        encoder = self.network.encoder
        if encoder is None or not self.settings.augment:
            return batch
        return replace(batch, inputs=encoder.turned(batch.inputs, self.rng))

    def _keep(self, network: Network, score: float, w: np.ndarray | None = None) -> Best:
        mask = self.weights.mask() if w is None else w[self.weights.n_primary :]
        return Best(network.copy(), mask, len(self.trace), score)

    def _record(self, network: Network, phase: str, w: np.ndarray | None = None) -> float:
        """Validation correlation of a network, written to the trace.

        Raises
        ------
        ValueError
            When it is not a number.
        """
        rows, cells = self.cells.stopping, self.cells
        n_primary, epoch = self.weights.n_primary, len(self.trace) + 1
        predicted = network.predict_primary(cells.inputs_of(rows)).double().cpu().numpy()
        groups = None if cells.groups is None else cells.groups[rows]
        score = mean_correlation(predicted, cells.truth(rows, n_primary), groups)
        if not math.isfinite(score):
            raise ValueError(
                f"agl: no validation correlation in epoch {epoch}: the outputs or all primary "
                f"genes are constant over the {len(rows)} validation cells, or the training "
                f"diverged at a learning rate of {self.settings.lr}"
            )
        mask = self.weights.mask() if w is None else w[n_primary:]
        entry: dict[str, Any] = {
            "epoch": epoch,
            "phase": phase,
            "validation": round(score, 5),
            "k": n_kept(mask),
            "size": round(float(mask.sum()), 2),
        }
        if isinstance(self.weights, LearnedCut) and w is None:
            entry["cut"] = round(self.weights.cut, 5)
        self.trace.append(entry)
        done = epoch / self.settings.epochs
        self.progress(done, f"{phase}: correlation {score:.3f}, k = {entry['k']}")
        return score
