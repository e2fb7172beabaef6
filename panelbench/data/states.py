"""What an AnnData holds on its way through a recipe.

``adata.uns["x"]`` says what ``X`` is, a `State`: ``counts``, ``normalized`` (not yet logarithms),
``lognorm``, ``scaled`` or ``binary``. Once ``X`` stops being counts, they stay in
``layers["counts"]``; once it stops being log-normalised, that stays in ``layers["lognorm"]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from panelbench.errors import DataError
from panelbench.method import Matrix

if TYPE_CHECKING:
    from anndata import AnnData

State = Literal["counts", "normalized", "lognorm", "scaled", "binary"]


def detected(adata: AnnData) -> Matrix:
    """Matrix whose non-zero entries say which gene is seen in which cell."""
    return adata.layers.get("counts", adata.layers.get("lognorm", adata.X))


def lognorm(adata: AnnData) -> Matrix:
    """Log-normalised values of the cells.

    Raises
    ------
    DataError
        When the recipe has not made any.
    """
    if "lognorm" in adata.layers:
        return adata.layers["lognorm"]
    if adata.uns["x"] == "lognorm":
        return adata.X
    raise DataError(
        f"log-normalised values are needed, but X is {adata.uns['x']}: "
        "put normalize and log1p earlier in the recipe"
    )


def need(adata: AnnData, step: str, *states: State) -> None:
    """Raise `DataError` unless ``X`` is one of the states that a step works on."""
    if adata.uns["x"] not in states:
        raise DataError(
            f"recipe step {step!r} works on {' or '.join(states)}, but X is {adata.uns['x']} "
            "at this point"
        )
