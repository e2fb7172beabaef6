"""panelbench: a benchmarking suite for choosing small gene panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panelbench.api import run as run

__version__ = "0.2.0"
__all__ = ["__version__", "run"]


def __getattr__(name: str) -> Any:
    # The API imports pandas; `panelbench --help` must not.
    if name == "run":
        from panelbench.api import run

        return run
    raise AttributeError(f"module 'panelbench' has no attribute {name!r}")
