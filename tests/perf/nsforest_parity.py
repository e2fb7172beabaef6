"""NS-Forest's combinations beside those of the package nsforest, where it is installed.

    python -m tests.perf.nsforest_parity

Both on planted cells and with the package's seed of the forest; prints each class's markers and F
scores. The package needs plotly beside what it declares.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import warnings

import numpy as np

from tests.perf.spapros_parity import planted

SEED = 123456
"""The package's."""


def main() -> None:
    """Print both sides."""
    import nsforest
    from anndata import AnnData

    warnings.simplefilter("ignore")
    ours = importlib.import_module("panelbench.methods.nsforest")
    X, codes = planted(n_cells=480, n_genes=120, n_types=6), np.arange(480) % 6
    cells = AnnData(X.copy())
    cells.var_names = [f"G{i}" for i in range(X.shape[1])]
    cells.obs["type"] = [f"T{code}" for code in codes]
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
    ):
        cells = nsforest.pp.prep_medians(cells, "type")
        cells = nsforest.pp.prep_binary_scores(cells, "type")
        theirs = nsforest.nsforesting.NSForest(
            cells, "type", n_trees=100, n_jobs=1, output_folder=f"{folder}/"
        ).set_index("clusterName")
    params = ours.Params(n_estimators=100)
    averages = ours.class_averages(X, codes, np.arange(6), "median")
    binary = ours.binary_scores(averages)
    bar = ours.threshold(binary, averages, params.threshold)
    for code in range(6):
        found = ours.markers(X, codes == code, averages[code], binary[code], bar, params, SEED)
        row = theirs.loc[f"T{code}"]
        print(f"T{code}", sorted(row.NSForest_markers), f"{row.f_score:.4f}",
              sorted(f"G{gene}" for gene in found.chosen), f"{found.f_beta:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
