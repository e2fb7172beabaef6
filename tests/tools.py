"""Helpers of the tests: a small data file, small methods, a place to run commands in."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from panelbench.method import Method
    from panelbench.records.store import Record


def write_h5ad(path: Path, *, cells: int = 120, genes: int = 40, seed: int = 0) -> Path:
    """Write counts with three types, each with four marker genes, as an .h5ad."""
    import anndata
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    types = np.arange(cells) % 3
    rates = rng.gamma(2.0, 0.4, size=genes) * np.ones((cells, 1))
    for code in range(3):
        rates[np.ix_(types == code, range(4 * code, 4 * code + 4))] *= 6
    counts = rng.poisson(rates).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type {c}" for c in types]),
            "state": pd.Categorical(rng.choice(["rest", "cycle"], size=cells)),
            "donor": [f"d{i % 4}" for i in range(cells)],
        },
        index=[f"cell{i}" for i in range(cells)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(genes)])
    anndata.AnnData(X=sparse.csr_matrix(counts), obs=obs, var=var).write_h5ad(path)
    return path


def real_data(name: str) -> Path:
    """A file or folder in ``$PANELBENCH_TEST_DATA``; without it, the test is skipped."""
    import pytest

    folder = os.environ.get("PANELBENCH_TEST_DATA")
    if not folder:
        pytest.skip("needs real data: PANELBENCH_TEST_DATA names a folder with data/, reference/")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"needs {name}, which PANELBENCH_TEST_DATA does not have")
    return path


def need_libraries(method: Method) -> None:
    """Skip a test of a method whose libraries (extras) or environment are not there."""
    import pytest

    from panelbench.contract.tasks import python_for
    from panelbench.errors import Fault
    from panelbench.records.keys import library_versions

    missing = [name for name, found in library_versions(method.libraries).items() if found is None]
    if missing:
        pytest.skip(f"{method.id} needs {', '.join(missing)}")
    try:
        python_for(method)
    except Fault as error:
        pytest.skip(f"{method.id} {error}")


def method_source(id: str, body: str, declared: str = "nested=True") -> str:
    """Source of a module with one method; `body` is the inside of its function."""
    head = f'''
        """A method of the tests."""
        import numpy as np
        from panelbench.method import Selection, Task, method

        @method("{id}", {declared})
        def select(task, params):
            """Do as the test wants."""
        '''
    return textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


IN_ORDER = "return Selection(ranking=task.genes.tolist())"


PREDICTOR = """
class Constant:
    def __init__(self, genes, n): self.genes, self.n = genes, n
    def predict_proba(self, task, X): return np.full((len(X), self.n), 1 / self.n)
    def save(self): return {"n": np.array([self.n]), "fill": np.zeros(5000)}, {"g": self.genes}
    @classmethod
    def load(cls, arrays, facts): return cls(facts["g"], int(arrays["n"][0]))
"""


@dataclass
class Result:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class Bench:
    """Runs the command line in a folder with results, a cache and methods of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.results = folder / "results"
        self.methods = folder / "methods"
        self.methods.mkdir(exist_ok=True)

    def add_method(self, id: str, body: str = IN_ORDER, declared: str = "nested=True") -> Path:
        """Write a method module."""
        path = self.methods / f"{id.replace('-', '_')}.py"
        path.write_text(method_source(id, body, declared))
        return path

    def add_predictor(self, id: str) -> Path:
        """Write a method whose predictor says the same of each cell."""
        body = (
            "genes = task.genes.tolist()\nreturn Selection(genes, predictor=Constant(genes[:4], 3))"
        )
        path = self.add_method(id, body, "nested=True, supervised=True, predictor=Constant")
        path.write_text(path.read_text().replace("@method(", PREDICTOR + "\n@method(", 1))
        return path

    def command(self, *args: str) -> list[str]:
        """The command line of a call."""
        return [sys.executable, "-m", "panelbench.cli", *args]

    def environment(self) -> dict[str, str]:
        """Environment of a call."""
        return {**os.environ, "PANELBENCH_CACHE": str(self.folder / "cache")}

    def call(self, *args: str, timeout: float = 240) -> Result:
        """Run the command line."""
        found = subprocess.run(
            self.command(*args),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(found.returncode, found.stdout, found.stderr)

    def call_here(self, *args: str) -> Result:
        """Run the command line in this process: fast, for calls that end before any run."""
        from typer.testing import CliRunner

        from panelbench.cli import app

        with contextlib.chdir(self.folder):
            found = CliRunner().invoke(app, args, env=self.environment())
        return Result(found.exit_code, found.stdout, found.stderr)

    def own(self, *args: str) -> list[str]:
        """Options of a run on the small data file with the folder's methods."""
        return ["--data", str(self.data), "--label", "cell_type", "--methods-dir", "methods", *args]

    def records(self) -> list[Path]:
        """All record files."""
        return sorted(self.results.glob("runs/*/*/*/*.json"))

    def read(self) -> list[Record]:
        """All records."""
        from panelbench.records.store import Store

        return list(Store(self.results))
