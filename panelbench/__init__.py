"""panelbench: a benchmarking suite for choosing small gene panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panelbench.api import run as run
    from panelbench.submission import submit as submit

__version__ = "0.2.0"
__all__ = ["__version__", "run", "submit"]


def __getattr__(name: str) -> Any:
    # The API imports pandas; `panelbench --help` must not.
    if name == "run":
        from panelbench.api import run

        return run
    if name == "submit":
        from panelbench.submission import submit

        return submit
    raise AttributeError(f"module 'panelbench' has no attribute {name!r}")
