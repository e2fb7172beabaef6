"""Splits: which cells are for training, for early stopping and for the test."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from panelbench.data.specs import GROUP, SplitSpec
from panelbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Split:
    """Cells of a split, as sorted int64 indices; together all cells, each once.

    Attributes
    ----------
    train, validation, test
        Validation cells are for early stopping, never for the score; often there are none.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_cells(
    obs: pd.DataFrame,
    labels: np.ndarray,
    spec: SplitSpec,
    seed: int,
    class_names: Sequence[str] = (),
    spatial: np.ndarray | None = None,
) -> Split:
    """Divide cells into training, validation and test cells.

    Parameters
    ----------
    obs
        Annotation of the cells; schemes by group read its column ``group`` (as in a prepared
        data set), or else the column that the scheme names.
    labels
        int64 of shape (n_cells,): class codes of the first task, -1 where missing. Cells without
        a label are divided like a class of their own, but need not reach every part.
    spec
        Scheme and fractions. With ``min_per_class`` the split follows MarkerMap (Gregory et al.
        2024): sizes rounded down for training and validation, reserved cells first, then one
        shuffle. Schemes by group take the fraction of groups, not of cells, and
        ``leave-one-group-out`` draws validation cells (a fraction of all) from the other groups.
    seed
        Seed of the run; for ``leave-one-group-out`` the number of the group, in sorted order, for
        ``folds``, ``blocks`` and ``cross`` that of the part.
    class_names
        Names for error messages.
    spatial
        Coordinates of the cells, shape (n_cells, 2), for ``blocks``.

    Raises
    ------
    DataError
        A class (named, with its number of cells) or the groups are too few for the parts asked
        for, or a part would be empty.
    """
    entropy = np.random.SeedSequence((seed, zlib.crc32(b"split")))
    if spec.scheme == "all":
        train, validation, test = np.arange(len(obs)), *np.empty((2, 0), dtype=np.int64)
    elif spec.scheme == "cross":
        train, validation, test = _cross(obs, labels, spec, seed)
    elif spec.scheme in ("folds", "blocks"):
        train, validation, test = _equal_parts(obs, spec, seed, spatial)
    elif spec.scheme == "leave-one-group-out":
        groups = _groups(obs, spec)
        test = _one_group(groups, seed, spec.rounds)
        rest = np.setdiff1d(np.arange(len(obs)), test)
        if spec.validate_group:
            validation = _one_group(groups, seed + 1, spec.rounds + 1)
            train = np.setdiff1d(rest, validation)
        elif spec.validation:
            strata = _strata(labels, spec, class_names, rest, parts=2)
            wanted = _share(spec.validation, len(obs))
            train, validation = _draw(rest, wanted, entropy, strata)
        else:
            train, validation = rest, rest[:0]
    elif spec.scheme == "groups":
        train, validation, test = _whole_groups(_groups(obs, spec), spec, entropy)
    elif spec.min_per_class is not None:
        train, validation, test = _reserved(labels, spec, entropy, class_names)
    else:
        everyone = np.arange(len(obs))
        strata = _strata(labels, spec, class_names, everyone, parts=3 if spec.validation else 2)
        first, second = entropy.spawn(2)
        train, test = _draw(everyone, _share(spec.test, len(obs)), first, strata)
        validation = train[:0]
        if spec.validation:
            wanted = _share(spec.validation, len(obs))
            train, validation = _draw(train, wanted, second, strata)
    parts = [np.sort(part).astype(np.int64) for part in (train, validation, test)]
    asked = True, spec.validation > 0 or spec.validate_group, spec.scheme != "all"
    for name, part, wanted in zip(("training", "validation", "test"), parts, asked, strict=True):
        if wanted and not len(part):
            raise DataError(f"split {spec.scheme}: no {name} cells among {len(obs)} cells")
    return Split(*parts)


def _integer(entropy: np.random.SeedSequence) -> int:
    """Seed for scikit-learn, which takes 32-bit integers."""
    return int(entropy.generate_state(1)[0])


def _share(fraction: float, n: int) -> int:
    """Number out of n, rounded up as scikit-learn does, but 0.2 / 0.7 of 7 is 2 and not 3."""
    return math.ceil(fraction * n - 1e-9)


def _strata(
    labels: np.ndarray,
    spec: SplitSpec,
    class_names: Sequence[str],
    among: np.ndarray,
    parts: int,
) -> np.ndarray | None:
    """Codes to stratify by, or None; every class has a cell for each of the parts.

    Cells without a label form a class; if they are too few for that, they join the largest one.
    """
    if not spec.stratify or not (labels >= 0).any():
        return None
    codes, counts = np.unique(labels[among][labels[among] >= 0], return_counts=True)
    rare = counts < parts
    if rare.any():
        first = int(np.flatnonzero(rare)[0])
        raise DataError(_too_few(int(codes[first]), int(counts[first]), parts, class_names, rare))
    strata = labels.copy()
    missing = labels < 0
    if 0 < missing[among].sum() < parts and len(codes):
        strata[missing] = codes[np.argmax(counts)]
    return strata


def _too_few(
    code: int, count: int, needed: int, class_names: Sequence[str], rare: np.ndarray
) -> str:
    name = class_names[code] if code < len(class_names) else str(code)
    cells = "1 cell" if count == 1 else f"{count} cells"
    others = f" (and {int(rare.sum()) - 1} more classes)" if rare.sum() > 1 else ""
    return (
        f"class {name!r} has {cells}{others}, but the split needs at least {needed} of every "
        f"class: drop rare classes with min_cells of the task (--min-cells-per-class {needed}), "
        "or switch stratification off"
    )


def _draw(
    rows: np.ndarray, size: int, entropy: np.random.SeedSequence, strata: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows at random into two parts, the second of this size."""
    from sklearn.model_selection import train_test_split

    try:
        kept, drawn = train_test_split(
            rows,
            test_size=size,
            random_state=_integer(entropy),
            stratify=None if strata is None else strata[rows],
        )
    except ValueError as error:
        raise DataError(
            f"cannot draw {size} of {len(rows)} cells: {error}; drop rare classes with min_cells "
            "of the task (--min-cells-per-class), or switch stratification off"
        ) from error
    return kept, drawn


def _reserved(
    labels: np.ndarray,
    spec: SplitSpec,
    entropy: np.random.SeedSequence,
    class_names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MarkerMap's split: reserve cells of every class, then fill from one shuffle."""
    assert spec.min_per_class is not None
    n = len(labels)
    # The small addition undoes rounding: 0.7 * 10 must not be 6.
    n_train = int((1 - spec.test - spec.validation) * n + 1e-9)
    n_validation = int(spec.validation * n + 1e-9)
    sizes = (n_train, n_validation, n - n_train - n_validation)
    codes, counts = np.unique(labels[labels >= 0], return_counts=True)
    needed = sum(spec.min_per_class)
    rare = counts < needed
    if rare.any():
        first = int(np.flatnonzero(rare)[0])
        raise DataError(_too_few(int(codes[first]), int(counts[first]), needed, class_names, rare))
    for name, size, least in zip(
        ("training", "validation", "test"), sizes, spec.min_per_class, strict=True
    ):
        if len(codes) * least > size:
            raise DataError(
                f"{len(codes)} classes with {least} {name} cells each (min_per_class) do not fit "
                f"into {size} {name} cells; drop rare classes with min_cells of the task "
                "(--min-cells-per-class), or change the fractions"
            )
    rng = np.random.default_rng(entropy)
    free = np.ones(n, dtype=bool)
    parts: list[list[np.ndarray]] = [[], [], []]
    for code in codes:
        members = rng.permutation(np.flatnonzero(labels == code))[:needed]
        free[members] = False
        cuts = np.cumsum(spec.min_per_class)[:-1]
        for part, reserved in zip(parts, np.split(members, cuts), strict=True):
            part.append(reserved)
    rest = rng.permutation(np.flatnonzero(free))
    for part, size in zip(parts, sizes, strict=True):
        missing = size - sum(len(reserved) for reserved in part)
        part.append(rest[:missing])
        rest = rest[missing:]
    train, validation, test = (np.concatenate(part) for part in parts)
    return train, validation, test


def _groups(obs: pd.DataFrame, spec: SplitSpec) -> np.ndarray:
    column = GROUP if GROUP in obs else str(spec.group)
    if column not in obs:
        raise DataError(f"split {spec.scheme}: no group column {spec.group!r} in obs")
    missing = int(obs[column].isna().sum())
    if missing:
        raise DataError(
            f"split {spec.scheme}: {missing} cells have no value in the group column "
            f"{spec.group!r}; drop them (recipe step drop_cells with missing: true)"
        )
    return obs[column].astype(str).to_numpy()


def _one_group(groups: np.ndarray, seed: int, rounds: int) -> np.ndarray:
    names = np.unique(groups)
    if len(names) < 2:
        raise DataError(f"split leave-one-group-out: there is one group only ({names[0]!r})")
    if seed >= rounds * len(names):
        raise DataError(
            f"split leave-one-group-out: seed {seed} stands for a group that does not exist; "
            f"there are {len(names)} groups, so seeds are 0 to {rounds * len(names) - 1} "
            f"({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
        )
    return np.flatnonzero(groups == names[seed % len(names)])


def _equal_parts(
    obs: pd.DataFrame, spec: SplitSpec, seed: int, spatial: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells or tiles of every group in equal parts; one is for the test, the next ones follow."""
    groups = np.full(len(obs), "all") if spec.group is None else _groups(obs, spec)
    turn, number = divmod(seed, spec.folds)
    rng = np.random.default_rng(np.random.SeedSequence((turn, zlib.crc32(b"split"), spec.folds)))
    part = np.empty(len(obs), dtype=np.int64)
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        units = rows if spec.scheme == "folds" else _tiles(spatial, rows, spec, name)
        names, of_row = np.unique(units, return_inverse=True)
        if len(names) < spec.folds:
            what = "cells" if spec.scheme == "folds" else "tiles with cells"
            raise DataError(
                f"split {spec.scheme}: {len(names)} {what} in group {name!r}, fewer than the "
                f"{spec.folds} folds"
            )
        part[rows] = (rng.permutation(len(names)) % spec.folds)[of_row]
    later = (part - number) % spec.folds
    held = (later > 0) & (later <= spec.n_validation)
    train = later > spec.n_validation
    return np.flatnonzero(train), np.flatnonzero(held), np.flatnonzero(later == 0)


def _cross(
    obs: pd.DataFrame, labels: np.ndarray, spec: SplitSpec, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of the same class shares, of whole groups where there are any; one is for the test.

    A class of fewer cells than parts is missing in some; cells without a label count as a class.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    turn, number = divmod(seed, spec.folds)
    entropy = _integer(np.random.SeedSequence((turn, zlib.crc32(b"split"), spec.folds)))
    groups = None if spec.group is None else _groups(obs, spec)
    n = len(obs) if groups is None else len(np.unique(groups))
    if n < spec.folds:
        what = "cells" if groups is None else f"groups in {spec.group!r}"
        raise DataError(f"split cross: {n} {what}, fewer than the {spec.folds} folds")
    common = np.unique(labels, return_counts=True)[1].max() >= spec.folds
    strata = labels if spec.stratify and common else np.zeros(len(obs), dtype=np.int64)
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = splitter(spec.folds, shuffle=True, random_state=entropy)
    with warnings.catch_warnings():
        # It warns of classes with fewer cells than parts.
        warnings.simplefilter("ignore", UserWarning)
        found = list(parts.split(strata[:, None], strata, groups))
    if not all(len(test) for _, test in found):
        # Few groups of unlike shares: rather unlike parts than an empty one.
        found = list(GroupKFold(spec.folds).split(strata[:, None], strata, groups))
    train, test = found[number]
    return train, train[:0], test


def _tiles(spatial: np.ndarray | None, rows: np.ndarray, spec: SplitSpec, name: str) -> np.ndarray:
    """Number of the tile of each of a group's cells, of a grid over the group's extent."""
    if spatial is None:
        raise DataError('split blocks: no coordinates in obsm["spatial"]')
    places = np.asarray(spatial, dtype=np.float64)[rows, :2]
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    if not (extent > 0).all():
        raise DataError(f"split blocks: the cells of group {name!r} lie on a line")
    steps = np.minimum((places - low) / extent * spec.tiles, spec.tiles - 1).astype(np.int64)
    return np.asarray(steps[:, 0] * spec.tiles + steps[:, 1])


def _whole_groups(
    groups: np.ndarray, spec: SplitSpec, entropy: np.random.SeedSequence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.model_selection import GroupShuffleSplit

    names = np.unique(groups)
    needed = 3 if spec.validation else 2
    if len(names) < needed:
        raise DataError(
            f"split groups: {len(names)} groups in {spec.group!r}, but {needed} are needed "
            "(none may be on two sides)"
        )
    first, second = entropy.spawn(2)

    def divide(
        rows: np.ndarray, fraction: float, seed: np.random.SeedSequence
    ) -> tuple[np.ndarray, np.ndarray]:
        size = _share(fraction, len(names))
        splitter = GroupShuffleSplit(n_splits=1, test_size=size, random_state=_integer(seed))
        try:
            kept, drawn = next(splitter.split(rows, groups=groups[rows]))
        except ValueError as error:
            raise DataError(
                f"split groups: cannot draw {size} of {len(np.unique(groups[rows]))} groups in "
                f"{spec.group!r}: {error}"
            ) from error
        return rows[kept], rows[drawn]

    train, test = divide(np.arange(len(groups)), spec.test, first)
    validation = train[:0]
    if spec.validation:
        train, validation = divide(train, spec.validation, second)
    return train, validation, test
