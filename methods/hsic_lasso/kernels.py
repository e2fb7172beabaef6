"""Compact block kernels: the coordinates of small centred Gram matrices.

Block HSIC (Climente-González et al. 2019) shuffles the cells, cuts them into blocks of B cells
and describes a gene by the centred, Frobenius-normalised B x B Gram matrix of each block. Such a
matrix is symmetric and its rows sum to zero, so it has B(B-1)/2 degrees of freedom, not B²; in
an orthonormal basis of that space, inner products of coordinates are inner products of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

GUARD = 10e-10
"""Added to the norm of each block, as in pyHSICLasso: an all-equal block becomes zero."""


def shuffles(n_cells: int, block_size: int, repeats: int) -> np.ndarray:
    """Cells of each block, in all shuffles.

    The shuffles are those of pyHSICLasso: the m-th permutes the previous one with seed m, and
    the cells beyond the last full block are left out.

    Parameters
    ----------
    n_cells
        Number of cells, at least `block_size`.
    block_size
        Cells per block.
    repeats
        Number of shuffles; pyHSICLasso makes one when there is a single block.

    Returns
    -------
    int64 array of shape (n_blocks in all shuffles, block_size).
    """
    n_blocks = n_cells // block_size
    repeats = repeats if n_blocks > 1 else 1
    order = np.arange(n_cells)
    blocks = []
    for m in range(repeats):
        order = np.random.RandomState(m).permutation(order)
        blocks.append(order[: n_blocks * block_size].reshape(n_blocks, block_size))
    return np.concatenate(blocks)


@cache
def centred_basis(block_size: int) -> np.ndarray:
    """Orthonormal basis of the symmetric matrices whose rows sum to zero.

    Returns
    -------
    float64 array of shape (B(B-1)/2, B, B).
    """
    from scipy.linalg import helmert

    rows = helmert(block_size)
    basis = []
    for a, u in enumerate(rows):
        basis.append(np.outer(u, u))
        basis += [(np.outer(u, v) + np.outer(v, u)) / np.sqrt(2) for v in rows[:a]]
    return np.array(basis)


def _pairs(block_size: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(block_size) for j in range(i))


def _normalise(coordinates: np.ndarray) -> np.ndarray:
    flat = coordinates.reshape(len(coordinates), -1)
    norms = np.sqrt(np.einsum("pn,pn->n", flat, flat))
    flat /= norms + flat.dtype.type(GUARD)
    return coordinates


def gaussian_coordinates(values: np.ndarray) -> np.ndarray:
    """Coordinates of Gaussian block kernels of width 1.

    Parameters
    ----------
    values
        float32 of shape (n_blocks, B, n_genes), each gene divided by its standard deviation.

    Returns
    -------
    float32 array of shape (B(B-1)/2, n_blocks, n_genes).
    """
    n_blocks, size, n_genes = values.shape
    pairs = list(_pairs(size))
    # Centring removes the constant 1, so the kernel minus 1 serves as well, and is exactly zero
    # for equal values: equal cells leave no rounding behind for the normalisation to blow up.
    kernel = np.empty((len(pairs), n_blocks, n_genes), dtype=np.float32)
    for entry, (i, j) in zip(kernel, pairs, strict=True):
        np.subtract(values[:, i], values[:, j], out=entry)
    np.multiply(kernel, kernel, out=kernel)
    kernel *= np.float32(-0.5)
    np.expm1(kernel, out=kernel)
    basis = centred_basis(size)
    project = np.stack([2 * basis[:, i, j] for i, j in pairs], axis=1).astype(np.float32)
    return _normalise((project @ kernel.reshape(len(pairs), -1)).reshape(kernel.shape))


def binary_coordinates(values: np.ndarray) -> np.ndarray:
    """Coordinates of Gaussian block kernels of genes that are 0 or 1.

    Such a kernel takes two values whatever the scale, and normalisation removes both: a block's
    coordinates depend on which of its cells are 1, so they are looked up.

    Parameters
    ----------
    values
        Of shape (n_blocks, B, n_genes), 0 or 1.

    Returns
    -------
    float32 array of shape (B(B-1)/2, n_blocks, n_genes).
    """
    pattern = np.zeros(values[:, 0].shape, dtype=np.float32)
    for i in range(values.shape[1]):
        pattern += pattern
        pattern += values[:, i]
    return np.take(_binary_table(values.shape[1]), pattern.astype(np.intp), axis=1, mode="clip")


@cache
def _binary_table(block_size: int) -> np.ndarray:
    """Coordinates of all patterns, shape (B(B-1)/2, 2**B)."""
    bits = np.arange(block_size)[::-1]
    patterns = (np.arange(2**block_size)[:, None] >> bits) & 1
    # Any scale gives the same; at this one the guard of the normalisation does not show.
    return gaussian_coordinates(2 * patterns[:, :, None].astype(np.float32))[:, :, 0]


def delta_coordinates(codes: np.ndarray) -> np.ndarray:
    """Coordinates of delta kernels of class labels.

    The kernel of two cells of a class is 1 / (cells of that class in the block), else 0.

    Parameters
    ----------
    codes
        Class codes of shape (n_blocks, B).

    Returns
    -------
    float32 array of shape (B(B-1)/2, n_blocks, 1).
    """
    same = (codes[:, :, None] == codes[:, None, :]).astype(np.float64)
    kernel = same / same.sum(axis=2, keepdims=True)
    basis = centred_basis(codes.shape[1])
    coordinates = np.tensordot(basis, kernel, axes=((1, 2), (1, 2)))
    return _normalise(coordinates)[:, :, None].astype(np.float32)
