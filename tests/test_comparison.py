"""Ranks and tests over columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from panelbench.scoring.comparison import (
    MIN_COLUMNS,
    cliques,
    compare,
    friedman,
    mean_ranks,
    wilcoxon_holm,
)


def table(columns: int, gaps: dict[str, float], noise: float = 0.01) -> pd.DataFrame:
    """Scores of methods that differ by fixed gaps, with noise."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.9, size=columns)
    return pd.DataFrame(
        {name: base + gap + rng.normal(0, noise, size=columns) for name, gap in gaps.items()}
    )


def test_ties_share_the_mean_rank() -> None:
    values = pd.DataFrame({"a": [0.9, 0.5], "b": [0.9, 0.7], "c": [0.1, 0.6]})
    assert mean_ranks(values).to_dict() == {"b": 1.25, "a": 2.25, "c": 2.5}
    assert list(mean_ranks(values, higher_is_better=False).index) == ["c", "a", "b"]


def test_friedman_and_wilcoxon_are_scipys() -> None:
    values = table(12, {"a": 0.05, "b": 0.03, "c": 0.0}, noise=0.03)
    theirs = friedmanchisquare(*(values[name] for name in values))
    assert friedman(values) == pytest.approx((theirs.statistic, theirs.pvalue))
    raw = {(x, y): wilcoxon(values[x], values[y]).pvalue for x, y in ("ab", "ac", "bc")}
    # Holm: the smallest times 3, the next times 2, the last as it is, never decreasing.
    expected, last = {}, 0.0
    for i, pair in enumerate(sorted(raw, key=raw.__getitem__)):
        last = expected[pair] = max(last, min(1.0, raw[pair] * (3 - i)))
    found = wilcoxon_holm(values)
    for (x, y), p in expected.items():
        assert found.loc[x, y] == found.loc[y, x] == pytest.approx(p)
    assert (np.diag(found) == 1).all()


def test_clear_differences_are_found_and_equal_methods_are_not_told_apart() -> None:
    values = table(20, {"good": 0.2, "same": 0.1, "alike": 0.1, "bad": 0.0})
    found = compare(values)
    assert found.columns == 20
    assert found.mean_rank.index[0] == "good"
    assert found.p_value < 1e-6
    assert found.pairwise is not None
    assert found.pairwise.loc["good", "bad"] < 0.01
    assert found.pairwise.loc["same", "alike"] > 0.05
    assert [set(group) for group in cliques(found)] == [{"same", "alike"}]


def test_too_few_columns_say_so_instead_of_testing() -> None:
    found = compare(table(MIN_COLUMNS - 1, {"a": 0.2, "b": 0.1, "c": 0.0}))
    assert found.pairwise is None
    assert np.isnan(found.p_value)
    assert found.mean_rank.to_dict() == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert any("too few columns" in note for note in found.notes)
    assert cliques(found) == []
    assert compare(table(MIN_COLUMNS, {"a": 0.2, "b": 0.1, "c": 0.0})).pairwise is not None


def test_one_more_column_than_the_limit_could_reach_the_5_percent_level() -> None:
    always = pd.DataFrame({"a": np.arange(1.0, 10), "b": np.zeros(9)})
    assert wilcoxon(*always.iloc[:MIN_COLUMNS].T.to_numpy()).pvalue < 0.05
    assert wilcoxon(*always.iloc[: MIN_COLUMNS - 1].T.to_numpy()).pvalue > 0.05


def test_incomplete_columns_and_sparse_methods_are_left_out_and_named() -> None:
    values = table(8, {"a": 0.2, "b": 0.1, "c": 0.0, "rare": 0.3})
    values.loc[:5, "rare"] = np.nan
    values.loc[0, "b"] = np.nan
    found = compare(values, incomplete="drop-columns")
    assert found.columns == 7
    assert list(found.mean_rank.index) == ["a", "b", "c"]
    assert any("rare" in note for note in found.notes)
    assert any("1 of 8 columns" in note for note in found.notes)
    found = compare(values, incomplete="drop-methods")
    assert (found.columns, list(found.mean_rank.index)) == (8, ["a", "c"])
    assert any("b, rare" in note for note in found.notes)


def test_incomplete_blocks_are_refused_unless_told_how() -> None:
    values = table(8, {"a": 0.2, "b": 0.1, "c": 0.0})
    assert len(compare(values).mean_rank) == 3
    values.loc[0, "b"] = np.nan
    found = compare(values)
    assert found.columns == len(found.mean_rank) == 0 and found.pairwise is None
    assert np.isnan(found.p_value) and cliques(found) == []
    (note,) = found.notes
    assert "b in 1 of 8 columns;" in note and "incomplete: drop-columns" in note


def test_methods_that_always_tie_are_the_same() -> None:
    values = pd.DataFrame({name: np.linspace(0.1, 0.9, 8) for name in "abc"})
    found = compare(values)
    assert found.p_value == 1.0
    assert found.pairwise is not None
    assert (found.pairwise.to_numpy() == 1).all()
    assert cliques(found) == [("a", "b", "c")]


def test_two_methods_get_wilcoxons_test_only() -> None:
    found = compare(table(10, {"a": 0.2, "b": 0.0}))
    assert np.isnan(found.p_value)
    assert found.pairwise is not None
    assert found.pairwise.loc["a", "b"] < 0.05
    assert any("two methods" in note for note in found.notes)
