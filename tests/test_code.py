"""Digests of code: what a stage imports counts, what cannot change a result does not."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from panelbench.records import code
from panelbench.records.code import NOT_COUNTED, code_digest, import_closure, normalised_source
from panelbench.registry import Registry, discover

ROOT = Path(__file__).parent.parent
STAGES = [f"panelbench.stages.{name}" for name in ("preprocess", "fold", "selection", "evaluation")]


def test_comments_docstrings_and_layout_do_not_count() -> None:
    plain = "def f(x):\n    return x + 1\n"
    dressed = '"""Doc."""\n# why\ndef f(x):\n    """Do."""\n\n    return (x + 1)  # so\n'
    assert normalised_source(plain) == normalised_source(dressed)
    assert normalised_source(plain) != normalised_source(plain.replace("1", "2"))


def test_a_string_that_is_a_value_counts() -> None:
    assert normalised_source("x = 'a'") != normalised_source("x = 'b'")


def test_what_only_type_checkers_read_does_not_count() -> None:
    typed = "if TYPE_CHECKING:\n    import a\nelse:\n    b = 1\n"
    assert normalised_source(typed) == normalised_source(typed.replace("import a", "import c"))
    assert normalised_source(typed) != normalised_source(typed.replace("b = 1", "b = 2"))


# -- the suite itself ----------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the suite whose files are read in the place of the real ones."""
    shutil.copytree(ROOT / "panelbench", tmp_path / "panelbench", symlinks=True)
    real = code.module_file

    def copied(name: str) -> Path | None:
        path = real(name)
        inside = path is not None and path.is_relative_to(ROOT / "panelbench")
        return tmp_path / path.relative_to(ROOT) if path is not None and inside else path

    monkeypatch.setattr(code, "module_file", copied)
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_is_in_the_key(copy: Path, stage: str) -> None:
    before = code_digest(stage)
    closure = import_closure(stage)
    assert stage in closure and "panelbench.method" in closure
    for name, path in closure.items():
        text = path.read_text()
        path.write_text(text + "\nHALF = 0.5\n")
        assert code_digest(stage) != before, f"a change in {name} is in no key"
        path.write_text(text)
    assert code_digest(stage) == before


def test_modules_that_cannot_change_a_result_are_in_no_key(copy: Path) -> None:
    before = [code_digest(stage) for stage in STAGES]
    for name, reason in NOT_COUNTED.items():
        path = code.module_file(name)
        assert path is not None and reason, name
        if path.is_relative_to(copy):
            path.write_text(path.read_text() + "\nHALF = 0.5\n")
    assert [code_digest(stage) for stage in STAGES] == before


def test_the_wiring_between_stages_is_counted() -> None:
    closure = import_closure("panelbench.stages.selection")
    for name in ("stages.toolbox", "stages.task", "stages.fold", "data.splits", "data.steps"):
        assert f"panelbench.{name}" in closure


# -- moves, renames, and imports that change their meaning ---------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small project of two helpers and a module that uses one of them."""
    _write(tmp_path, "work", "from small_project.deep.left import f\n\n\nANSWER = f()\n")
    _write(tmp_path, "deep/left", "def f():\n    return 1\n")
    _write(tmp_path, "deep/right", "def f():\n    return 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("small_project")]:
        del sys.modules[name]


def _write(root: Path, module: str, text: str) -> None:
    path = root / "small_project" / f"{module}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in {path.parent, root / "small_project"}:
        (folder / "__init__.py").touch()
    path.write_text(text)
    importlib.invalidate_caches()


def test_a_move_alone_makes_nothing_stale(project: Path) -> None:
    before = code_digest("small_project.work")
    (project / "small_project/deep/left.py").unlink()
    _write(project, "far/away/sinister", "def f():\n    return 1\n")
    _write(project, "work", "from small_project.far.away.sinister import f\n\n\nANSWER = f()\n")
    assert code_digest("small_project.work") == before


def test_an_import_from_elsewhere_is_other_code(project: Path) -> None:
    """Both helpers are in the closure before and after: only the import line differs."""
    both = "import small_project.deep.left\nimport small_project.deep.right\n"
    digests = set()
    for helper in ("left", "right"):
        _write(project, "work", f"{both}from small_project.deep.{helper} import f\n")
        digests.add(code_digest("small_project.work"))
    assert len(digests) == 2


def test_relative_imports_and_whole_modules_are_followed(project: Path) -> None:
    _write(project, "work", "from .deep import left as helper\n")
    assert "small_project.deep.left" in import_closure("small_project.work")
    before = code_digest("small_project.work")
    _write(project, "deep/left", "def f():\n    return 3\n")
    assert code_digest("small_project.work") != before


# -- methods -------------------------------------------------------------------------------


def _package(folder: Path, helper: str) -> Registry:
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "deep" / "__init__.py").write_text("from .method import select\n")
    (folder / "deep" / "method.py").write_text(
        "from panelbench.method import Selection, method\n"
        "from .inner import order\n"
        "@method('deep')\n"
        "def select(task, params):\n"
        "    return Selection(ranking=order(task))\n"
    )
    (folder / "deep" / "inner.py").write_text(helper)
    return discover([folder])


def test_every_file_of_a_method_package_counts(tmp_path: Path) -> None:
    registry = _package(tmp_path, "def order(task):\n    return list(task.genes)\n")
    before = registry.source_digest("deep")
    files = {path.name for path in import_closure(registry.get("deep").module).values()}
    assert {"__init__.py", "method.py", "inner.py"} <= files
    changed = _package(tmp_path, "def order(task):\n    return task.genes[::-1]\n")
    assert changed.source_digest("deep") != before


def test_a_file_of_a_method_package_counts_also_when_nothing_imports_it(tmp_path: Path) -> None:
    registry = _package(tmp_path, "def order(task):\n    return list(task.genes)\n")
    before = code_digest(registry.get("deep").module)
    (tmp_path / "deep" / "loaded_by_name.py").write_text("X = 1\n")
    importlib.invalidate_caches()
    assert code_digest(registry.get("deep").module) != before


def test_a_neighbour_in_a_folder_of_methods_does_not_count(tmp_path: Path) -> None:
    """Only packages belong together; single files side by side are methods of their own."""
    text = (
        "from panelbench.method import Selection, method\n"
        "@method('alone')\n"
        "def select(task, params):\n"
        "    return Selection(ranking=list(task.genes))\n"
    )
    (tmp_path / "alone.py").write_text(text)
    before = discover([tmp_path]).source_digest("alone")
    (tmp_path / "beside.py").write_text("X = 1\n")
    assert discover([tmp_path]).source_digest("alone") == before


def test_imported_helpers_of_the_suite_count() -> None:
    closure = import_closure(discover().get("rf-importance").module)
    assert {"panelbench.ranking", "panelbench.method"} <= set(closure)
    assert "panelbench.errors" not in closure
