"""The report names the genes: every panel, what seeds agree on, known markers."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from panelbench.report import build
from panelbench.report.genes import address_of, genes_csv, method_panels
from panelbench.report.summary import Summary
from tests.reports import fake_results


def _summary() -> Summary:
    """mRMR-f with known rankings in three seeds, at k 2 and 3; gene5 marks B cells."""
    rankings = {0: ["gene5", "a", "b"], 1: ["gene5", "b", "c"], 2: ["d", "gene5", "b"]}
    results = fake_results(
        {"datasets": [{"dataset": "visp", "tasks": ["cell_types_25"]}], "ks": [2, 3]}
    )
    kept = [
        replace(line, ranking=rankings[line.seed])
        for line in results.selections
        if line.row.method == "mrmr-f"
    ]
    facts = {"visp": {**results.datasets["visp"], "markers": {"B cell": ["gene5", "far"]}}}
    return Summary(replace(results, selections=kept, datasets=facts))


def test_every_gene_of_every_panel_has_a_line() -> None:
    lines = list(csv.DictReader(io.StringIO(genes_csv(_summary()))))
    assert len(lines) == 3 * (2 + 3)
    first = [line for line in lines if (line["k"], line["seed"]) == ("3", "0")]
    assert [(line["rank"], line["gene"], line["seeds_with_it"]) for line in first] == [
        ("1", "gene5", "3"), ("2", "a", "1"), ("3", "b", "3"),
    ]  # fmt: skip
    assert {line["gene"]: line["marks"] for line in first} == {"gene5": "B cell", "a": "", "b": ""}


def test_what_seeds_agree_on_and_known_markers_stand_below_the_panels() -> None:
    (mine,) = method_panels(_summary())
    rows = [tuple(cell.text for cell in row) for row in mine.grid.rows]
    assert ("3", "0", "gene5, a, b") in rows
    # In more than half of the seeds: gene5 in all three, b in all three; a, c and d in one.
    assert ("3", "most", "gene5, b") in rows
    assert ("2", "most", "gene5") in rows
    assert ("3", "markers, 0", "B cell: gene5") in rows


def test_the_page_names_genes_and_offers_them_as_csv(tmp_path: Path) -> None:
    build(_summary().results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "gene5, a, b" in page and page.count("<script") == 1
    (inside,) = re.findall(r'base64,([^"]+)" download="genes.csv"', page)
    text = base64.b64decode(inside).decode()
    assert text == (tmp_path / "genes.csv").read_text()
    assert len(list(csv.DictReader(io.StringIO(text)))) == 15


def test_a_large_file_lies_beside_the_page() -> None:
    assert address_of("a\n" * 1_100_000, "genes.csv") == "genes.csv"
