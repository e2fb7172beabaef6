"""Preparation of a file that is too large for memory: a block of cells after the other.

Steps that look at one cell at a time give the same values on a block as on all cells, so they are
applied as they are. The prepared file is the same as that of `preprocess`, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panelbench.data.blocks import Writer, blocks, check_memory, in_memory
from panelbench.data.recipes import options_of
from panelbench.data.specs import Step
from panelbench.data.steps import STEPS
from panelbench.errors import DataError
from panelbench.records.files import replacing

if TYPE_CHECKING:
    from anndata import AnnData

_ONE_CELL = ("filter_cells", "max_mito", "drop_cells", "drop_genes", "normalize", "log1p",
             "to_lognorm", "binarize")  # fmt: skip
"""Steps for which a cell needs no other cells."""
_ROW = "panelbench row"

Finished = Callable[["AnnData"], tuple["AnnData", dict[str, Any]]]


def by_blocks(adata: AnnData, steps: Sequence[Step]) -> bool:
    """Whether all steps work on blocks of cells; if not, the matrix is read into memory.

    Raises
    ------
    DataError
        When one of them does not, and there is not enough memory.
    """
    for step in steps:
        whole = getattr(options_of(step), "target_sum", None) == "median"
        if step.name not in _ONE_CELL or whole:
            name = "normalize (to the median)" if whole else step.name
            check_memory(adata.X, f"recipe step {name!r} needs all cells at once")
            adata.X = in_memory(adata.X)
            if "counts" in adata.layers:
                adata.layers["counts"] = adata.X
            return False
    return True


def write_by_blocks(
    adata: AnnData, steps: Sequence[Step], target: Path, where: str, finished: Finished
) -> dict[str, Any]:
    """Apply steps and write the prepared file; only a block of cells is in memory at a time.

    Parameters
    ----------
    adata
        What was read, its matrix on disk.
    steps
        Those for all cells.
    target
        The file to write; it appears complete or not at all.
    where
        The data set, for messages.
    finished
        Makes of the cells that are left, without values, what is written beside the matrices, and
        the facts.

    Returns
    -------
    The facts.
    """
    import h5py
    from anndata.io import write_elem

    applied = _Applied(adata, steps, where)
    with replacing(target) as partial, h5py.File(partial, "w") as file:
        write_elem(file, "layers", {})
        writers: dict[str, Writer] = {}
        for block in applied:
            for name, matrix in (("X", block.X), *block.layers.items()):
                place = file if name == "X" else file["layers"]
                if name not in writers:
                    writers[name] = Writer(place, name, block.n_vars)
                writers[name].append(matrix)
        for writer in writers.values():
            writer.close()
        prepared, facts = finished(applied.rest())
        for name in ("obs", "var"):
            write_elem(file, name, getattr(prepared, name))
        for name in ("obsm", "uns"):
            write_elem(file, name, dict(getattr(prepared, name)))
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    return facts


class _Applied:
    """Blocks of cells after some steps, and what is left of everything but values."""

    def __init__(self, adata: AnnData, steps: Sequence[Step], where: str) -> None:
        self.adata, self.steps, self.where = adata, steps, where
        self._kept: list[np.ndarray] = []
        self._counts = {index: [0, 0] for index in range(len(steps))}
        self._last: AnnData | None = None

    def __iter__(self) -> Any:
        import anndata

        adata = self.adata
        state = adata.uns["x"]
        if state != "counts":
            # Says once what it finds, and changes nothing.
            for step in self.steps:
                if step.name == "to_lognorm":
                    STEPS[step.name].function(adata, options_of(step))  # type: ignore[misc]
        for start, X in blocks(adata.X):
            obs = adata.obs.iloc[start : start + X.shape[0]].copy()
            obs[_ROW] = np.arange(start, start + X.shape[0])
            block = anndata.AnnData(X=X, obs=obs, var=adata.var[[]])
            block.uns.update(x=state, notes=[])
            if state == "counts":
                block.layers["counts"] = block.X
            try:
                block = self._through(block)
            except DataError as error:
                raise DataError(f"{self.where}: {error}") from error
            if block.n_obs:
                self._kept.append(block.obs[_ROW].to_numpy())
                self._last = block
                yield block
        if self._last is None:
            raise DataError(f"{self.where}: the recipe drops all {adata.n_obs} cells")

    def _through(self, block: AnnData) -> AnnData:
        """A block after the steps; empty when they drop all of its cells."""
        for index, step in enumerate(self.steps):
            kind, options = STEPS[step.name], options_of(step)
            assert kind.function is not None
            if kind.role == "values":
                if step.name != "to_lognorm" or block.uns["x"] == "counts":
                    kind.function(block, options)
                continue
            keep = kind.function(block, options)
            seen = self._counts[index]
            # Genes are the same in every block, cells add up.
            before = seen if kind.role == "cells" else [0, 0]
            seen[:] = [before[0] + int((~keep).sum()), before[1] + len(keep)]
            if not keep.any():
                if kind.role == "genes":
                    raise DataError(f"recipe step {step.name!r} drops all {len(keep)} genes")
                return block[:0]
            if not keep.all():
                block = block[keep].copy() if kind.role == "cells" else block[:, keep].copy()
        return block

    def rest(self) -> AnnData:
        """The cells that are left, in full but for their values, with notes."""
        import anndata
        from scipy import sparse

        assert self._last is not None
        rows, last = np.concatenate(self._kept), self._last
        nothing = sparse.csr_matrix((len(rows), last.n_vars), dtype=np.float32)
        adata = anndata.AnnData(
            X=nothing,
            obs=self.adata.obs.iloc[rows],
            var=last.var,
            obsm={name: values[rows] for name, values in self.adata.obsm.items()},
            layers=dict.fromkeys(last.layers, nothing),
        )
        dropped = [
            f"{step.name}: {gone} of {all_} {STEPS[step.name].role} dropped"
            for step, (gone, all_) in zip(self.steps, self._counts.values(), strict=True)
            if gone
        ]
        adata.uns.update(self.adata.uns)
        adata.uns.update(x=last.uns["x"], notes=[*self.adata.uns["notes"], *dropped])
        return adata
