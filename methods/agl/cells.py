"""Cells on the device: inputs, targets as genes x cells, and batches of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.errors import NotApplicable

from .network import Batch, blocks
from .pearson import Targets

if TYPE_CHECKING:
    import torch

SMALLEST = 8
"""A correlation over fewer cells is mostly noise: such a rest of an epoch is left out."""


@dataclass(frozen=True)
class Problem:
    """What is to be predicted from what.

    Attributes
    ----------
    inputs
        Features, shape (n_cells, n_features); or patches, uint8 of shape (n_cells, pixels x 3), if
        an image network is to make features of them.
    expression
        log(1 + x), shape (n_cells, n_genes); NaN where a gene is not known for a cell, which
        leaves the cell's other genes as they are.
    genes
        Names, str array of shape (n_genes,).
    validation
        Bool of shape (n_cells,): cells that choose the cut and end the training. The others are
        trained on.
    groups
        Slide or donor of each cell, or None: correlations are averaged over groups in validation.
    primary
        Names of the genes that count in the end, or how many of the most variable to take.
    auxiliary
        Names of the auxiliary genes in an order of one's own; None: all others, by variability.
    exclude
        Genes that are neither primary nor auxiliary, such as those that the inputs are made of.
    """

    inputs: np.ndarray
    expression: np.ndarray
    genes: np.ndarray
    validation: np.ndarray
    groups: np.ndarray | None = None
    primary: tuple[str, ...] | int = 50
    auxiliary: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scaler:
    """Standardisation of the inputs by the training cells; a constant input becomes 0."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray) -> Scaler:
        """Measure means and standard deviations (float64, shape (n_features,))."""
        values = inputs.astype(np.float64)
        spread = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(spread > 0, spread, np.inf))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Standardise; float64.

        Raises
        ------
        ValueError
            When it is not a matrix of cells x features.
        """
        inputs = np.asarray(inputs)
        if inputs.ndim != 2 or inputs.shape[1] != len(self.mean):
            raise ValueError(
                f"expected a matrix of cells x {len(self.mean)} features, found shape "
                f"{inputs.shape}"
            )
        return np.asarray((inputs - self.mean) / self.scale)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays; there are no facts."""
        return {"scaler.mean": self.mean, "scaler.scale": self.scale}, {}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Scaler:
        """Rebuild it from what `save` returned."""
        return cls(arrays["scaler.mean"], arrays["scaler.scale"])


@dataclass(frozen=True)
class Cells:
    """All cells of a problem.

    Attributes
    ----------
    inputs
        Standardised, shape (n_cells, n_features); or patches.
    targets
        Shape (n_genes, n_cells), primary genes first, then auxiliary ones in their order; 0 where
        missing.
    observed
        The same shape, 1 where known; None when all are.
    groups
        int64 codes of the cells' groups; None when there is one.
    training, cutting, stopping
        Rows trained on, those whose loss moves the weights, and those that end the training.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    observed: torch.Tensor | None
    groups: np.ndarray | None
    training: np.ndarray
    cutting: np.ndarray
    stopping: np.ndarray

    @classmethod
    def of(
        cls,
        problem: Problem,
        genes: np.ndarray,
        inputs: np.ndarray,
        *,
        halves: np.random.Generator | None = None,
        device: str = "cpu",
    ) -> Cells:
        """Put the cells on the device.

        Parameters
        ----------
        problem
            The cells.
        genes
            Columns of the expression, in the order of the outputs.
        inputs
            Of the network: standardised features, float32, or patches.
        halves
            Draws the half of the validation cells that moves the weights; None uses all of them
            for both purposes.

        Raises
        ------
        NotApplicable
            When there are too few cells to train on or to validate on.
        """
        import torch

        training = np.flatnonzero(~problem.validation)
        cutting = stopping = np.flatnonzero(problem.validation)
        if halves is not None:
            mixed = halves.permutation(stopping)
            cutting, stopping = np.sort(mixed[::2]), np.sort(mixed[1::2])
        if min(len(training), len(cutting), len(stopping)) < SMALLEST:
            raise NotApplicable(
                f"agl: needs {SMALLEST} cells of each kind, found {len(training)} to train on, "
                f"{len(cutting)} to move the weights and {len(stopping)} to end the training"
            )
        values = np.ascontiguousarray(problem.expression[:, genes].T, dtype=np.float32)
        known = ~np.isnan(values)
        observed = None
        if not known.all():
            values[~known] = 0
            observed = torch.from_numpy(known.astype(np.float32)).to(device)
        groups = None
        if problem.groups is not None:
            names, codes = np.unique(problem.groups, return_inverse=True)
            groups = codes if len(names) > 1 else None
        return cls(
            torch.from_numpy(np.require(inputs, requirements=["C", "W"])).to(device),
            torch.from_numpy(values).to(device),
            observed,
            groups,
            training,
            cutting,
            stopping,
        )

    def batch(self, rows: np.ndarray, n_genes: int | None, *, within_groups: bool) -> Batch:
        """Some cells with the first genes (None: all); `within_groups` centres by group."""
        import torch

        index = torch.from_numpy(rows).to(self.inputs.device)
        members = None
        if within_groups and self.groups is not None:
            codes = self.groups[rows]
            table = codes == np.unique(codes)[:, None]
            members = torch.from_numpy(table.astype(np.float32)).to(self.inputs.device)
        n_genes = len(self.targets) if n_genes is None else n_genes
        values = self.targets.new_empty(n_genes, len(rows))
        observed = None if self.observed is None else torch.empty_like(values)
        for part in blocks(n_genes):  # every step but the first reads the cache
            known = None
            if self.observed is not None and observed is not None:
                known = observed[part] = self.observed[part].index_select(1, index)
            chosen = self.targets[part].index_select(1, index)
            values[part] = Targets.of(chosen, members, known).values
        return Batch(self.inputs.index_select(0, index), Targets(values, members, observed))

    def inputs_of(self, rows: np.ndarray) -> torch.Tensor:
        """Inputs of some cells."""
        import torch

        return self.inputs.index_select(0, torch.from_numpy(rows).to(self.inputs.device))

    def truth(self, rows: np.ndarray, n_genes: int) -> np.ndarray:
        """Targets of the first genes, shape (n_rows, n_genes); NaN where missing."""
        import torch

        index = torch.from_numpy(rows).to(self.inputs.device)
        values = self.targets[:n_genes].index_select(1, index).T.cpu().numpy().copy()
        if self.observed is not None:
            known = self.observed[:n_genes].index_select(1, index).T.cpu().numpy()
            values[known == 0] = np.nan
        return np.asarray(values)


def shuffled(rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of some rows in random order; a rest of fewer than `SMALLEST` is left out."""
    order = rng.permutation(rows)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        if len(part) >= SMALLEST:
            yield part


def endless(rows: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of some rows, shuffled again whenever all have been used."""
    while True:
        yield from shuffled(rows, size, rng)
