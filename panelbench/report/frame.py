"""The scores of a suite as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panelbench.report.results import Results

if TYPE_CHECKING:
    import pandas as pd


def scores_frame(results: Results) -> pd.DataFrame:
    """Scores with one column per metric."""
    import pandas as pd

    lines = results.scores
    scores = pd.DataFrame(
        {
            "dataset": [line.dataset for line in lines],
            "method": [line.row.method for line in lines],
            "variant": [line.row.variant for line in lines],
            "task": [line.task for line in lines],
            # Missing where the panel is not cut.
            "k": pd.array([line.k for line in lines], dtype="Int64"),
            "seed": [line.seed for line in lines],
            "evaluator": [line.evaluator.variant for line in lines],
            "noise": [line.noise.fraction for line in lines],
            "noise_in": [line.noise.seen_by for line in lines],
            "status": [line.status for line in lines],
            "reason": [line.reason for line in lines],
        }
    )
    costs = ["seconds", "cpu_seconds", "peak_memory_mb", "gpu_memory_mb"]
    cost = pd.DataFrame({name: [getattr(line, name) for line in lines] for name in costs})
    return pd.concat([scores, pd.DataFrame([line.metrics for line in lines]), cost], axis=1)
