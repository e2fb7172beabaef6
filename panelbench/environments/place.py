"""Where environments lie, and what is known of those that are there."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panelbench.errors import Fault
from panelbench.method import Environment, Method
from panelbench.records.facts import read_facts
from panelbench.records.keys import digest

VARIABLE = "PANELBENCH_ENVIRONMENTS"
FACTS = "environment.json"
"""File of an environment that says what it is and what it has."""


def environments_folder(cache: Path) -> Path:
    """Folder of all environments: ``$PANELBENCH_ENVIRONMENTS``, or in the cache folder."""
    return Path(os.environ.get(VARIABLE) or cache / "environments")


@dataclass(frozen=True)
class Place:
    """Where an environment lies, or would.

    Parameters
    ----------
    root
        Folder of all environments.
    environment
        What it is to have.
    """

    root: Path
    environment: Environment

    @property
    def folder(self) -> Path:
        """Its folder: another for other requirements, another Python or another kind of machine."""
        known = [self.environment.identity, self.version, sysconfig.get_platform()]
        return self.root / digest(known)[:16]

    @property
    def version(self) -> str:
        """Version of its Python, as ``3.11``."""
        return self.environment.python or "{}.{}".format(*sys.version_info)

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def facts(self) -> dict[str, Any]:
        """Requirements, Python, distributions and bytes; nothing while it is not there."""
        return read_facts(self.folder / FACTS)


def folders(root: Path) -> Iterator[Path]:
    """Environments that are there, and what is left of some that were not finished."""
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir())


def python_of(method: Method, cache: Path) -> Path | None:
    """Python of a method's environment, None when it declares none.

    Raises
    ------
    Fault
        When the environment has not been made.
    """
    if method.environment is None:
        return None
    place = Place(environments_folder(cache), method.environment)
    if not place.facts():
        raise Fault(
            f"needs its environment, which is not there: `panelbench env make {method.id}`, where "
            "there is a network, makes it"
        )
    return place.python
