"""Synthetic single-cell data with a known truth: nested cell types, planted markers, XOR pairs.

The counts of a cell are drawn from the expression profile of its type, a multinomial with a
log-normal library size. A type's profile is a common baseline in which the marker genes of the type
and of all types above it stand out. Cells are made in chunks from the drawn molecules, so no dense
matrix is ever held: memory follows the number of molecules of one chunk and the non-zero entries of
the result.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from panelbench.data.specs import TaskSpec
from panelbench.errors import ConfigError
from panelbench.schema import Model, parse

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

_MOLECULES_PER_CHUNK = 4_000_000
_LEVELS = "abcdefgh"


class SyntheticOptions(Model):
    """Options of a synthetic data set.

    cells, genes
        Size; XOR genes are among the genes.
    types
        Number of cell types at each level, coarse to fine, not decreasing; level ``i`` is the task
        ``type_a``, ``type_b``, ... and every type lies in one type of the level above.
    markers
        Marker genes of every type at every level.
    effect
        How many times a marker is expressed above the baseline.
    xor
        Pairs of XOR genes. With any, there is the binary task ``xor``: the two genes of a pair are
        both on or both off in class ``same`` and one is on in class ``different``, so a gene alone
        predicts nothing and any pair predicts everything.
    batches
        Number of batches (column ``batch``), each with its own factor for every gene.
    groups
        Number of groups of batches (column ``group``), as donors are healthy or ill: with more
        than one, each group has its own factor for every gene too.
    batch_effect
        Standard deviation of the logarithm of these factors.
    dropout
        Probability that a non-zero count of the type profile is lost.
    depth
        Median number of counts of a cell.
    seed
        Seed of everything drawn.
    """

    cells: Annotated[int, Field(ge=10, le=1_000_000)] = 2000
    genes: Annotated[int, Field(ge=10, le=200_000)] = 500
    types: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1, max_length=8)] = (
        3,
        6,
        12,
    )
    markers: Annotated[int, Field(ge=0)] = 3
    effect: Annotated[float, Field(ge=1)] = 10.0
    xor: Annotated[int, Field(ge=0)] = 0
    batches: Annotated[int, Field(ge=1)] = 1
    groups: Annotated[int, Field(ge=1)] = 1
    batch_effect: Annotated[float, Field(ge=0)] = 0.3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    depth: Annotated[float, Field(gt=0)] = 2000.0
    seed: Annotated[int, Field(ge=0)] = 0


def parse_options(options: dict[str, Any], where: str = "synthetic data") -> SyntheticOptions:
    """Check options.

    Raises
    ------
    ConfigError
        An unknown option (with near matches), a value out of range, or sizes that do not fit.
    """
    parsed = parse(SyntheticOptions, options, where)
    if list(parsed.types) != sorted(parsed.types):
        raise ConfigError(f"{where}: types go from coarse to fine, found {list(parsed.types)}")
    if parsed.types[-1] * 4 > parsed.cells:
        raise ConfigError(
            f"{where}: {parsed.types[-1]} types need at least {4 * parsed.types[-1]} cells, "
            f"found cells={parsed.cells}"
        )
    if parsed.groups > parsed.batches:
        raise ConfigError(
            f"{where}: {parsed.groups} groups need as many batches, found batches={parsed.batches}"
        )
    planted = sum(parsed.types) * parsed.markers + 2 * parsed.xor
    if planted > parsed.genes:
        raise ConfigError(
            f"{where}: {sum(parsed.types)} types with {parsed.markers} markers each and "
            f"{parsed.xor} XOR pairs need {planted} genes, found genes={parsed.genes}"
        )
    return parsed


def tasks(options: SyntheticOptions) -> tuple[TaskSpec, ...]:
    """Tasks that data with these options have, coarse to fine."""
    names = [f"type_{_LEVELS[level]}" for level in range(len(options.types))]
    return tuple(TaskSpec(name=name) for name in [*names, *(["xor"] if options.xor else [])])


def make(**options: Any) -> AnnData:
    """Make a data set.

    Parameters
    ----------
    options
        See `SyntheticOptions`.

    Returns
    -------
    AnnData with counts (CSR float32, cells x genes) in ``X``, categorical ``obs`` columns of the
    `tasks` and ``batch``, and the planted genes in ``uns["markers"]``: class name -> list of genes,
    ``xor`` -> the genes of all pairs.

    Raises
    ------
    ConfigError
        Options that do not fit.

    Notes
    -----
    The same options and seed give the same data on the same version of numpy.
    """
    import anndata
    import pandas as pd

    o = parse_options(options)
    names = np.array([f"g{i:0{len(str(o.genes - 1))}d}" for i in range(o.genes)])
    truth = _rng(o, "truth")
    parents = [_nested(o.types[i - 1], n) if i else None for i, n in enumerate(o.types)]
    lineages = _lineages(parents, o.types)
    planted = truth.permutation(o.genes)
    marker_of, planted = _take_markers(planted, o)
    pairs = planted[: 2 * o.xor].reshape(o.xor, 2)
    baseline = _baseline(truth, o, pairs)
    fine = _balanced(truth, o.types[-1], o.cells)
    batch = truth.integers(o.batches, size=o.cells)
    state = truth.integers(2, size=o.cells)
    factors = np.exp(truth.normal(0, o.batch_effect, (o.batches, o.genes)))
    if o.batches == 1:
        factors[:] = 1
    group = _nested(o.groups, o.batches)
    if o.groups > 1:
        factors *= np.exp(_rng(o, "groups").normal(0, o.batch_effect, (o.groups, o.genes)))[group]

    def profile(kind: int, lot: int) -> np.ndarray:
        weights = baseline.copy()
        for level, ancestor in enumerate(lineages[kind]):
            weights[marker_of[level][ancestor]] *= o.effect
        weights *= factors[lot]
        return np.asarray(weights / weights.sum())

    X = _draw_counts(o, fine, batch, profile)
    if o.xor:
        X = X + _xor_counts(o, state, pairs)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(o.cells)])
    markers: dict[str, list[str]] = {}
    for level, n in enumerate(o.types):
        letter = _LEVELS[level]
        classes = [f"{letter}{i:0{len(str(n - 1))}d}" for i in range(n)]
        codes = np.array([lineage[level] for lineage in lineages])[fine]
        obs[f"type_{letter}"] = _categorical(codes, classes)
        for i, name in enumerate(classes):
            markers[name] = names[np.sort(marker_of[level][i])].tolist()
    if o.xor:
        obs["xor"] = _categorical(state, ["same", "different"])
        markers["xor"] = names[pairs.ravel()].tolist()
    obs["batch"] = _categorical(batch, [f"batch_{i}" for i in range(o.batches)])
    if o.groups > 1:
        obs["group"] = _categorical(group[batch], [f"group_{i}" for i in range(o.groups)])
    adata = anndata.AnnData(X=X, obs=obs, var=pd.DataFrame(index=names))
    adata.uns["markers"] = markers
    return adata


def _categorical(codes: np.ndarray, names: list[str]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical(np.array(names)[codes], categories=names)


def _rng(o: SyntheticOptions, *purpose: str | int) -> np.random.Generator:
    words = [zlib.crc32(str(word).encode()) for word in purpose]
    return np.random.default_rng(np.random.SeedSequence((o.seed, *words)))


def _nested(n_parents: int, n_children: int) -> np.ndarray:
    """Parent of each child: consecutive blocks of nearly equal size."""
    return np.arange(n_children) * n_parents // n_children


def _lineages(parents: list[np.ndarray | None], types: tuple[int, ...]) -> list[list[int]]:
    """Types of all levels, coarse to fine, that each finest type lies in."""
    lineages = []
    for leaf in range(types[-1]):
        line = [leaf]
        for parent in reversed(parents):
            if parent is not None:
                line.insert(0, int(parent[line[0]]))
        lineages.append(line)
    return lineages


def _take_markers(
    genes: np.ndarray, o: SyntheticOptions
) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Disjoint marker genes for every type of every level, and the genes left over."""
    found: list[list[np.ndarray]] = []
    for n in o.types:
        block, genes = genes[: n * o.markers], genes[n * o.markers :]
        found.append(list(block.reshape(n, o.markers)))
    return found, genes


def _baseline(rng: np.random.Generator, o: SyntheticOptions, pairs: np.ndarray) -> np.ndarray:
    """Relative expression of every gene where it is no marker; XOR genes are silent."""
    weights = rng.lognormal(mean=0.0, sigma=1.0, size=o.genes)
    weights[pairs.ravel()] = 0.0
    return weights


def _balanced(rng: np.random.Generator, n_types: int, cells: int) -> np.ndarray:
    """Finest type of each cell: uneven shares, none below half of an even share."""
    shares = 0.5 / n_types + 0.5 * rng.dirichlet(np.ones(n_types))
    cuts = np.rint(np.cumsum(shares) * cells).astype(np.int64)
    cuts[-1] = cells
    codes = np.repeat(np.arange(n_types), np.diff(cuts, prepend=0))
    return np.asarray(rng.permutation(codes))


def _draw_counts(o: SyntheticOptions, fine: np.ndarray, batch: np.ndarray, profile: Any) -> Any:
    """Counts of all cells, CSR float32: chunks of cells of one type and batch."""
    from scipy import sparse

    depths = np.maximum(_rng(o, "depth").lognormal(np.log(o.depth), 0.35, o.cells), 1).astype(int)
    order = np.lexsort((np.arange(o.cells), batch, fine))
    label = fine.astype(np.int64) * o.batches + batch
    blocks: list[sparse.csr_matrix] = []
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], o.cells], strict=True):
        members = order[start:stop]
        heads = np.cumsum(profile(int(fine[members[0]]), int(batch[members[0]])))
        heads /= heads[-1]
        chunk = np.cumsum(depths[members]) // _MOLECULES_PER_CHUNK
        for number in np.unique(chunk):
            rows = members[chunk == number]
            rng = _rng(o, "cells", int(rows[0]))
            molecules = np.searchsorted(heads, rng.random(depths[rows].sum()), side="right")
            cell = np.repeat(np.arange(len(rows)), depths[rows])
            # One sort of cell * genes + gene counts the molecules of each cell and gene.
            entry, count = np.unique(cell * o.genes + molecules, return_counts=True)
            if o.dropout:
                kept = rng.random(len(entry)) >= o.dropout
                entry, count = entry[kept], count[kept]
            indptr = np.searchsorted(entry, np.arange(len(rows) + 1) * o.genes)
            blocks.append(
                sparse.csr_matrix(
                    (count.astype(np.float32), (entry % o.genes).astype(np.int32), indptr),
                    shape=(len(rows), o.genes),
                )
            )
    stacked = sparse.vstack(blocks, format="csr")
    return stacked[np.argsort(order, kind="stable")]


def _xor_counts(o: SyntheticOptions, state: np.ndarray, pairs: np.ndarray) -> Any:
    """Counts of the XOR genes, CSR float32: about five where a gene is on, none where it is off."""
    from scipy import sparse

    rng = _rng(o, "xor")
    first = rng.integers(2, size=(o.cells, len(pairs)))
    on = np.stack([first, first ^ state[:, None]], axis=2).reshape(o.cells, -1)
    cell, column = np.nonzero(on)
    count = 1 + rng.poisson(4.0, size=len(cell))
    return sparse.csr_matrix(
        (count.astype(np.float32), (cell, pairs.ravel()[column])), shape=(o.cells, o.genes)
    )
