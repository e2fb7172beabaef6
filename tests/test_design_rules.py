"""What a design decides and describes, on numbers that a test writes down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from panelbench.data.specs import SplitSpec
from panelbench.data.splits import split_cells
from panelbench.design.cells import Profile
from panelbench.design.choice import Candidate, choose, enough
from panelbench.design.gains import gains
from panelbench.design.pairs import confused
from panelbench.design.selectors import CEILING, CONTROL, SELECTORS
from panelbench.errors import DataError, PanelbenchError
from panelbench.registry import discover, discover_evaluators
from panelbench.scoring.evaluators.growth import growing
from panelbench.scoring.metrics import f1_macro
from tests.evaluations import simple
from tests.test_data_splits import assert_partition, frame, labels_of

# -- the rule ------------------------------------------------------------------------------


def candidate(name: str, *scores: float, **more: Any) -> Candidate:
    return Candidate(name, name, {8: np.array(scores)}, **more)


def test_the_best_wins_where_the_others_are_behind_by_more_than_the_noise() -> None:
    best = candidate("best", 0.9, 0.8, 0.7, stability=0.1)
    other = candidate("other", 0.8, 0.71, 0.6, stability=0.9)
    found = choose([other, best])
    assert [item.candidate.variant for item in found.standings] == ["best", "other"]
    assert not found.standings[1].as_good
    # Differences 0.1, 0.09, 0.1: part by part, not between means that vary by 0.1.
    assert found.standings[1].behind == pytest.approx(0.29 / 3)
    assert found.standings[1].error == pytest.approx(np.std([0.1, 0.09, 0.1], ddof=1) / 3**0.5)


def test_of_those_as_good_the_steadiest_wins() -> None:
    best = candidate("best", 0.9, 0.8, 0.7, stability=0.52)
    steady = candidate("steady", 0.92, 0.77, 0.69, stability=0.81)
    assert choose([best, steady]).winner is steady
    # By tenths: 0.04 more agreement is none.
    level = candidate("level", 0.92, 0.77, 0.69, stability=0.54)
    assert choose([best, level]).winner is best


def test_controls_and_those_without_a_score_cannot_win() -> None:
    control = candidate(CONTROL, 1.0, 1.0, 1.0, competes=False)
    part = candidate("part", 1.0, np.nan, 1.0, problem="timeout: 60 s")
    found = choose([control, part, candidate("whole", 0.1, 0.2, 0.3)])
    assert [item.candidate.variant for item in found.standings] == ["whole", "part", CONTROL]
    with pytest.raises(PanelbenchError, match="part: timeout: 60 s"):
        choose([control, part])


def test_the_elbow_is_the_smallest_size_within_the_noise_of_the_best() -> None:
    curve = {
        4: np.array([0.5, 0.5, 0.5]), 8: np.array([0.82, 0.76, 0.72]),
        16: np.array([0.9, 0.7, 0.73]), 32: np.array([0.9, 0.8, 0.7]),
    }  # fmt: skip
    # 32 less 16: 0, 0.1, -0.03, mean 0.023, error 0.039; less 8: 0.08, 0.04, -0.02: 0.033, 0.029.
    assert enough(curve) == 16
    assert enough({1: np.array([0.4]), 2: np.array([0.5])}) == 2, "one part has no noise to allow"


def test_selectors_exist_and_controls_are_none_of_them() -> None:
    known = discover()
    for item in SELECTORS:
        assert known.get(item.method).supervised and item.why
    assert known.get(CONTROL) and known.get(CEILING)
    assert not {CONTROL, CEILING} & {item.method for item in SELECTORS}


# -- splits --------------------------------------------------------------------------------


def test_parts_hold_each_cell_once_and_keep_class_shares() -> None:
    labels = labels_of(50, 25, 2, missing=5)
    spec = SplitSpec(scheme="cross", folds=5)
    splits = [split_cells(frame(82), labels, spec, seed) for seed in range(5)]
    for split in splits:
        assert_partition(split, 82)
        assert np.bincount(labels[split.test] + 1, minlength=4)[1:3].tolist() == [10, 5]
    assert np.array_equal(np.sort(np.concatenate([s.test for s in splits])), np.arange(82))
    again = split_cells(frame(82), labels, spec, 5)
    assert not any(np.array_equal(again.test, split.test) for split in splits)


def test_parts_keep_groups_whole() -> None:
    donors = [f"d{i % 7}" for i in range(70)]
    spec = SplitSpec(scheme="cross", folds=7, group="donor")
    held = []
    for seed in range(7):
        split = split_cells(frame(70, donors), labels_of(40, 30), spec, seed)
        assert_partition(split, 70)
        names = {donors[i] for i in split.test}
        assert len(names) == 1 and not names & {donors[i] for i in split.train}
        held += names
    assert len(set(held)) == 7
    with pytest.raises(DataError, match="3 groups in 'donor', fewer than the 7 folds"):
        split_cells(frame(6, ["a", "b", "c"] * 2), labels_of(6), spec, 0)


def test_all_cells_can_be_for_training() -> None:
    split = split_cells(frame(9), labels_of(6, 3), SplitSpec(scheme="all"), 0)
    assert split.train.tolist() == list(range(9))
    assert not len(split.test) and not len(split.validation)


# -- genes ---------------------------------------------------------------------------------


def profile(X: np.ndarray, codes: Any, *, csr: bool = True, allowed: Any = None) -> Profile:
    matrix = sparse.csr_matrix(X.astype(np.float32)) if csr else X.astype(np.float32)
    codes = np.asarray(codes)
    names = np.array([f"g{i}" for i in range(X.shape[1])])
    free = np.ones(X.shape[1], dtype=bool) if allowed is None else np.asarray(allowed)
    return Profile(names, matrix, None, codes, ("a", "b", "c"), free)


@pytest.fixture(scope="module")
def three() -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 40: g0 marks a, g1 (and g2, less) tells b from c, the rest is noise."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 40)
    X = rng.poisson(1.0, (120, 200)).astype(float)
    X[:, 0] = 9 * (codes == 0)
    X[:, 1] = 5 * (codes == 1) + rng.poisson(1.0, 120)
    X[:, 2] = 3 * (codes == 1) + rng.poisson(1.0, 120)
    return X, codes


def test_pairs_that_are_confused_come_with_the_genes_that_would_help(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    X, codes = three
    total = np.array([[40, 0, 0], [1, 20, 19], [0, 21, 19]])
    (pair,) = confused(total, profile(X, codes), ["g0", "g5"])
    assert (pair.a, pair.b) == ("c", "b") and pair.wrong == (21, 19)
    assert pair.share == pytest.approx(40 / 79)
    assert pair.on_panel[0] in ("g0", "g5") and 0.5 <= pair.on_panel[1] < 0.7
    # Noise is better than the panel too, by chance: only what chance does not give is named.
    assert [gene for gene, _ in pair.off_panel] == ["g1", "g2"]
    allowed = np.arange(200) != 1
    (pair,) = confused(total, profile(X, codes, allowed=allowed), ["g0", "g5"])
    assert [gene for gene, _ in pair.off_panel] == ["g2"], "what must not be on it is no help"
    (pair,) = confused(total, profile(X, codes), ["g1"])
    assert pair.off_panel == (), "nothing is better than what it has"


def test_few_cells_make_no_gene_a_help(three: tuple[np.ndarray, np.ndarray]) -> None:
    X, codes = three
    few = np.concatenate([np.flatnonzero(codes == c)[:3] for c in range(3)])
    total = np.array([[3, 0, 0], [0, 1, 2], [0, 1, 2]])
    (pair,) = confused(total, profile(X[few], codes[few]), ["g0"])
    assert pair.off_panel == ()


def test_each_gene_is_told_by_the_pairs_that_it_is_the_first_for(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    X, codes = three
    first, second, third = gains(profile(X, codes), ["g0", "g1", "g2"])
    assert first.first == (("a", "b"), ("a", "c")) and first.together == pytest.approx(2 / 3)
    assert first.most is not None and first.most[1:] == (0.5, 1.0)
    assert second.first == (("b", "c"),) and second.together == 1.0
    assert third.first == () and third.most is None and third.together == 1.0


@pytest.mark.parametrize("csr", [True, False])
def test_correlations_are_pearsons(three: tuple[np.ndarray, np.ndarray], csr: bool) -> None:
    X, codes = three
    X = X.copy()
    X[:, 7] = 2.0
    found = profile(X, codes, csr=csr).correlations(["g3", "g1"])
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(X.T)[[3, 1]])
    assert found == pytest.approx(expected, abs=1e-5)
    assert found[0, 7] == 0.0, "a constant gene correlates with none"


# -- growth --------------------------------------------------------------------------------


def test_sizes_grow_by_one_gene_then_by_steps() -> None:
    assert growing(20, 1.5) == [1, 2, 3, 4, 6, 9, 14, 20]
    assert growing(1, 1.5) == [1]


def test_growth_scores_the_first_genes_in_the_panels_order() -> None:
    y = np.arange(30) % 3
    X = np.stack([0 * y, y == 0, 0 * y, y == 1], axis=1).astype(float)
    evaluator = discover_evaluators().get("growth")

    def curve(panel: list[str]) -> Any:
        given = simple(X, y, X, y, panel=panel)
        return evaluator.score(given, evaluator.params(n_estimators=5))

    found = curve(["g0", "g1", "g2", "g3"])
    assert found.arrays["sizes"].tolist() == [1, 2, 3, 4]
    # Nothing: all are one class, F1 0.5 of one in three. g1 tells class 0: (1 + 2/3 + 0) / 3.
    f1 = [f1_macro(found.arrays["codes"], guess) for guess in found.arrays["guesses"]]
    assert f1 == pytest.approx([1 / 6, 5 / 9, 5 / 9, 1.0])
    assert found.metrics == {"f1_growth": pytest.approx(41 / 72), "genes_95": 4.0}
    assert curve(["g1", "g3", "g0", "g2"]).metrics["genes_95"] == 2.0
