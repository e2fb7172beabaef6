"""What several test modules use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import Bench, real_data, write_h5ad


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


@pytest.fixture
def bench(tmp_path: Path, own_h5ad: Path) -> Bench:
    """A folder of its own to run the command line in."""
    return Bench(tmp_path, own_h5ad)
