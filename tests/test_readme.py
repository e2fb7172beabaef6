"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import Bench

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.S)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, block in BLOCKS
    if language == "sh" and "#SBATCH" not in block
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("panelbench ")
]


def _is_whole_demo(command: list[str]) -> bool:
    return command[1:] == ["--suite", "demo"] and command[0] != "preprocess"


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 11
    assert {"preprocess", "select", "evaluate", "report", "run", "list"} <= {c[0] for c in COMMANDS}


def test_every_command_is_named() -> None:
    from panelbench.cli import app

    names = {str(command.name) for command in app.registered_commands}
    assert len(names) >= 10
    assert {name for name in names if not re.search(rf"panelbench {name}\b(?!-)", TEXT)} == set()


def test_the_folders_of_the_suite_are_listed() -> None:
    listing = next(block for _, block in BLOCKS if "results/perf/" in block)
    folders = {path.parent.name for path in (ROOT / "panelbench").glob("*/__init__.py")}
    assert {name for name in folders - {"nn"} if f"{name}/" not in listing} == set()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?!results/)\w+/[\w/]+\.\w+)`", TEXT))))
def test_files_that_are_named_exist(name: str) -> None:
    assert (ROOT / "panelbench" / name).exists() or (ROOT / name).exists()


def test_the_commands_run(bench: Bench) -> None:
    """All commands in their order, in one folder; the whole demo is left to continuous tests."""
    (bench.folder / "my.h5ad").write_bytes(_named_like_a_real_one(bench))
    (bench.folder / "must_have.txt").write_text("g50\n")
    prices = "".join(f"g{i},{1 + i % 2}\n" for i in range(100))
    (bench.folder / "costs.csv").write_text(f"gene,cost\n{prices}")
    (bench.folder / "my_methods").mkdir()
    (bench.folder / "my_methods" / "mean_spread.py").write_text(_example())
    (bench.folder / "my_evaluators").mkdir()
    (bench.folder / "my_evaluators" / "ridge_others.py").write_text(_example("@evaluator"))
    for command in COMMANDS:
        if _is_whole_demo(command):
            command = [*command, "--dry-run"] if command[0] != "report" else ["list", "suites"]
        if command[0] == "design":
            # Its options are read; tests/test_design.py does one.
            command = [*command, "--help"]
        if command[:2] == ["env", "make"]:
            # A gigabyte of libraries; tests/test_environments.py makes a small one.
            command = ["env", "list"]
        found = bench.call(*command)
        assert found.code == 0, f"{' '.join(command)}\n{found.err}"
    panel = (bench.folder / "panel.csv").read_text().splitlines()
    assert panel[0] == "rank,gene,score" and len(panel) == 65
    order = (bench.folder / "order.csv").read_text().splitlines()
    assert order[0] == "rank,gene,score,note" and order[1].startswith("1,g50,")


def _named_like_a_real_one(bench: Bench) -> bytes:
    from tests.tools import write_h5ad

    return write_h5ad(bench.folder / "large.h5ad", genes=100).read_bytes()


def _example(decorator: str = "@method") -> str:
    (source,) = [block for language, block in BLOCKS if language == "python" and decorator in block]
    return source


def test_the_example_method_is_short_and_keeps_the_contract(tmp_path: Path) -> None:
    from panelbench.contract.methods import RULES, MethodTrial
    from panelbench.registry import discover

    source = _example()
    assert len([line for line in source.splitlines() if line.strip()]) < 25
    (tmp_path / "mean_spread.py").write_text(source)
    trial = MethodTrial(discover([tmp_path]).get("mean-spread"))
    assert [item for item in RULES.examine(trial) if item.verdict == "failed"] == []


def test_the_example_evaluator_keeps_the_contract(tmp_path: Path) -> None:
    from panelbench.contract.evaluators import RULES, EvaluatorTrial
    from panelbench.registry import discover_evaluators

    (tmp_path / "ridge_others.py").write_text(_example("@evaluator"))
    trial = EvaluatorTrial(discover_evaluators([tmp_path]).get("ridge-others"))
    assert [item for item in RULES.examine(trial) if item.verdict == "failed"] == []


def test_the_python_example_runs(bench: Bench) -> None:
    (source,) = [b for language, b in BLOCKS if language == "python" and "panelbench.run" in b]
    found = subprocess.run(
        [sys.executable, "-c", source],
        cwd=bench.folder,
        env=bench.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "mrmr-f" in found.stdout


def test_examples_are_those_of_the_readme() -> None:
    script = (ROOT / "examples" / "slurm" / "array.sh").read_text()
    assert script.strip() in TEXT


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^make (\w+)", TEXT, flags=re.M):
        assert re.search(rf"^{name}:", makefile, flags=re.M)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_other_pages_name_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`((?:\w+/)+[\w.]*)`", text):
        assert (ROOT / path).exists() or (ROOT / "panelbench" / path).exists() or path in (
            "evaluators/", "readers/", "shipped/", "results/", "results/index"), path  # fmt: skip


def test_a_citation_is_of_this_version() -> None:
    import yaml

    import panelbench

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == panelbench.__version__
    assert f"## {panelbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{panelbench.__version__}"' in project
