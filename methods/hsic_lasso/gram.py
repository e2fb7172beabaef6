"""Inner products of all genes' block kernels with a few columns, in one sweep over the blocks.

The design matrix of Block HSIC Lasso (blocks x genes) is never held: a tile of it is made, used
and forgotten. Making it again costs about as much as reading it back from memory would.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from panelbench.method import Matrix

from .kernels import binary_coordinates, gaussian_coordinates

# A tile's kernels should stay in a core's cache: 10 coordinates x 64 x 64 x 4 bytes = 160 kB.
_BLOCKS = 64
_GENES = 64
# Largest table of binary patterns worth making: 2**8.
_BINARY_BLOCK = 8

Right = Callable[[np.ndarray, slice], np.ndarray]


class BlockKernels:
    """Block kernels of all genes, made when they are needed.

    Parameters
    ----------
    X
        cells x genes, float32, array or CSR.
    deviations
        Standard deviation of each gene, shape (n_genes,); 0 for a constant gene.
    blocks
        Cells of each block, from `kernels.shuffles`.
    threads
        Tiles worked on at once, one thread each: BLAS should use one. The number does not change
        the result, since the tiles are added up in order.
    """

    def __init__(
        self, X: Matrix, deviations: np.ndarray, blocks: np.ndarray, threads: int = 1
    ) -> None:
        self.X, self.blocks, self.threads = X, blocks, threads
        self.binary = blocks.shape[1] <= _BINARY_BLOCK and _is_binary(X)
        # A constant gene has kernels of zeros whatever its scale.
        self.scale = (1 / np.where(deviations > 0, deviations, 1)).astype(np.float32)

    def with_genes(self, genes: np.ndarray) -> np.ndarray:
        """Gram columns of some genes.

        Parameters
        ----------
        genes
            Gene indices, shape (n,).

        Returns
        -------
        float64 array of shape (n_genes, n): mean inner product over the blocks.
        """
        return self._products(lambda tile, _: self._coordinates(tile[:, :, genes]))

    def with_output(self, coordinates: np.ndarray) -> np.ndarray:
        """Inner products with the output's kernels.

        Parameters
        ----------
        coordinates
            Coordinates of the output, shape (n_coordinates, n_blocks, 1).

        Returns
        -------
        float64 array of shape (n_genes,).
        """
        return self._products(lambda _, rows: coordinates[:, rows])[:, 0]

    def _coordinates(self, tile: np.ndarray) -> np.ndarray:
        return binary_coordinates(tile) if self.binary else gaussian_coordinates(tile)

    def _products(self, right: Right) -> np.ndarray:
        from joblib import Parallel, delayed

        n_blocks = len(self.blocks)
        tiles = [slice(start, start + _BLOCKS) for start in range(0, n_blocks, _BLOCKS)]
        total: np.ndarray | None = None
        workers = Parallel(self.threads, backend="threading", return_as="generator")
        for part in workers(delayed(self._tile)(rows, right) for rows in tiles):
            # float32 within a tile, float64 across: rounding does not grow with the cells.
            total = part.astype(np.float64) if total is None else np.add(total, part, out=total)
        assert total is not None
        return total / n_blocks

    def _tile(self, rows: slice, right: Right) -> np.ndarray:
        blocks = self.blocks[rows]
        values = self.X[blocks.ravel()]
        values = values if isinstance(values, np.ndarray) else values.toarray()
        if not self.binary:
            values *= self.scale
        tile = values.reshape(*blocks.shape, -1)
        columns = right(tile, rows)
        columns = columns.reshape(-1, columns.shape[2])
        product = np.empty((tile.shape[2], columns.shape[1]), dtype=np.float32)
        for start in range(0, len(product), _GENES):
            part = slice(start, start + _GENES)
            kernels = self._coordinates(tile[:, :, part])
            np.matmul(kernels.reshape(len(columns), -1).T, columns, out=product[part])
        return product


class GramColumns:
    """Gram columns on demand, several at a time.

    A sweep costs much the same for one column as for many, so each brings along the genes that
    are most likely to be asked for next.

    Parameters
    ----------
    kernels
        Kernels of all genes.
    batch
        Columns per sweep.
    """

    def __init__(self, kernels: BlockKernels, batch: int) -> None:
        self.kernels, self.batch = kernels, batch
        self.sweeps = 0
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, gene: int, delays: np.ndarray) -> np.ndarray:
        """Gram column of a gene, float64 of shape (n_genes,); see `lars.nonnegative_path`."""
        if gene not in self._known:
            soon = np.argsort(delays, kind="stable")
            unknown = [j for j in soon.tolist() if j not in self._known and j != gene]
            genes = [gene, *unknown[: self.batch - 1]]
            columns = self.kernels.with_genes(np.array(genes)).T
            self._known.update(zip(genes, np.ascontiguousarray(columns), strict=True))
            self.sweeps += 1
        return self._known[gene]


def _is_binary(X: Matrix, rows: int = 1024) -> bool:
    """Whether all values are 0 or 1, looked at some rows at a time."""
    values = X if isinstance(X, np.ndarray) else X.data
    parts = (values[start : start + rows] for start in range(0, len(values), rows))
    return all(bool(np.isin(part, (0, 1)).all()) for part in parts)
