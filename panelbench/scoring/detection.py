"""What an instrument sees of the molecules: noise of detection, and forests that meet it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from panelbench.errors import NotApplicable
from panelbench.evaluator import Cells, Evaluation, Metric, Scores
from panelbench.scoring.cells import measured
from panelbench.scoring.evaluators import rf
from panelbench.scoring.metrics import f1_macro
from panelbench.scoring.predictions import predictions

Instrument = Callable[[Cells, np.random.Generator], np.ndarray]
"""Counts of the panel's genes that an instrument gives for some cells, cells x genes."""


def thinned(counts: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Counts of which each molecule is seen with a probability; whole numbers are expected."""
    seen = rng.binomial(np.rint(counts).astype(np.int64), share)
    return np.asarray(seen, dtype=np.float64)


@dataclass(frozen=True)
class Platform:
    """What gpsFISH fitted to pairs of dissociated and imaged cells (its shipped posterior means).

    With p_ij the share of gene i among all counts of cell j in the dissociated data::

        gamma_i = exp(N(slope, s slope_sd)),  c_i = N(intercept, s intercept_sd)
        lambda_ij = 1 / (1 + exp(-(gamma_i sqrt(p_ij) + c_i)))
        mean_ij = exp(rate) lambda_ij N_j
        count_ij ~ NegativeBinomial(mean_ij, shape exp(shape + lambda_ij)), or 0 with probability
                   `silent`

    (Zhang et al. 2024, Genome Biology 25, 35; package gpsFISH, ``simulation_params``: 33 genes,
    3,127 cells.) N_j, the size of cell j in the image, is drawn from a log-normal distribution
    with the median and the spread of the 5 to 95% quantiles of the cells there, per gene of the
    panel. s is `spread`: 0 makes all genes alike, 1 is what was fitted.
    """

    spread: float = 1.0
    slope: float = 4.267
    slope_sd: float = 1.298
    intercept: float = -3.641
    intercept_sd: float = 0.965
    rate: float = -1.025
    shape: float = -0.093
    silent: float = 0.0001
    size_per_gene: float = 169 / 33
    size_sd: float = float(np.log(405 / 51) / (2 * 1.645))

    def genes(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """How n genes are seen: gamma and c, float64 of shape (n,)."""
        gamma = np.exp(self.slope + self.spread * self.slope_sd * rng.standard_normal(n))
        return gamma, self.intercept + self.spread * self.intercept_sd * rng.standard_normal(n)

    def seen(
        self, share: np.ndarray, gamma: np.ndarray, c: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw counts.

        Parameters
        ----------
        share
            Share of each gene among all counts of each cell, cells x genes.
        gamma, c
            Of these genes, from `genes`.
        rng
            For cells and counts.

        Returns
        -------
        float64, cells x genes.
        """
        n_cells, n_genes = share.shape
        size = self.size_per_gene * n_genes * np.exp(self.size_sd * rng.standard_normal(n_cells))
        rate = 1 / (1 + np.exp(-(gamma * np.sqrt(share) + c)))
        mean = np.exp(self.rate) * rate * size[:, None]
        shape = np.exp(self.shape + rate)
        counts = rng.poisson(rng.gamma(shape, mean / shape))
        return np.where(rng.random(counts.shape) < self.silent, 0, counts).astype(np.float64)


def per_panel(counts: np.ndarray) -> np.ndarray:
    """log(1 + counts per hundred of the panel): all that an image knows of a cell's depth."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.log1p(100 * counts / total), dtype=np.float32)


def metrics(kind: str, words: str) -> tuple[Metric, ...]:
    """Metrics of `forests` for one kind of noise."""
    return (
        Metric(f"f1_{kind}", f"Macro F1, {words}", kind),
        Metric(f"f1_{kind}_fall", f"Fall of macro F1, {words}", kind, higher_is_better=False,
               low=-1.0),
        Metric(f"f1_{kind}_reference", f"Macro F1, {words}, trained without", kind),
    )  # fmt: skip


def forests(
    given: Evaluation, kind: str, instruments: list[Instrument], n_estimators: int
) -> Scores:
    """Score forests on cells as instruments see them, each instrument being a draw.

    Cells are described by `per_panel`. With f the macro F1 of a forest that is trained and tested
    on the counts as they are, and a_d and b_d those on test cells seen by instrument d, of a
    forest trained on cells that it saw too and of the one trained on counts as they are:
    ``f1_<kind>`` is the mean of a_d, ``f1_<kind>_fall`` that of f - a_d, ``f1_<kind>_reference``
    that of b_d.

    Raises
    ------
    NotApplicable
        Without classes, or without counts.
    """
    if given.kind != "classification":
        raise NotApplicable("detection noise is measured by macro F1, which needs classes")
    target, panel = given.test.target, given.panel
    forest = rf.Params(n_estimators=n_estimators)

    def trained(counts: np.ndarray) -> object:
        return rf.fitted(
            replace(given, train=measured(given.train, panel, per_panel(counts))), forest
        )

    def macro_f1(proba: np.ndarray) -> float:
        return f1_macro(target.values, proba.argmax(axis=1))

    sides = [side.dense(panel, "counts") for side in (given.train, given.test)]
    reference = trained(sides[0])
    clean = macro_f1(predictions(reference, per_panel(sides[1]), target))
    found, by_reference = [], []
    for draw, instrument in enumerate(instruments):
        rng = given.rng(f"cells of draw {draw}")
        train, test = instrument(given.train, rng), per_panel(instrument(given.test, rng))
        found.append(predictions(trained(train), test, target))
        by_reference.append(macro_f1(predictions(reference, test, target)))
        given.progress((draw + 1) / len(instruments), f"draw {draw + 1}")
    scores = [macro_f1(proba) for proba in found]
    return Scores(
        {
            f"f1_{kind}": float(np.mean(scores)),
            f"f1_{kind}_fall": clean - float(np.mean(scores)),
            f"f1_{kind}_reference": float(np.mean(by_reference)),
        },
        notes=[f"macro F1 is {clean:.3f} without noise"],
        predicted=np.mean(found, axis=0),
    )
