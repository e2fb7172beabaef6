"""Panels that are given: several at once, each at its own size, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from panelbench.errors import ConfigError, InputError
from panelbench.suite.panels import check_panel
from panelbench.suite.request import Request
from tests.tools import Bench


def _panels(folder: Path) -> list[Path]:
    paths = [folder / "short.csv", folder / "long.txt"]
    paths[0].write_text("gene\ng1\ng5\ng9\n")
    paths[1].write_text("g0\ng2\ng4\ng6\ng8\n")
    return paths


def test_two_panels_are_scored_each_at_its_own_size(bench: Bench) -> None:
    short, long = _panels(bench.folder)
    own = ["--data", str(bench.data), "--label", "cell_type", "--evaluator", "knn"]
    found = bench.call("run", *own, "--panel", str(short), "--panel", str(long))
    assert found.code == 0, found.err
    scored = {r.asked["label"]: r for r in bench.read() if r.stage == "evaluate"}
    assert {label: r.result["panel_size"] for label, r in scored.items()} == {"short": 3, "long": 5}
    assert "short" in found.out and "long" in found.out


def test_panels_beside_a_method(tmp_path: Path) -> None:
    short, long = _panels(tmp_path)
    request = Request(panel=[short, long], method=["random"])
    suite = request.resolve()
    assert [(entry.label, entry.ks) for entry in suite.methods] == [
        ("short", (3,)), ("long", (5,)), (None, None)
    ]  # fmt: skip
    assert suite.ks == (3, 5), "the method is asked for panels of both sizes"
    cut = Request(panel=[short, long], k=[2]).resolve()
    assert [entry.ks for entry in cut.methods] == [(2,), (2,)]
    with pytest.raises(ConfigError, match=r"short\.csv: 3 genes, fewer than --k 4"):
        Request(panel=[short, long], k=[4]).resolve()


def test_panels_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "panel.txt").write_text(f"g1\n{folder}\n")
    paths = [tmp_path / "a" / "panel.txt", tmp_path / "b" / "panel.txt"]
    suite = Request(panel=paths).resolve()
    assert [entry.label for entry in suite.methods] == [str(path) for path in paths]


def test_symbols_against_ensembl_ids() -> None:
    ids, symbols = [f"ENSG{i:011d}" for i in range(9)], ["CD3D", "LYZ"]
    where = Path("p.csv")
    with pytest.raises(InputError, match=r"gene symbols and the data have Ensembl ids: --gene-nam"):
        check_panel(where, symbols, ids, "own")
    with pytest.raises(InputError, match="Ensembl ids and the data have gene symbols"):
        check_panel(where, ids[:2], symbols, "own")
    with pytest.raises(InputError, match=r"1 of 2 genes .*: CD3E; near CD3E: CD3D"):
        check_panel(where, ["CD3E", "LYZ"], symbols, "own")
    check_panel(where, ["LYZ"], symbols, "own")


def test_notes_of_preprocessing_are_said_once(bench: Bench) -> None:
    adata = anndata.read_h5ad(bench.data)
    adata.X = np.log1p(adata.X.toarray().astype(np.float32) * 1.7)
    adata.write_h5ad(bench.folder / "logs.h5ad")
    args = ["preprocess", "--data", "logs.h5ad", "--label", "cell_type"]
    first, again = bench.call(*args), bench.call(*args)
    assert first.code == again.code == 0, first.err
    (note,) = [line for line in first.err.splitlines() if line.startswith("note: ")]
    assert "logs" in note and "taken as lognorm" in note
    assert "note: " not in again.err
