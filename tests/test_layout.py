"""The architecture that the folder listing promises."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from panelbench.contract import evaluators, methods
from panelbench.contract.imports import parts_imported
from panelbench.registry import discover

ROOT = Path(__file__).parent.parent

FLOORS = [
    {"errors", "units", "schema", "text", "task"},
    {"method", "evaluator"},
    {"ranking", "nn", "records"},
    {"environments"},
    {"scoring"},
    {"params", "registry"},
    {"data"},
    {"stages"},
    {"suite", "contract"},
    {"running", "report"},
    {"cluster", "design"},
    {"keywords"},
    {"api", "submission"},
    {"commands"},
    {"cli"},
]
"""Folders and single modules of panelbench/ from the ground up: one may import what lies below."""


def _modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "panelbench").rglob("*.py")):
        part = path.relative_to(ROOT / "panelbench").parts[0].removesuffix(".py")
        if part != "__init__":
            found.append((part, path))
    return found


def test_every_module_stands_on_a_floor() -> None:
    assert {part for part, _ in _modules()} == set().union(*FLOORS)


@pytest.mark.parametrize(
    ("part", "path"), _modules(), ids=[str(p.relative_to(ROOT)) for _, p in _modules()]
)
def test_imports_go_down(part: str, path: Path) -> None:
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    for name in parts_imported(path) - {"__version__", part}:
        assert height[name] <= height[part], f"{path.name} imports {name}"


def test_the_suite_imports_no_method_by_name() -> None:
    for _, path in _modules():
        assert "methods" not in parts_imported(path), path


def test_methods_import_the_contract_only() -> None:
    for path in (ROOT / "methods").rglob("*.py"):
        contract = evaluators if "\n@evaluator(" in path.read_text() else methods
        assert parts_imported(path) <= {*contract.OFFERED, "methods"}, path


def test_no_module_is_called_like_one_of_the_standard_library() -> None:
    for folder in ("panelbench", "methods"):
        names = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
        assert not names & sys.stdlib_module_names, folder


def test_modules_stay_small() -> None:
    for folder in ("panelbench", "methods"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def test_functions_stay_short() -> None:
    """Signature, docstring and tables aside: options.py declares, it does nothing."""
    long = []
    for folder in ("panelbench", "methods"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "options.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                    if lines > 60:
                        long.append((path.name, node.name, lines))
    assert not long


def test_a_wheel_has_all_methods_and_data_files(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-c", "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])",
         str(tmp_path)],
        cwd=_copy(tmp_path / "source"),
        capture_output=True,
        text=True,
    )  # fmt: skip
    if "No module named 'setuptools'" in built.stderr:
        pytest.skip("needs setuptools")
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for data in (
        "datasets.yaml",
        "suite/shipped/demo.yaml",
        "py.typed",
        "reference/yoto_tables.csv",
    ):
        assert f"panelbench/{data}" in names
    assert archive_methods(tmp_path / "site") == sorted(discover().methods)


def archive_methods(site: Path) -> list[str]:
    """Ids that discovery finds in an unpacked wheel."""
    code = (
        "import panelbench; from panelbench.registry import discover\n"
        "print(panelbench.__file__); print(*discover().methods)"
    )
    # -I -S: neither the working folder nor the installed (editable) package is seen.
    path = [str(site), *(p for p in sys.path if p.endswith("site-packages"))]
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=site,
    )
    place, ids = found.stdout.splitlines()
    assert place.startswith(str(site))
    return sorted(ids.split())


def _copy(target: Path) -> Path:
    """Copy of what a build needs, so that it leaves nothing in the working tree."""
    import shutil

    target.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "datasets.yaml"):
        shutil.copy(ROOT / name, target / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("panelbench", "methods", "results/reference"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignored)
    return target
