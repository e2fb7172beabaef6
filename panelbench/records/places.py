"""Where things lie unless it is said otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """``$PANELBENCH_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("PANELBENCH_CACHE") or platformdirs.user_cache_dir("panelbench"))
