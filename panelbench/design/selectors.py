"""Selectors that are tried when none are named, and why these.

The reasons are the suite's own measurements (``results/perf/yoto.md``: ten ways over 30 columns of
data set and panel size, macro F1 on test cells). YOTO has the best mean rank; among classical
selectors the t-test, Wilcoxon and mRMR-rf (``planted`` among them) are each the best in several
columns, so that none of them can be left to chance.
mRMR-f costs two seconds of a core. Left out are forest importance (not told apart from mRMR-rf, at
three times its cost), the tie-corrected Wilcoxon test (a third test per class), those that the
others outdo, and those that do not look at labels. ``results/perf/design.md`` has the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selector:
    """A selector by id, and what it is good for."""

    method: str
    why: str


SELECTORS = (
    Selector("yoto", "learns all classes at once; first of nine by mean rank (1.87)"),
    Selector("wilcoxon", "the best test per class, by ranks; best classical one in 9 of 30"),
    Selector("t-test", "the test per class that sees size; best classical one in 6 of 30"),
    Selector("mrmr-rf", "forest importance less redundancy; best where genes work together"),
    Selector("mrmr-f", "class differences less redundancy; seconds"),
)
CONTROL = "random"
"""What every selector must beat; it cannot win."""
CEILING = "all-genes"
"""What a panel can reach at most, roughly."""


def reason(method: str) -> str:
    """Why a selector is tried; "" for one that was named by the user."""
    return next((item.why for item in SELECTORS if item.method == method), "")
