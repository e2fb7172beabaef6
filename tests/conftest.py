"""What several test modules use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.tools import Bench, real_data, write_h5ad

if TYPE_CHECKING:
    from panelbench.suite.runs import Plan
    from tests.lab import Lab

# A busy machine is no failure: nothing is timed in tests.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _no_outside_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the caches of the person who runs it."""
    before = dict(os.environ)
    for name in ("PANELBENCH_MIRROR", "PANELBENCH_DATASETS"):
        os.environ.pop(name, None)
    os.environ["PANELBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data; tests that need it skip without it."""
    return real_data("data")


@pytest.fixture(scope="session")
def own_h5ad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small .h5ad with counts, two tasks and a donor column."""
    return write_h5ad(tmp_path_factory.mktemp("data") / "own.h5ad")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A prepared data set, and what the stages need beside a question."""
    from tests.lab import make_lab

    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def planned(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """Plans a small suite, with changes."""
    from tests.lab import planner

    return planner(tmp_path_factory.mktemp("planned"), lab)


@pytest.fixture
def bench(tmp_path: Path, own_h5ad: Path) -> Bench:
    """A folder of its own to run the command line in."""
    return Bench(tmp_path, own_h5ad)
