"""Are the differences between methods larger than chance? Ranks and tests over many columns.

A column is one (data set, task, k): methods are compared within it, and its value is the mean
over seeds, because seeds of one column are no independent evidence (Demšar 2006, "Statistical
comparisons of classifiers over multiple data sets").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MIN_COLUMNS = 6
"""With five columns the smallest possible two-sided Wilcoxon p is 2/2**5 = 0.0625: no pair could
ever differ at the 5% level, so nothing is tested below six."""


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    columns
        Number of columns that count.
    mean_rank
        Mean rank per method, 1 = best, ties share the mean rank; sorted, best first.
    statistic, p_value
        Friedman's chi-square and its p-value; NaN when not tested.
    pairwise
        Holm-corrected p-values of the pairwise Wilcoxon signed-rank tests, methods x methods in
        the order of `mean_rank`; None when not tested.
    notes
        What was left out, and why a test is missing.
    """

    columns: int
    mean_rank: pd.Series[float]
    statistic: float
    p_value: float
    pairwise: pd.DataFrame | None
    notes: tuple[str, ...]


def mean_ranks(values: pd.DataFrame, *, higher_is_better: bool = True) -> pd.Series[float]:
    """Mean rank of each method over the columns.

    Parameters
    ----------
    values
        Columns of the comparison in rows, methods in columns, no missing values.
    higher_is_better
        Direction of the metric.

    Returns
    -------
    Mean rank per method (1 = best; ties share the mean rank), best first, ties in the order of
    `values`.
    """
    ranks = values.rank(axis=1, ascending=not higher_is_better, method="average")
    return ranks.mean().sort_values(kind="stable")


def friedman(values: pd.DataFrame) -> tuple[float, float]:
    """Friedman's test that all methods rank alike: chi-square and p-value.

    Parameters
    ----------
    values
        Columns of the comparison in rows, at least three methods in columns.

    Returns
    -------
    (0, 1) when all methods score the same everywhere.
    """
    from scipy.stats import friedmanchisquare

    if (values.nunique(axis=1) == 1).all():
        return 0.0, 1.0
    result = friedmanchisquare(*(values[name].to_numpy() for name in values))
    return float(result.statistic), float(result.pvalue)


def wilcoxon_holm(values: pd.DataFrame) -> pd.DataFrame:
    """Pairwise Wilcoxon signed-rank tests over the columns, corrected by Holm's method.

    Parameters
    ----------
    values
        Columns of the comparison in rows, methods in columns, no missing values.

    Returns
    -------
    p-values, methods x methods, symmetric, 1 on the diagonal.
    """
    import pandas as pd
    from scikit_posthocs import posthoc_wilcoxon

    names = list(values)
    # "zsplit" keeps columns on which two methods tie as evidence for neither; dropping them
    # leaves nothing to test for two methods that always tie.
    p = posthoc_wilcoxon(values.to_numpy().T, zero_method="zsplit", p_adjust="holm")
    return pd.DataFrame(p.to_numpy(), index=names, columns=names)


Incomplete = Literal["refuse", "drop-columns", "drop-methods"]
"""What is done where a method has no score in a column."""


def compare(
    values: pd.DataFrame, *, higher_is_better: bool = True, incomplete: Incomplete = "refuse"
) -> Comparison:
    """Compare methods over many columns.

    Parameters
    ----------
    values
        Columns of the comparison in rows, methods in columns, NaN where a method has no score.
    higher_is_better
        Direction of the metric.
    incomplete
        What to do with missing scores, since what is left out decides who wins. ``refuse``: rank
        nothing, and say which are missing. ``drop-columns``: leave out a method without a score in
        more than half of the columns, then every column in which one of the others has none.
        ``drop-methods``: leave out every method that lacks a score.

    Returns
    -------
    Mean ranks, unless refused; tests only where they can say something (see `MIN_COLUMNS`), else a
    note that says why not.
    """
    notes: list[str] = []
    share = values.isna().mean()
    if incomplete == "refuse" and share.any():
        return _refused(values)
    limit = 0.5 if incomplete == "drop-columns" else 0.0
    sparse = [str(name) for name, missing in share.items() if missing > limit]
    if sparse:
        much = "more than half of the columns" if limit else "a score is"
        notes.append(f"left out, {much} missing: " + ", ".join(sparse))
    kept = values.drop(columns=sparse)
    complete = kept.dropna()
    if len(complete) < len(kept):
        notes.append(
            f"{len(kept) - len(complete)} of {len(kept)} columns left out: a method has no score"
        )
    ranks = mean_ranks(complete, higher_is_better=higher_is_better)
    complete = complete[list(ranks.index)]
    n_columns, n_methods = complete.shape
    statistic, p_value, pairwise = np.nan, np.nan, None
    if n_columns < MIN_COLUMNS:
        notes.append(f"too few columns for a test: {n_columns}, at least {MIN_COLUMNS} are needed")
    elif n_methods < 2:
        notes.append("nothing to compare: fewer than two methods")
    else:
        pairwise = wilcoxon_holm(complete)
        if n_methods > 2:
            statistic, p_value = friedman(complete)
        else:
            notes.append("two methods: Wilcoxon's test only, Friedman's needs three")
    return Comparison(n_columns, ranks, statistic, p_value, pairwise, tuple(notes))


def _refused(values: pd.DataFrame) -> Comparison:
    """Nothing is ranked; which scores are missing."""
    missing = values.isna().sum()
    lacking = [f"{name} in {n} of {len(values)} columns" for name, n in missing.items() if n]
    note = (
        f"not ranked, scores are missing: {', '.join(lacking)}; a suite with "
        "'incomplete: drop-columns' or 'incomplete: drop-methods' ranks the others"
    )
    nothing = values.iloc[0, :0].astype(float)
    return Comparison(0, nothing, np.nan, np.nan, None, (note,))


def cliques(comparison: Comparison, alpha: float = 0.05) -> list[tuple[str, ...]]:
    """Groups of methods that cannot be told apart: the bars of a critical-difference diagram.

    Returns
    -------
    Runs of at least two methods, neighbours by mean rank, in which no pair differs at level
    `alpha`; only the longest are kept. Empty when nothing was tested.
    """
    if comparison.pairwise is None:
        return []
    same = comparison.pairwise.to_numpy() >= alpha
    names = list(comparison.mean_rank.index)
    runs: list[tuple[int, int]] = []
    for first in range(len(names)):
        last = first
        while last + 1 < len(names) and same[first : last + 2, first : last + 2].all():
            last += 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return [tuple(names[first : last + 1]) for first, last in runs]
