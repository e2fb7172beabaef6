"""A sample of the training cells: by class and group, for every method alike, in the key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest

from panelbench.data.catalogue import own_data
from panelbench.data.subsample import subsample
from panelbench.errors import DataError
from panelbench.records.keys import digest
from panelbench.report import collect, tables
from panelbench.stages.fold import fit_fold
from panelbench.stages.prepared import load
from panelbench.stages.preprocess import prepare
from panelbench.stages.questions import FOLD_FIELDS, LABEL_FIELDS, spec_fields
from panelbench.suite.request import Request
from panelbench.suite.runs import Dataset
from tests.tools import write_h5ad

CLASSES = np.repeat([0, 1, 2, -1], [800, 150, 12, 38])
GROUPS = np.tile([0, 0, 0, 1], 250)
CELLS = np.arange(0, 1000)


def test_shares_of_classes_and_groups_are_kept_and_rare_classes_stay() -> None:
    drawn = subsample(CELLS, CLASSES, GROUPS, 200, seed=0)
    assert len(drawn) == len(set(drawn)) == 200 and (np.diff(drawn) > 0).all()
    sizes = {code: int((CLASSES[drawn] == code).sum()) for code in (0, 1, 2, -1)}
    # Ten of each class, then 170 in proportion to 790, 140, 2 and 38.
    assert sizes == {0: 148, 1: 35, 2: 10, -1: 7}
    for code in (0, 1):
        assert GROUPS[drawn[CLASSES[drawn] == code]].mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(drawn, subsample(CELLS, CLASSES, GROUPS, 200, seed=0))
    assert set(drawn) != set(subsample(CELLS, CLASSES, GROUPS, 200, seed=1))


def test_the_limits_of_a_sample() -> None:
    np.testing.assert_array_equal(subsample(CELLS[::-1], CLASSES, None, 1000, 0), CELLS)
    for n in (3, 4, 29, 31, 999):
        drawn = subsample(CELLS, CLASSES, None, n, 0)
        assert len(set(drawn)) == n and {0, 1, 2} <= set(CLASSES[drawn])
    with pytest.raises(DataError, match="--max-cells 2: the training cells have 3 classes"):
        subsample(CELLS, CLASSES, None, 2, 0)
    assert len(subsample(CELLS, np.full(1000, -1), None, 7, 0)) == 7


def test_a_fold_of_a_sample(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "own.h5ad", cells=200)
    whole = own_data(path, ["cell_type"], hvg=20, validation=0.2)
    few = whole.model_copy(update={"max_cells": 40})
    prepare(whole, tmp_path / "p.h5ad", tmp_path)
    cells = load(tmp_path / "p.h5ad")
    fold, all_ = fit_fold(cells, few, 3), fit_fold(cells, whole, 3)
    assert len(fold.train) == 40 and len(fold.validation) == round(40 * 40 / 120)
    np.testing.assert_array_equal(fold.test, all_.test)
    assert set(fold.train) < set(all_.train) and set(fold.validation) < set(all_.validation)
    assert fold.genes is not None and all_.genes is not None
    other = anndata.read_h5ad(path)
    left = np.setdiff1d(np.arange(200), np.concatenate([fold.train, fold.validation]))
    other.X[left] = 7 * other.X[left]
    other.write_h5ad(tmp_path / "own.h5ad")
    prepare(whole, tmp_path / "q.h5ad", tmp_path)
    again = fit_fold(load(tmp_path / "q.h5ad"), few, 3)
    np.testing.assert_array_equal(fold.genes, again.genes)
    np.testing.assert_array_equal(
        fit_fold(cells, whole.model_copy(update={"max_cells": 10**6}), 3).train, all_.train
    )


def test_it_is_in_the_key_of_the_fold_and_not_of_the_prepared_file(tmp_path: Path) -> None:
    whole = own_data(write_h5ad(tmp_path / "own.h5ad"), ["cell_type"])
    few = whole.model_copy(update={"max_cells": 40})
    assert "max_cells" not in spec_fields(whole, FOLD_FIELDS)
    assert digest(spec_fields(whole, FOLD_FIELDS)) != digest(spec_fields(few, FOLD_FIELDS))
    assert spec_fields(whole, LABEL_FIELDS) == spec_fields(few, LABEL_FIELDS)
    assert Request(max_cells=40).resolve().max_cells == 40
    assert Request(suite="demo", max_cells=40).resolve().max_cells == 40


def test_tables_say_so(tmp_path: Path) -> None:
    def caption(**most: int | None) -> list[str]:
        facts = {}
        for name, n in most.items():
            spec = own_data(write_h5ad(tmp_path / f"{name}.h5ad"), ["cell_type"])
            dataset = Dataset(spec.model_copy(update={"max_cells": n}), spec.tasks)
            facts[name] = collect._dataset(dataset, {"cells": 120})
        summary: Any = SimpleNamespace(results=SimpleNamespace(datasets=facts))
        return tables._sampled(summary, dict.fromkeys(most))

    assert caption(a=30) == [
        "Trained on at most 30 cells, a sample by class; scored on all test cells"
    ]
    assert caption(a=30, b=None)[0].startswith("Trained on at most 30 cells of a, a sample")
    assert not caption(a=None) and not caption(a=120)
