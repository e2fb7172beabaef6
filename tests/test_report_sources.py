"""What a report says is to be cited."""

from __future__ import annotations

import re
from dataclasses import replace

from panelbench.registry import discover
from panelbench.report.html import sources as page_sources
from panelbench.report.results import Results
from panelbench.report.sources import Source, bibtex, sources
from tests.reports import fake_results

KEY = re.compile(r"^@misc\{(.*),$", re.M)


def _results(cite: str, doi: str) -> Results:
    found = fake_results()
    first, *others = found.rows
    cited = replace(first, declared=replace(first.declared, cite=cite, doi=doi))
    return replace(found, rows=(cited, *others))


def test_a_paper_stands_once_with_all_it_is_used_for() -> None:
    found = _results("Tasic et al. 2018", "10.1038/s41586-018-0654-5")
    row = found.rows[0]
    found = replace(found, rows=(row, replace(row, method="other", label="Other[a=1]")))
    (paper, *_) = sources(found)
    assert paper.used_for == (row.label.partition("[")[0], "Other")
    assert paper.link == "https://doi.org/10.1038/s41586-018-0654-5"
    assert page_sources is sources


def test_entries() -> None:
    text = bibtex(
        [
            Source("Ding & Peng 2003", "10.1109/CSB.2003.1227396", ("mRMR-f", "mRMR-rf")),
            Source("Climente-González et al. 2019, Bioinformatics 35, i427", "", ("HSIC",)),
            Source("McInnes, Healy & Melville 2018", "", ("umap",)),
            Source("Ding et al. 2003", "", ("again",)),
            Source("10x Genomics 2016; labels of a tutorial (Satija et al. 2015)", "", ("pbmc3k",)),
            Source("no year & no {brace}", "", ("a_b",)),
        ]
    )
    assert KEY.findall(text) == [
        "ding2003", "climentegonzalez2019", "mcinnes2018", "ding2003b", "xgenomics2016",
        "noyearnobrace",
    ]  # fmt: skip
    assert "author = {Ding and Peng}" in text and "doi = {10.1109/CSB.2003.1227396}" in text
    assert "author = {Climente-González and others}" in text
    assert "howpublished = {Bioinformatics 35, i427}" in text
    assert "author = {McInnes and Healy and Melville}" in text
    assert r"howpublished = {no year \& no (brace)}" in text and r"a\_b" in text
    for entry in text.split("\n\n"):
        assert entry.count("{") == entry.count("}")


def test_shipped_methods_say_where_they_come_from() -> None:
    methods = discover().methods.values()
    without = {method.cite for method in methods if method.cite and not method.doi}
    assert without == {"Chopard et al. 2026"}, "what has no DOI is named here"
    assert all(re.fullmatch(r"10\.\d{4,9}/\S+", m.doi) for m in methods if m.doi)
