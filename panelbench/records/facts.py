"""Facts of a data set that preprocessing found out: part of the results, read by the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_facts(path: Path) -> dict[str, Any]:
    """Facts of a data set that preprocessing left, {} when there are none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
