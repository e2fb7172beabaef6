"""Imputation on panels: strategies side by side, and their paired differences.

    panelbench run --suite agl-imputation --mirror DATA --results RESULTS
    python tests/perf/agl_imputation.py RESULTS           # Markdown from the records

Means over seeds; a difference is taken between two evaluations of the same panel and seed.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.records.store import Store

ORDER = ("none", "all", "random", "hvg", "agl", "ridge", "mean")
DEFAULT = {"strategy": "agl", "min_cells": "10", "lr": "0.001"}


def runs(results: Path) -> dict[tuple[int, str, str], dict[str, dict[int, Any]]]:
    """Records by (fewest cells, rate, method), then strategy, then seed; the newest of each."""
    found: dict[Any, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for record in sorted(Store(results), key=lambda item: item.attempt):
        variant = record.asked.get("evaluator", "")
        if variant.startswith("imputation") and record.status == "ok":
            params = DEFAULT | dict(re.findall(r"(\w+)=([\w.]+)", variant))
            place = int(params["min_cells"]), params["lr"], record.address.method
            found[place][params["strategy"]][record.asked["seed"]] = record
    return found


def paired(mine: dict[int, Any], others: dict[int, Any], metric: str) -> str:
    """Mean, spread and number above 0 of the differences on the same panels."""
    seeds = sorted(mine.keys() & others.keys())
    values = [value(mine[seed], metric) - value(others[seed], metric) for seed in seeds]
    if not values:
        return ""
    positive = sum(item > 0 for item in values)
    return f"{np.mean(values):+.3f} ± {np.std(values):.3f} ({positive}/{len(values)})"


def value(record: Any, metric: str) -> float:
    """A metric of a record; NaN where undefined."""
    return float(record.result["metrics"].get(metric, np.nan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    found = runs(parser.parse_args().results)
    for (min_cells, lr, method), strategies in sorted(found.items()):
        print(f"\n### {method}, genes expressed in at least {min_cells} cells, rate {lr}\n")
        print(
            "| strategy | seeds | Pearson | minus none | minus all | Spearman | MSE | k | CPU s |"
        )
        print("|" + "---|" * 9)
        for name in (item for item in ORDER if strategies.get(item)):
            mine = strategies[name]
            mean = {
                metric: f"{np.mean([value(record, metric) for record in mine.values()]):.3f}"
                for metric in ("imputed_pearson", "imputed_spearman", "imputed_mse")
            }
            differences = [
                paired(mine, strategies[other], "imputed_pearson")
                if name not in (other, "mean") else ""
                for other in ("none", "all")
            ]  # fmt: skip
            notes = [note for record in mine.values() for note in record.result["notes"]]
            kept = [note.split(" auxiliary")[0] for note in notes if " auxiliary" in note]
            seconds = np.mean([record.cost["cpu_seconds"] for record in mine.values()])
            cells = [name, str(len(mine)), mean["imputed_pearson"], *differences,
                     mean["imputed_spearman"], mean["imputed_mse"],
                     "; ".join(kept) if name == "agl" else "", f"{seconds:.0f}"]  # fmt: skip
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
