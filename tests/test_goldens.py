"""Tables byte by byte: the files of a small suite whose every number is made up here.

After a wanted change, ``python -m tests.test_goldens`` writes them anew; look at the difference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from panelbench.records.status import exit_code, status_of
from panelbench.report import build
from panelbench.report.grid import Cell, Grid
from panelbench.report.latex import latex
from panelbench.report.results import Results
from panelbench.scoring import metrics
from panelbench.scoring.comparison import compare
from tests.reports import ROWS, fake_results

GOLDEN = Path(__file__).parent / "golden"

SUITE: dict[str, Any] = {
    "name": "golden",
    "title": "A golden suite",
    "datasets": [{"dataset": "visp", "tasks": ["fine_types", "depth"]}],
    "ks": [16, 32, 64],
    "seeds": [0, 1, 2],
    "evaluators": ["rf", "builtin"],
    "tables": [
        {"name": "narrow", "title": "Macro F1 & more_of [it]", "tasks": ["fine_types"]},
        {"name": "wide", "metrics": ["f1_macro", "accuracy", "auroc"], "tasks": ["fine_types"],
         "n_models": True},
        {"name": "guess", "title": "Depth", "metrics": ["pearson", "r2", "mse"], "ks": [64],
         "tasks": ["depth"]},
    ],
}  # fmt: skip
DEPTH = np.linspace(0, 1, 49) ** 2
GUESSES = {
    # The mean of equal numbers is not the number: what is left must not count as a correlation.
    "seurat": np.full(49, 0.1),
    "mrmr-f": DEPTH + 0.1 * np.sin(np.arange(49)),
    "persist": DEPTH[::-1],
    "yoto": DEPTH + 0.01,
    "all-genes": DEPTH,
}


def golden_results() -> Results:
    """Results with brackets, footnotes, ties, lost seeds, a flat guess and two kinds of task."""

    def change(line: dict[str, Any]) -> dict[str, Any]:
        method = line["row"].method
        if line["task"] == "depth":
            values = metrics.regression(DEPTH, GUESSES[method])
            return line | {"kind": "regression", "metrics": values, "classes": [],
                           "confusion": [], "per_class_f1": {}}  # fmt: skip
        if method == "persist" and line["k"] == 64 and line["seed"] == 1:
            lost = {"status": "timeout", "reason": "limit of 60 s, at 50% [epoch_3]"}
            return line | lost | {"metrics": {}}
        if method == "mrmr-f" and line["k"] == 16:
            return line | {"status": "failed", "reason": "ValueError: X_y\nmore", "metrics": {}}
        return line

    rows = (replace(ROWS[0], label="[50%] A_b & β"), *ROWS[1:])
    return fake_results(SUITE, change, rows=rows)


def written(folder: Path) -> dict[str, bytes]:
    """The texts of the report, by the names of their golden files."""
    files = build(golden_results(), folder)
    texts = [path for path in files if path.suffix in (".md", ".tex")]
    return {path.name: path.read_bytes() for path in texts}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("golden"))


def test_there_is_a_golden_file_for_every_table(texts: dict[str, bytes]) -> None:
    assert {path.name for path in GOLDEN.iterdir()} == texts.keys()


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*")))
def test_tables_are_the_same_bytes(texts: dict[str, bytes], name: str) -> None:
    assert texts[name].decode() == (GOLDEN / name).read_bytes().decode()


# -- what single lines decide --------------------------------------------------------------


def _grid(columns: int, text: str = "x") -> Grid:
    header = (("Method",), *((f"c{i}",) for i in range(columns)))
    rows = ((Cell("[a]"), *(Cell(text) for _ in range(columns))),)
    return Grid("g", "Title", header, rows)


def test_the_second_best_is_underlined_and_brackets_are_no_options() -> None:
    grid = replace(_grid(2), rows=((Cell("[a] b"), Cell("[1]", "best"), Cell("2", "second")),))
    assert r"{}[a] b & \textbf{[1]} & \underline{2} \\" in latex(grid)


def test_a_constant_guess_correlates_with_nothing() -> None:
    guess = np.full(49, 0.1)
    assert (guess - guess.mean()).any(), "rounding leaves something to be correlated"
    assert metrics.pearson_per_output(DEPTH, guess).tolist() == [0.0]
    assert metrics.regression(DEPTH, guess)["pearson"] == 0.0


def test_a_method_without_a_score_in_just_half_of_the_columns_is_compared() -> None:
    values = pd.DataFrame({name: np.arange(40.0) + i for i, name in enumerate("abc")})
    values.loc[:19, "c"] = np.nan
    half = compare(values, incomplete="drop-columns")
    assert (half.columns, set(half.mean_rank.index)) == (20, {"a", "b", "c"})
    values.loc[20, "c"] = np.nan
    less = compare(values, incomplete="drop-columns")
    assert (less.columns, set(less.mean_rank.index)) == (40, {"a", "b"})


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((), 0),
        (("done", "done"), 0),
        (("done", "skipped"), 0),
        (("skipped",), 1),
        (("skipped", "skipped"), 1),
        (("failed",), 1),
        (("waiting", "skipped"), 1),
        (("done", "failed"), 3),
        (("done", "skipped", "timeout"), 3),
        (("done", "no data"), 3),
    ],
)
def test_skipped_runs_do_not_count_unless_there_is_no_other(
    statuses: tuple[str, ...], code: int
) -> None:
    assert exit_code(map(status_of, statuses)) == code


if __name__ == "__main__":
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in written(Path(folder)).items():
            (GOLDEN / name).write_bytes(data)
