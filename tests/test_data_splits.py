"""Splits: sizes, disjointness, stratification, groups, MarkerMap's reserved cells, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panelbench.data.specs import SplitSpec
from panelbench.data.splits import Split, split_cells
from panelbench.errors import DataError

MARKERMAP = SplitSpec(test=0.2, validation=0.1, stratify=False, min_per_class=(2, 1, 1))


def labels_of(*sizes: int, missing: int = 0) -> np.ndarray:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(np.concatenate([codes, np.full(missing, -1)]))


def frame(n: int, groups: list[str] | None = None) -> pd.DataFrame:
    obs = pd.DataFrame(index=[str(i) for i in range(n)])
    if groups is not None:
        obs["group"] = pd.Categorical(groups)
    return obs


def assert_partition(split: Split, n: int) -> None:
    parts = [split.train, split.validation, split.test]
    assert all(part.dtype == np.int64 for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))


def test_holdout_is_80_20_and_keeps_class_shares() -> None:
    labels = labels_of(60, 30, 10)
    split = split_cells(frame(100), labels, SplitSpec(), seed=0)
    assert_partition(split, 100)
    assert len(split.test) == 20 and not len(split.validation)
    assert np.bincount(labels[split.test]).tolist() == [12, 6, 2]


def test_validation_is_a_fraction_of_all_cells() -> None:
    split = split_cells(frame(200), labels_of(100, 100), SplitSpec(validation=0.1), seed=3)
    assert_partition(split, 200)
    assert (len(split.train), len(split.validation), len(split.test)) == (140, 20, 40)


def test_seed_decides_and_repeats() -> None:
    labels = labels_of(60, 40)
    first, again, other = (split_cells(frame(100), labels, SplitSpec(), seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for spec in (SplitSpec(validation=0.1), MARKERMAP):
        split_cells(frame(100), labels_of(60, 40), spec, seed=0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_rare_class_is_named_with_count_and_option() -> None:
    with pytest.raises(DataError, match=r"'rare' has 1 cell.*min_cells.*--min-cells-per-class"):
        split_cells(frame(51), labels_of(50, 1), SplitSpec(), 0, ["common", "rare"])
    with pytest.raises(DataError, match=r"'rare' has 3 cells.*at least 4"):
        split_cells(frame(53), labels_of(50, 3), MARKERMAP, 0, ["common", "rare"])


def test_rare_class_is_fine_without_stratification() -> None:
    split = split_cells(frame(51), labels_of(50, 1), SplitSpec(stratify=False), 0)
    assert_partition(split, 51)


@pytest.mark.parametrize("missing", [1, 30])
def test_cells_without_a_label_are_kept(missing: int) -> None:
    n = 80 + missing
    labels = labels_of(50, 30, missing=missing)
    assert_partition(split_cells(frame(n), labels, SplitSpec(validation=0.1), 0), n)


def test_no_labels_at_all() -> None:
    assert_partition(split_cells(frame(30), np.full(30, -1), SplitSpec(), 0), 30)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(4, 40), min_size=2, max_size=5), seed=st.integers(0, 999))
def test_markermap_sizes_and_reserved_cells(sizes: list[int], seed: int) -> None:
    sizes = [size + 10 for size in sizes]
    labels = labels_of(*sizes)
    n = len(labels)
    split = split_cells(frame(n), labels, MARKERMAP, seed)
    assert_partition(split, n)
    assert (len(split.train), len(split.validation)) == (n * 7 // 10, n // 10)
    for part, least in ((split.train, 2), (split.validation, 1), (split.test, 1)):
        assert (np.bincount(labels[part], minlength=len(sizes)) >= least).all()


def test_markermap_error_when_reserved_cells_do_not_fit() -> None:
    labels = labels_of(*[4] * 8)
    with pytest.raises(DataError, match="8 classes with 1 validation cells"):
        split_cells(frame(32), labels, MARKERMAP, 0)


def test_rounding_adds_and_takes_no_cell() -> None:
    """0.07 of 100 is a little more than 7 in floating point, what 0.3 and 0.2
    leave of 20 a little less than 10."""
    assert 0.07 * 100 > 7 and (1 - 0.3 - 0.2) * 20 < 10
    split = split_cells(frame(100), labels_of(60, 40), SplitSpec(test=0.07), 0)
    assert len(split.test) == 7
    split = split_cells(frame(101), labels_of(60, 41), SplitSpec(test=0.07), 0)
    assert len(split.test) == 8, "rounded up"
    spec = SplitSpec(test=0.3, validation=0.2, stratify=False, min_per_class=(1, 1, 1))
    split = split_cells(frame(20), labels_of(10, 10), spec, 0)
    assert (len(split.train), len(split.validation), len(split.test)) == (10, 4, 6)


def test_a_few_cells_without_a_label_take_nothing_from_small_classes() -> None:
    labels = labels_of(50, 10, missing=1)
    for seed in range(10):
        split = split_cells(frame(61), labels, SplitSpec(), seed)
        assert (labels[split.test] == 1).sum() == 2


def test_no_cell_is_reserved_for_those_without_a_label() -> None:
    labels = labels_of(30, 20, missing=1)
    assert_partition(split_cells(frame(51), labels, MARKERMAP, 0), 51)


def test_groups_are_never_on_two_sides() -> None:
    groups = [f"d{i % 10}" for i in range(200)]
    spec = SplitSpec(scheme="groups", group="donor", test=0.3, validation=0.2)
    split = split_cells(frame(200, groups), labels_of(100, 100), spec, 0)
    assert_partition(split, 200)
    sides = [{groups[i] for i in part} for part in (split.train, split.validation, split.test)]
    assert [len(side) for side in sides] == [5, 2, 3]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_too_few_groups() -> None:
    spec = SplitSpec(scheme="groups", group="donor")
    with pytest.raises(DataError, match="1 groups in 'donor'"):
        split_cells(frame(10, ["a"] * 10), labels_of(5, 5), spec, 0)


def test_leave_one_group_out_counts_groups_by_seed() -> None:
    groups = ["b", "a", "c", "a"] * 10
    spec = SplitSpec(scheme="leave-one-group-out", group="slide", stratify=False, validation=0.1)
    for seed, name in enumerate("abc"):
        split = split_cells(frame(40, groups), labels_of(20, 20), spec, seed)
        assert_partition(split, 40)
        assert {groups[i] for i in split.test} == {name}
        assert len(split.validation) == 4
    with pytest.raises(DataError, match="3 groups, so seeds are 0 to 2"):
        split_cells(frame(40, groups), labels_of(20, 20), spec, 3)


def test_missing_group_is_an_error() -> None:
    obs = frame(4, ["a", "b", "a", "b"])
    obs.loc["0", "group"] = None
    with pytest.raises(DataError, match="1 cells have no value in the group column 'donor'"):
        split_cells(obs, labels_of(2, 2), SplitSpec(scheme="groups", group="donor"), 0)
