"""Expression targets: methods side by side, and their differences split by split.

    panelbench run --suite agl --mirror DATA --results RESULTS
    python tests/perf/agl_expression.py RESULTS           # Markdown from the records

Means over splits (seeds); a difference is taken between two methods on the same split. "Depth out":
sequencing depth regressed out, as `panelbench.scoring.expression` says.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from panelbench.records.store import Store

ORDER = ("mean-expression", "ridge-expression", "agl-none", "agl-all", "agl", "agl-hvg",
         "agl-random", "agl-amal", "agl-uncertainty")  # fmt: skip


def runs(results: Path) -> dict[tuple[str, str], dict[str, dict[int, Any]]]:
    """Metrics, learned k and cost by (data set, task), row and seed; the newest of each."""
    found: dict[Any, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    records = [r for r in sorted(Store(results), key=lambda r: r.attempt) if r.status == "ok"]
    selections = {r.attempt: r for r in records if r.stage == "select"}
    for record in (r for r in records if r.stage == "evaluate"):
        chosen = selections.get(record.result["selection"])
        if not str(record.asked["evaluator"]).startswith("expression") or chosen is None:
            continue
        size = record.asked["variant"].partition("n_auxiliary=")[2].rstrip("]").partition(",")[0]
        row = f"{record.address.method} {size}".strip()
        found[record.address.dataset, record.asked["task"]][row][record.asked["seed"]] = {
            **record.result["metrics"],
            "k": chosen.result["info"].get("k"),
            "n": chosen.result["info"].get("n_auxiliary"),
            "seconds": chosen.cost["cpu_seconds"],
        }
    return found


def paired(mine: dict[int, Any], others: dict[int, Any], metric: str) -> str:
    """Mean, spread and number above 0 of the differences on the same splits."""
    seeds = sorted(mine.keys() & others.keys())
    if not seeds or mine is others:
        return ""
    values = [mine[seed][metric] - others[seed][metric] for seed in seeds]
    positive = sum(item > 0 for item in values)
    return f"{np.mean(values):+.3f} ± {np.std(values):.3f} ({positive}/{len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    for (dataset, task), rows in sorted(runs(parser.parse_args().results).items()):
        print(f"\n### {dataset}, {task}\n")
        print("| method | splits | Pearson | minus none | minus all | depth out | minus none "
              "| Spearman | MSE | k | CPU s |")  # fmt: skip
        print("|" + "---|" * 11)
        for row in sorted(rows, key=lambda name: (ORDER.index(name.split()[0]), len(name), name)):
            mine = rows[row]

            def mean(metric: str, mine: dict[int, Any] = mine) -> str:
                return f"{np.mean([item[metric] for item in mine.values()]):.3f}"

            none, everything = rows["agl-none"], rows["agl-all"]
            learned = [item["k"] for item in mine.values()] if row == "agl" else []
            cells = [
                row, str(len(mine)), mean("outputs_pearson"),
                paired(mine, none, "outputs_pearson"), paired(mine, everything, "outputs_pearson"),
                mean("outputs_pearson_depth"), paired(mine, none, "outputs_pearson_depth"),
                mean("outputs_spearman"), mean("outputs_mse"),
                f"{learned} of {next(iter(mine.values()))['n']}" if learned else "",
                f"{np.mean([item['seconds'] for item in mine.values()]):.0f}",
            ]  # fmt: skip
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
