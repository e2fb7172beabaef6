"""The YOTO paper's benchmark from end to end on stand-ins of a twentieth of the size.

``make rehearsal``: the suites `yoto-visp`, `yoto-covid` and `yoto-ablation` as they ship, every
method, k and seed, but few epochs, on synthetic data with the real ones' structure: three nested
labels of 98, 50 and 25 types; type, group and donor. Every table and figure of the paper comes out,
with the published numbers beside numbers that mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from panelbench.cli import app
from panelbench.registry import discover

SUITES = ("yoto-visp", "yoto-covid", "yoto-ablation")
FEW: dict[str, dict[str, Any]] = {
    "persist": {"eliminate_epochs": 2, "select_epochs": 3},
    "yoto": {"epochs": 4, "steps": 20},
    "yoto-persist-arch": {"epochs": 4},
}
"""Parameters of methods that train."""


def stand_ins(scale: int = 20) -> dict[str, Any]:
    """Entries that stand for VISp and COVID-PBMC, at one part in `scale` of cells and genes."""
    cells, types = 13_349 // scale, (25, 50, 98)
    # A smaller part keeps four cells of every type.
    while types[-1] * 4 > cells:
        types = tuple(max(2, number // 2) for number in types)
    visp = {
        "title": "Synthetic stand-in for VISp",
        "reader": "synthetic",
        "reader_options": {"cells": cells, "genes": 45_768 // scale, "types": list(types),
                           "markers": 2, "seed": 1},
        "recipe": [{"normalize": {"target_sum": 1_000_000}}, "log1p",
                   {"hvg": {"n": 10_000 // scale, "flavor": "cell_ranger", "fit": "all"}},
                   "binarize"],
        "tasks": [{"name": f"cell_types_{n}", "column": f"type_{letter}", "min_cells": 3}
                  for n, letter in ((98, "c"), (50, "b"), (25, "a"))],
    }  # fmt: skip
    covid = {
        "title": "Synthetic stand-in for COVID-PBMC",
        "reader": "synthetic",
        "reader_options": {"cells": 64_000 // scale, "genes": 33_538 // scale, "types": [9],
                           "markers": 5, "batches": 18, "groups": 3, "seed": 2},
        "recipe": [{"filter_cells": {"min_genes": 10}}, {"filter_genes": {"min_cells": 3}},
                   {"normalize": {"target_sum": 10_000}}, "log1p",
                   {"hvg": {"n": 5_000 // scale, "flavor": "seurat_v3", "fit": "train"}}],
        "tasks": [{"name": "celltype5", "column": "type_a"}, {"name": "group"},
                  {"name": "patient", "column": "batch"}],
    }  # fmt: skip
    return {"visp": visp, "covid-pbmc": covid}


def write(
    folder: Path,
    *,
    scale: int = 20,
    methods: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Path:
    """Write catalogue, suites and paper into a folder; the paper's file.

    Parameters
    ----------
    folder
        Made if need be.
    scale
        See `stand_ins`.
    methods, ks, seeds
        Some methods by id, of each the first entry; other panel sizes, other seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "datasets.yaml", stand_ins(scale))
    shipped = resources.files("panelbench.suite.shipped")
    for name in SUITES:
        suite = yaml.safe_load((shipped / f"{name}.yaml").read_text(encoding="utf-8"))
        suite["title"] = f"Rehearsal: {suite['title']}"
        entries = [_few(entry) for entry in suite["methods"]]
        if methods is not None:
            first = {x["method"]: x for x in reversed(entries)}
            entries = [x for x in entries if x["method"] in methods and x is first[x["method"]]]
        suite["methods"] = entries
        suite["seeds"] = list(seeds or suite["seeds"])
        if ks is not None:
            suite["ks"] = list(ks)
            every = (*suite["tables"], *suite["figures"], *suite["evaluators"])
            for item in (each for each in every if isinstance(each, dict)):
                item |= {"ks": [max(ks)]} if "ks" in item else {}
        _dump(folder / f"{name}.yaml", suite)
    paper = yaml.safe_load((shipped / "papers" / "yoto.yaml").read_text(encoding="utf-8"))
    paper["title"] = f"Rehearsal: {paper['title']}"
    paper["suites"] = [f"{name}.yaml" for name in SUITES]
    for item in paper["items"]:
        item["suite"] += ".yaml"
    del paper["minutes"], paper["scoring"]
    _dump(folder / "paper.yaml", paper)
    return folder / "paper.yaml"


def _few(entry: str | dict[str, Any]) -> dict[str, Any]:
    found = {"method": entry} if isinstance(entry, str) else dict(entry)
    params = {**found.get("params", {}), **FEW.get(found["method"], {})}
    if params:
        # Parameters would be part of the name.
        found = {"label": discover().get(found["method"]).label, **found, "params": params}
    return found


def _dump(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def main() -> int:
    """Rehearse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/rehearsal"))
    parser.add_argument("--scale", type=int, default=20, help="one part in ...")
    asked = parser.parse_args()
    paper = write(asked.folder, scale=asked.scale)
    started = time.monotonic()
    sys.argv = ["panelbench", "run", "--paper", str(paper), "--datasets",
                str(asked.folder / "datasets.yaml"), "--results", str(asked.folder / "results"),
                "--cache", str(asked.folder / "cache")]  # fmt: skip
    try:
        app()
    except SystemExit as end:
        print(f"rehearsed in {time.monotonic() - started:.0f} s")
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
