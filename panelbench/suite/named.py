"""What is asked for by name: a YAML file that ships with panelbench, or one of the user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TypeVar

import yaml

from panelbench.errors import UnknownName
from panelbench.schema import Model, parse, read_yaml

M = TypeVar("M", bound=Model)


def names(folder: str) -> list[str]:
    """Names of the YAML files in a folder of the package, as ``panelbench.suite.shipped``."""
    files = resources.files(folder).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load(model: type[M], kind: str, name: str, folder: str) -> M:
    """Load what a name, or the path of a YAML file, stands for.

    Parameters
    ----------
    model
        What it is.
    kind
        How people call it, and the option that names it: ``suite``.
    name
        A name among those in the folder, or a path.
    folder
        Folder of the package with what ships.

    Raises
    ------
    UnknownName
        With the near matches.
    ConfigError
        When the file does not validate.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return parse(model, read_yaml(path), name)
    if name not in names(folder):
        raise UnknownName(kind, name, names(folder), f"--{kind} (or give a YAML file)")
    text = (resources.files(folder) / f"{name}.yaml").read_text(encoding="utf-8")
    return parse(model, yaml.safe_load(text), f"{kind} {name}")
