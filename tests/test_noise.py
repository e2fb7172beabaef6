"""Noisy labels: who sees them, and that test labels stay clean."""

from __future__ import annotations

import csv
import json

from tests.tools import Bench

SUITE = {
    "name": "noisy",
    "datasets": ["synthetic-small"],
    "methods": ["random", "rf-importance"],
    "ks": [20],
    "seeds": [0, 1],
    "noise": {"fractions": [0, 1], "variants": ["both", "select"]},
    "tables": [{"name": "t", "metrics": ["accuracy"], "tasks": ["type_a"]}],
}


def test_noise_reaches_the_classifier_only_if_asked_for(bench: Bench) -> None:
    (bench.folder / "noisy.yaml").write_text(
        json.dumps(SUITE | {"datasets": [{"dataset": "synthetic-small", "tasks": ["type_a"]}]})
    )
    found = bench.call("run", "--suite", "noisy.yaml")
    assert found.code == 0, found.err
    # Two seeds: one selection at random and two by importance; the former is scored with clean
    # and with noisy labels, the latter in all three ways.
    assert "select: 6 run (6 ok)" in found.err and "evaluate: 10 run (10 ok)" in found.err
    text = (bench.results / "reports" / "noisy" / "tables" / "t.csv").read_text()
    mean = {
        (line["method"], float(line["noise"]), line["noise_in"]): float(line["mean"])
        for line in csv.DictReader(text.splitlines())
        if line["metric"] == "accuracy"
    }
    assert len(mean) == 6
    # Two classes: with every label drawn at random a classifier can only guess.
    for method in ("random", "rf-importance"):
        assert mean[method, 1.0, "both"] < 0.7
    # A panel chosen at random does not care about the noise; one chosen by labels does.
    assert mean["random", 1.0, "select"] == mean["random", 0.0, ""]
    assert mean["rf-importance", 1.0, "select"] < mean["rf-importance", 0.0, ""]
    table = (bench.results / "reports" / "noisy" / "tables" / "t.md").read_text()
    assert "no noise" in table and "100% noise, selection only" in table


def test_from_python_the_levels_can_be_told_apart(bench: Bench) -> None:
    import panelbench

    suite = bench.folder / "noisy.yaml"
    suite.write_text(
        json.dumps(SUITE | {"datasets": [{"dataset": "synthetic-small", "tasks": ["type_a"]}]})
    )
    frame = panelbench.run(
        suite, method="random", seed=0, results=bench.results, cache=bench.folder / "cache"
    )
    accuracy = frame.set_index(["noise", "noise_in"])["accuracy"]
    assert sorted(accuracy.index) == [(0.0, ""), (1.0, "both"), (1.0, "select")]
    assert accuracy[1.0, "both"] < accuracy[1.0, "select"] == accuracy[0.0, ""]
