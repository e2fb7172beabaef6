"""Designs from data to page: a small one with methods of the tests."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from panelbench import api
from panelbench.design import page
from panelbench.design.genes import COLUMNS
from panelbench.design.perform import Found, n_parts, perform
from panelbench.errors import ConfigError, InputError
from panelbench.records.store import Store
from panelbench.report.grid import Cell, Grid
from panelbench.report.html import LARGEST_CSV, csv_url
from panelbench.running.settings import Settings
from panelbench.suite.request import Request
from tests.tools import Bench, method_source, write_h5ad

GOOD = """
X, y = task.dense(), task.target.values
spread = np.stack([X[y == code].mean(axis=0) for code in np.unique(y)]).std(axis=0)
order = np.argsort(-spread, kind="stable")
return Selection(ranking=task.genes[order].tolist(), scores=spread[order])
"""
BAD = "return Selection(ranking=task.genes[::-1].tolist())"
BROKEN = "raise ValueError('it breaks')"
SUPERVISED = "nested=True, supervised=True, needs='lognorm'"
PER_CLASS = 4
"""Genes of the small data that are raised in each of its three classes: the first twelve."""


@dataclass
class Made:
    """A design that was done."""

    request: Request
    settings: Settings
    found: Found
    written: page.Written

    @property
    def text(self) -> str:
        return self.written.page.read_text()

    def lines(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.written.panel.open()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six genes of sixty cells, two parts of whole donors, a budget, a gene that must be on it."""
    folder = tmp_path_factory.mktemp("design")
    data = write_h5ad(folder / "own.h5ad", cells=80, genes=30)
    (folder / "methods").mkdir()
    for name, body in (("good", GOOD), ("bad", BAD), ("broken", BROKEN)):
        (folder / "methods" / f"{name}.py").write_text(method_source(name, body, SUPERVISED))
    (folder / "must.txt").write_text("g29\n")
    (folder / "costs.csv").write_text(
        "gene,cost\n" + "".join(f"g{i},{1 + i % 3}\n" for i in range(30))
    )
    request = Request(
        data=data, label=("cell_type",), k=(6,), method=("bad", "good", "broken"),
        data_options={"group": "donor", "scheme": "groups"},
        constraints={
            "include": [folder / "must.txt"], "exclude": ["g0", "g1?"],
            "costs": folder / "costs.csv", "budget": 12.0,
        },
    )  # fmt: skip
    settings = Settings(
        results=folder / "out", cache=folder / "cache", methods_dirs=(folder / "methods",),
        jobs=1, quiet=True,
    )  # fmt: skip
    found = perform(request, settings, 2, maps=False)
    return Made(request, settings, found, page.write(found, settings))


def test_the_better_selector_wins_and_the_others_are_told(made: Made) -> None:
    assert made.found.choice.winner.variant == "good"
    verdicts = {item.candidate.variant: item for item in made.found.choice.standings}
    assert verdicts.keys() == {"good", "bad", "broken", "random"}
    assert not verdicts["bad"].as_good and not verdicts["random"].as_good
    assert "it breaks" in verdicts["broken"].candidate.problem
    assert "it breaks" in made.text


def test_parts_keep_donors_whole_and_the_panel_is_chosen_from_all_cells(made: Made) -> None:
    assert made.found.folds == 2
    parts = [line for line in made.found.parts.scores if line.row.variant == "good"]
    assert len(parts) == 2 and all(line.status == "ok" for line in parts)
    # Each cell was held away once.
    assert sum(int(np.sum(line.confusion)) for line in parts) == 80
    assert made.found.record.result["cells"] == 80
    assert made.found.final.dataset.spec.split.scheme == "all"


def test_the_panel_keeps_to_constraints_and_says_so(made: Made) -> None:
    lines = made.lines()
    assert tuple(lines[0]) == COLUMNS and len(lines) == 6
    names = [line["gene"] for line in lines]
    assert names == made.found.panel and "g29" in names
    assert "g0" not in names and not any(name.startswith("g1") and len(name) == 3 for name in names)
    assert sum(float(line["cost"]) for line in lines) <= 12.0
    why = {line["gene"]: line["why"] for line in lines}
    assert why["g29"] == "constraint: included"
    assert any(text.startswith("good, score ") for text in why.values())


def test_genes_are_described_as_the_counts_say(made: Made) -> None:
    counts = anndata.read_h5ad(made.request.data)
    X = counts.X.toarray()
    types = counts.obs["cell_type"].astype(str).to_numpy()
    for line in made.lines():
        values = X[:, int(line["gene"][1:])]
        assert float(line["mean"]) == pytest.approx(values.mean(), abs=1e-5)
        assert float(line["detection"]) == pytest.approx((values > 0).mean(), abs=1e-5)
        by_class = {name: values[types == name].mean() for name in set(types)}
        assert line["highest_class"] == max(by_class, key=by_class.__getitem__)
        assert float(line["mean_in_class"]) == pytest.approx(max(by_class.values()), abs=1e-5)
        # A gene that is raised in a class marks it and no other.
        number = int(line["gene"][1:])
        if number < 3 * PER_CLASS and line["marks"]:
            assert line["marks"] == f"type {number // PER_CLASS}"
        on = [text.split(" ")[0] for text in line["substitutes_on_panel"].split("; ")]
        off = [text.split(" ")[0] for text in line["substitutes_off_panel"].split("; ")]
        assert set(on) <= set(made.found.panel) - {line["gene"]} and len(on) == 3
        assert not set(off) & set(made.found.panel)
        assert not {"g0", "g10", "g19"} & set(off), "a substitute must be allowed on the panel"


class _Links(HTMLParser):
    """What a page asks for: attributes that load or lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tables = 0
        self.downloads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [(tag, str(given[n])) for n in ("src", "href", "data") if n in given]
        self.tables += tag == "table" and "sorted" in (given.get("class") or "")
        if "download" in given:
            self.downloads.append(str(given["href"]))


def test_the_page_asks_nobody_for_anything(made: Made) -> None:
    links = _Links(made.text)
    assert all(text.startswith(("data:", "#")) for _, text in links.found)
    assert links.tables == (7 if "Pairs that the panel confuses" in made.text else 6)
    assert len(links.downloads) == links.tables
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", made.text)
    for gene in made.found.panel:
        assert f">{gene}<" in made.text
    for name in ("dots", "heat", "curve", "apart", "confusion"):
        assert (made.written.page.parent / "figures" / f"{name}.svg").read_text().count("<svg") == 1
    assert str(made.request.data.parent) not in made.text, "no path of this machine"


def test_a_design_that_was_stopped_does_only_what_is_missing(made: Made) -> None:
    before = {path: path.read_bytes() for path in (made.written.page, made.written.panel)}
    records = {record.attempt for record in Store(made.settings.results)}
    found = perform(made.request, made.settings, 2, maps=False)
    assert {record.attempt for record in Store(made.settings.results)} == records
    page.write(found, made.settings)
    assert all(path.read_bytes() == text for path, text in before.items())
    lost = next(made.settings.results.glob("runs/*/good/*/*.json"))
    lost.unlink()
    perform(made.request, made.settings, 2, maps=False)
    again = {record.attempt for record in Store(made.settings.results)}
    assert len(again - records) == 1 and len(again) == len(records)


def test_python_and_the_command_line_ask_for_the_same(made: Made, bench: Bench) -> None:
    folder, request = made.settings.results.parent, made.request
    records = len(list(Store(made.settings.results)))
    frame = api.design(
        request.data, "cell_type", k=6, out=made.settings.results, folds=2, maps=False,
        cache=made.settings.cache, methods_dir=folder / "methods", jobs=1, method=request.method,
        data_options=request.data_options, constraints=request.constraints,
    )  # fmt: skip
    assert tuple(frame) == COLUMNS and frame["gene"].tolist() == made.found.panel
    done = bench.call_here(
        "design", "--data", str(request.data), "--label", "cell_type", "--k", "6", "--folds", "2",
        "--no-maps", "--out", str(made.settings.results), "--cache", str(made.settings.cache),
        "--methods-dir", str(folder / "methods"), "--jobs", "1", "--group", "donor",
        *(word for name in request.method for word in ("--method", name)),
        "--include", str(folder / "must.txt"), "--exclude", "g0", "--exclude", "g1?",
        "--costs", str(folder / "costs.csv"), "--budget", "12", "--output", "json",
    )  # fmt: skip
    assert done.code == 3, "one of the selectors broke"
    assert done.json["panel"] == made.found.panel and done.json["winner"] == "good"
    assert len(list(Store(made.settings.results))) == records, "nothing was done twice"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--label", "cell_type", "--label", "state"], "one column of classes, and there are 2"),
        (["--label", "cell_type", "--method", "random"], "scored beside the others"),
        (["--label", "cell_type", "--out", "panel.csv"], "give a folder"),
        (["--label", "cell_type", "--suite", "demo"], "No such option"),
        ([], "name the column of cell types"),
    ],
)
def test_what_cannot_be_designed_is_said(bench: Bench, args: list[str], words: str) -> None:
    found = bench.call_here("design", "--data", str(bench.data), *args)
    assert found.code == 2
    assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", found.err).split())


def test_parts_are_no_more_than_groups() -> None:
    groups = {"groups": {"d0": 5, "d1": 4, "d2": 7}}
    assert n_parts(5, groups, "donor") == 3 and n_parts(2, groups, "donor") == 2
    assert n_parts(5, groups, None) == 5, "a column of groups that no split is by"
    with pytest.raises(ConfigError, match="there is one group only"):
        n_parts(5, {"groups": {"only": 9}}, "donor")
    with pytest.raises(InputError, match="at least two parts"):
        perform(Request(), Settings(Path("none"), Path("none")), 1)


def test_tables_carry_their_csv_while_it_is_small() -> None:
    def decoded(grid: Grid) -> str:
        import base64

        return base64.b64decode(csv_url(grid).partition("base64,")[2]).decode()

    def table(n: int, **more: Any) -> Grid:
        return Grid("t", "T", (("a", "x"), ("", "y")), ((Cell("1"), Cell("=2")),), **more)

    assert decoded(table(1, records=({"p": 1.5, "q": "r"},))) == "p,q\n1.500000,r\n"
    many = tuple({"p": "x" * 50, "q": i} for i in range(LARGEST_CSV // 50))
    assert decoded(table(1, records=many)) == "a x,y\n1,'=2\n", "what the cells show instead"
    assert csv_url(Grid("t", "T", (("a",),), ())) == ""
