"""A tiny distribution, and pip told to know no other: what tests of environments install."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from panelbench.method import Environment

TINY = Environment(("tiny-dist==1.5",))
_INFO = "tiny_dist-1.5.dist-info"
_FILES = {
    "tiny.py": "def backwards(n):\n    return list(range(n))[::-1]\n",
    f"{_INFO}/METADATA": "Metadata-Version: 2.1\nName: tiny-dist\nVersion: 1.5\n"
    "Requires-Dist: not-there-at-all\n",
    f"{_INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
    "Tag: py3-none-any\n",
}


def wheelhouse(folder: Path) -> dict[str, str]:
    """Write the wheel into a folder; variables with which pip finds it and nothing else."""
    with zipfile.ZipFile(folder / "tiny_dist-1.5-py3-none-any.whl", "w") as wheel:
        for name, text in _FILES.items():
            wheel.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*_FILES, f"{_INFO}/RECORD"])
        wheel.writestr(f"{_INFO}/RECORD", record)
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
    }
