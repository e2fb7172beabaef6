"""Commands on a store of about 132,000 records: seconds and memory, without and with an index.

`make` writes a catalogue, a suite and its records below a folder: 10 data sets, 17 methods, 8 panel
sizes, 12 seeds, 4 evaluators, every run once under its key and once under that of older code.
`measure` runs commands on it and prints one Markdown table; with `--code DIR` (repeatable) the
commands are those of other checkouts, in turn with this one. `cold` is without a read index,
`warm` with one. A report is made anew, or where there is one of a record less.

    python tests/perf/scale.py make /data/scale
    python tests/perf/scale.py measure /data/scale --code ../older-checkout
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parents[2]
METHODS = [
    *("random", "seurat", "seurat-v3", "cell-ranger", "t-test", "t-test-overestim", "wilcoxon"),
    *("wilcoxon-tie", "cosg", "rf-importance", "mrmr-f", "mrmr-rf", "hsic-lasso", "rankcorr"),
    *("smash", "scgenefit", "all-genes"),
]
CLASSES = [f"type {index}" for index in range(10)]
GENES = 1000
EVALUATORS = ["rf", "knn", "logreg", "neighbours"]


# -- making a store ------------------------------------------------------------------------


def suite(name: str, datasets: int, seeds: int, tables: bool) -> dict[str, Any]:
    """A grid of many data sets, methods, panel sizes and seeds."""
    shown = {
        "tables": [
            {"name": "f1", "title": "Macro F1", "metrics": ["f1_macro"], "evaluators": ["rf"]},
            {"name": "all", "title": "At 16 genes", "metrics": ["f1_macro", "auroc"], "ks": [16]},
        ],
        "figures": [{"name": "f1-by-k", "metric": "f1_macro", "evaluators": ["rf"]}],
    }
    return {
        "name": name,
        "datasets": [f"grid-{index}" for index in range(datasets)],
        "methods": METHODS,
        "ks": [4, 8, 12, 16, 24, 32, 48, 64],
        "seeds": list(range(seeds)),
        "evaluators": EVALUATORS,
        **(shown if tables else {}),
    }


def catalogue(datasets: int) -> dict[str, Any]:
    """Small synthetic data sets: nothing is computed on them but their folds."""
    return {
        f"grid-{index}": {
            "title": f"Grid {index}",
            "reader": "synthetic",
            "reader_options": {"cells": 300, "genes": 1000, "types": [5], "seed": index},
            "recipe": [{"normalize": {"target_sum": 10000}}, "log1p"],
            "tasks": [{"name": "type_a"}],
        }
        for index in range(datasets)
    }


def make(folder: Path, seeds: int) -> None:
    """Write the files of the grids, prepare the data sets, write the records."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "results" / "runs", ignore_errors=True)
    (folder / "data.yaml").write_text(yaml.safe_dump(catalogue(30)))
    (folder / "grid.yaml").write_text(yaml.safe_dump(suite("grid", 10, seeds, tables=True)))
    (folder / "large.yaml").write_text(yaml.safe_dump(suite("large", 30, seeds, tables=False)))
    subprocess.run(
        command(folder, "preprocess", *GRID), cwd=folder, env=environment(folder), check=True
    )
    count = sum(written(folder))
    print(f"{count} records")


def written(folder: Path) -> Iterator[int]:
    """Write every record; yield 1 for each."""
    from panelbench.api import plan_for
    from panelbench.records.keys import digest
    from panelbench.records.store import Store
    from panelbench.running.settings import Settings
    from panelbench.suite.request import Request

    request = Request(suite=str(folder / "grid.yaml"), datasets=folder / "data.yaml")
    store = Store(folder / "results")
    plan = plan_for(request, Settings(store.root, folder / "cache"))
    rng, facts = random.Random(0), _environment()
    rankings: dict[str, list[str]] = {}
    attempts: dict[str, str] = {}
    for number, run in enumerate((*plan.selections, *plan.evaluations)):
        select = run if run.stage == "select" else run.select
        if select is run:
            rankings[run.key] = rng.sample([f"GENE{index}" for index in range(GENES)], GENES)
        record = record_of(run, rankings[select.key], facts, rng)
        older = {**run.identity, "code": "0" * 32}
        for age, identity in (("", run.identity), ("old", older)):
            key = digest(identity) if age else run.key
            time = f"{number // 3600 % 24:02}{number // 60 % 60:02}{number % 60:02}"
            attempt = f"20261125T{time}.{rng.randrange(10**6):06}Z-node{number % 40}-{number}-"
            attempts.setdefault(age + select.key, attempt := attempt + f"{rng.getrandbits(32):08x}")
            asked = replace(record, address=replace(record.address, key=key), identity=identity)
            if select is not run:
                panel = {"selection": attempts[age + select.key]}
                asked = replace(asked, result={**record.result, **panel} if record.result else {})
            path = store.folder(asked.address) / f"{attempt}.json"
            path.parent.mkdir(parents=True)
            path.write_text(text_of(asked))
            yield 1


def text_of(record: Any) -> str:
    """What `Record.to_json` gives, with a little less white space, in a tenth of the time."""
    content = {**vars(record)}
    del content["address"], content["attempt"]
    return json.dumps(content, sort_keys=True, separators=(",\n  ", ": ")) + "\n"


def _environment() -> dict[str, Any]:
    from panelbench.records.provenance import environment

    return environment()


def record_of(run: Any, ranking: list[str], environment: Any, rng: random.Random) -> Any:
    """A record of a run, of the size that real ones have; one in 300 evaluations has failed."""
    from panelbench.records.status import Status
    from panelbench.records.store import Record
    from panelbench.stages.panel import panel_digest, panel_of

    if run.stage == "select":
        scores = sorted((round(rng.random() * 9, 12) for _ in ranking), reverse=True)
        result: dict[str, Any] = {
            "ranking": ranking, "scores": scores, "info": {}, "predictor": None, "cells": 700,
            "genes": GENES, "device": "cpu",
        }  # fmt: skip
    else:
        panel = panel_of({"ranking": ranking}, run.k)
        result = {
            "metrics": {metric.id: rng.random() for metric in run.declared.metrics},
            "classes": CLASSES,
            "per_class_f1": {name: rng.random() for name in CLASSES},
            "confusion": [[rng.randrange(60) for _ in CLASSES] for _ in CLASSES],
            "by_class": {}, "notes": [], "panel": panel_digest(panel), "panel_size": len(panel),
            "genes_read": len(panel), "train_cells": 700, "test_cells": 300,
        }  # fmt: skip
    failed = run.stage == "evaluate" and not rng.randrange(300)
    return Record(
        stage=run.stage,
        address=run.address,
        attempt="",
        question=run.question_digest,
        status=Status.FAILED if failed else Status.OK,
        reason="ValueError: it did not converge\nTraceback (most recent call last)" * failed,
        identity=run.identity,
        asked=run.asked,
        result={} if failed else result,
        cost={"seconds": rng.random(), "cpu_seconds": rng.random(), "peak_memory_mb": 300.5,
              "gpu_memory_mb": None},
        outside={"n_jobs": 1, "device": "auto", "time_limit": 7200.0, "memory_limit": 17179869184,
                 "from_cache": False, "printed": ""},
        environment=environment,
        started="2026-11-25T13:15:22.229229+00:00",
        ended="2026-11-25T13:15:23.229229+00:00",
    )  # fmt: skip


# -- measuring -----------------------------------------------------------------------------

GRID = ("--suite", "grid.yaml", "--datasets", "data.yaml")
LARGE = ("--suite", "large.yaml", "--datasets", "data.yaml", "--results", "none")
COMMANDS = {
    "list runs": ("list", "runs"),
    "run --dry-run": ("run", *GRID, "--dry-run"),
    "report": ("report", *GRID),
    "report, one record more": ("report", *GRID),
    "run --shard 7/100, all done": ("run", *GRID, "--shard", "7/100"),
    "run --dry-run, 200,000 to do": ("run", *LARGE, "--dry-run"),
}


def command(folder: Path, *words: str) -> list[str]:
    """A command line on the store of a folder."""
    return [sys.executable, "-m", "panelbench.cli", *words]


def environment(folder: Path, code: Path = HERE) -> dict[str, str]:
    """Environment in which a command is that of a checkout."""
    shim = folder / "code" / code.name
    shutil.rmtree(shim, ignore_errors=True)
    (shim / "panelbench").mkdir(parents=True)
    for path in (*(code / "panelbench").iterdir(), code / "methods"):
        if path.name != "__pycache__":
            (shim / "panelbench" / path.name).symlink_to(path)
    (shim / "datasets.yaml").symlink_to(code / "datasets.yaml")
    own = {"PYTHONPATH": str(shim), "PANELBENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    return {**os.environ, **own}


def timed(folder: Path, code: Path, words: Iterable[str]) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and peak MB of a command."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command(folder, *words), cwd=folder, env=environment(folder, code), stdout=out,
            stderr=out,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode not in (0, 3):
            out.seek(0)
            raise SystemExit(out.read()[-3000:].decode())
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@contextmanager
def one_more(folder: Path) -> Iterator[None]:
    """An evaluation has been done once more while a block runs, with other scores."""
    for path in sorted(folder.glob("results/runs/grid-0/*/*/*.json")):
        record = json.loads(path.read_text())
        if record["result"].get("metrics") and record["identity"]["code"] != "0" * 32:
            break
    record["result"]["metrics"] = dict.fromkeys(record["result"]["metrics"], 0.5)
    later = path.with_name(f"2027{path.name[4:]}")
    later.write_text(json.dumps(record))
    yield
    later.unlink()


def measure(folder: Path, codes: list[Path], only: list[str]) -> None:
    """Run every command with every checkout, without an index and with one."""
    records = sum(1 for _ in folder.glob("results/runs/*/*/*/*.json"))
    print("| command | code | records | cold: s | CPU s | warm: s | CPU s | peak MB | load |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, words in COMMANDS.items():
        if only and not any(part in name for part in only):
            continue
        for code in codes:
            shutil.rmtree(folder / "results" / "index", ignore_errors=True)
            found = []
            for _ in range(2):
                if "one record more" not in name:
                    shutil.rmtree(folder / "results" / "reports", ignore_errors=True)
                    found.append(timed(folder, code, words))
                    continue
                with one_more(folder):
                    found.append(timed(folder, code, words))
            cells = [name, code.name, f"{0 if 'none' in words else records:,}"]
            cells += [f"{value:.1f}" for seconds, cpu, _ in found for value in (seconds, cpu)]
            cells += [f"{max(peak for *_, peak in found):.0f}", f"{os.getloadavg()[0]:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Make or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--code", type=Path, action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.what == "make":
        make(folder, options.seeds)
    else:
        measure(folder, [*(code.resolve() for code in options.code), HERE], options.only)


if __name__ == "__main__":
    main()
