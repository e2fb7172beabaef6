"""A report is made again only where something changed, and its folder holds what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from panelbench.report import build, drawing, figures
from panelbench.report.drawing import Drawing, draw_all
from panelbench.report.manifest import NAME, Manifest, report_folder
from panelbench.report.results import Results
from tests.reports import fake_results, no_score
from tests.tools import Bench, write_h5ad

SMALL: dict[str, Any] = {
    "datasets": [{"dataset": "visp", "tasks": ["a"]}],
    "ks": [16, 32],
    "seeds": [0, 1],
    "figures": [{"name": "f1"}, {"name": "confused", "kind": "confusion"}],
    "tables": [{"name": "one"}, {"name": "two", "metrics": ["accuracy"]}],
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the figures that are drawn."""
    count: list[int] = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure: count.append(1) or save(figure))
    return count


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_nothing_is_drawn_twice(tmp_path: Path, drawn: list[int]) -> None:
    first = build(fake_results(SMALL), tmp_path)
    assert len(drawn) == 5, (
        "two of the suite, cost, overlap, one of training; no ranks of two columns"
    )
    before = bytes_of(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in first} == before.keys() - {NAME}
    assert build(fake_results(SMALL), tmp_path) == first
    assert len(drawn) == 5 and bytes_of(tmp_path) == before


def test_only_what_changed_is_drawn_again(tmp_path: Path, drawn: list[int]) -> None:
    build(fake_results(SMALL), tmp_path)
    drawn.clear()

    def confused(line: dict[str, Any]) -> dict[str, Any]:
        return line | {"confusion": [[9, 1, 0], [1, 9, 0], [0, 3, 2]]}

    build(fake_results(SMALL, confused), tmp_path)
    assert len(drawn) == 1
    fresh = tmp_path / "fresh"
    build(fake_results(SMALL, confused), fresh)
    made = bytes_of(fresh)
    assert made == {name: (tmp_path / name).read_bytes() for name in made}


@pytest.mark.parametrize("name", ["figures/f1.svg", "tables/one.md", "cost.png", "report.html"])
def test_a_file_that_is_missing_or_changed_is_made_again(tmp_path: Path, name: str) -> None:
    build(fake_results(SMALL), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_text("edited")
    build(fake_results(SMALL), tmp_path)
    assert (tmp_path / name).read_bytes() == whole
    (tmp_path / name).unlink()
    build(fake_results(SMALL), tmp_path)
    assert (tmp_path / name).read_bytes() == whole


def test_other_code_or_libraries_draw_everything_again(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from panelbench.report import manifest

    build(fake_results(SMALL), tmp_path)
    drawn.clear()
    monkeypatch.setattr(manifest, "maker", lambda: "matplotlib of another year")
    build(fake_results(SMALL), tmp_path)
    assert len(drawn) == 5


def _plot(content: list[int]) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot(content)
    return figure


def test_several_processes_draw_the_same(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    due = [Drawing(f"figures/{number}", "", [number, 1], _plot) for number in range(3)]
    alone = draw_all(due, tmp_path, Manifest())
    monkeypatch.setattr(drawing, "MANY", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert draw_all(due, tmp_path, Manifest()) == alone
    assert len(drawn) == 3 and len(set(alone.values())) == 6


def test_the_folder_holds_what_the_page_shows(tmp_path: Path) -> None:
    build(fake_results(SMALL), tmp_path)
    (tmp_path / "tables" / "notes.md").write_text("mine")
    (tmp_path / "tables" / "two.csv").write_text("edited by hand")
    less = SMALL | {"tables": [{"name": "one"}], "figures": [{"name": "f1"}]}
    files = build(fake_results(less), tmp_path)
    left = bytes_of(tmp_path).keys() - {NAME, "tables/notes.md", "tables/two.csv"}
    assert left == {path.relative_to(tmp_path).as_posix() for path in files}
    assert not (tmp_path / "tables" / "two.md").exists()
    build(fake_results(less, no_score("failed", "")), tmp_path)
    assert not (tmp_path / "figures").exists()


def test_a_manifest_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    folder, victim = tmp_path / "report", tmp_path / "victim"
    build(fake_results(SMALL), folder)
    victim.write_text("precious")
    content = json.loads((folder / NAME).read_text())
    known = Manifest.read(folder)
    sha = __import__("hashlib").sha256(b"precious").hexdigest()
    for name in ("../victim", str(victim)):
        content["files"][name] = sha
    (folder / NAME).write_text(json.dumps(content | {"origin": "x"}))
    assert Manifest.read(folder).files == known.files
    build(fake_results(SMALL), folder)
    assert victim.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "files": 3}', "\xff"])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    assert Manifest.read(tmp_path) == Manifest()
    build(fake_results(SMALL), tmp_path)
    assert Manifest.read(tmp_path).is_whole(tmp_path)


def test_two_files_of_one_name_do_not_share_a_report(tmp_path: Path) -> None:
    def of(source: str) -> Results:
        return replace(fake_results(SMALL), source=source)

    first, second = of("/data/a/my.h5ad"), of("/data/b/my.h5ad")
    folder = report_folder(tmp_path, first)
    assert folder == tmp_path / "trial"
    build(first, folder)
    assert report_folder(tmp_path, first) == folder
    other = report_folder(tmp_path, second)
    assert other.name.startswith("trial-")
    build(second, other)
    assert report_folder(tmp_path, second) == other


def test_own_files_of_one_name_have_reports_of_their_own(bench: Bench) -> None:
    bench.add_method("plain")
    pages = set()
    for name, genes in (("a", 30), ("b", 40), ("a", 30)):
        (bench.folder / name).mkdir(exist_ok=True)
        data = write_h5ad(bench.folder / name / "my.h5ad", genes=genes)
        args = ["--data", str(data), "--label", "cell_type", "--methods-dir", "methods"]
        found = bench.call("run", *args, "--method", "plain", "--k", "4", "--output", "json")
        assert found.code == 0, found.err
        pages |= {path for path in found.json["report"] if path.endswith(".html")}
    assert len(pages) == 2


def test_nothing_heavy_is_imported_when_nothing_is_drawn(tmp_path: Path) -> None:
    build(fake_results(SMALL), tmp_path)
    heavy = ("jinja2", "matplotlib", "pandas", "scipy", "scikit_posthocs", "sklearn")
    code = (
        "import importlib.util, pathlib, sys\n"
        f"for name in {heavy}: sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from tests.reports import fake_results\n"
        "from panelbench.report import build, terminal_table\n"
        f"results = fake_results({SMALL!r})\n"
        f"assert build(results, pathlib.Path({str(tmp_path)!r}))\n"
        "terminal_table(results)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
