"""Auxiliary gene learning finds what was planted: the cut, and a better predictor."""

from __future__ import annotations

from typing import Any

import pytest
from panelbench.methods import agl

from tests.agl_planted import N_USEFUL, generators, planted

SMALL: dict[str, Any] = {
    "hidden": (64, 8), "tau": 0.02, "warmup": 30, "epochs": 90, "patience": 90,
}  # fmt: skip


def _scores(kind: Any, seed: int, **runs: dict[str, Any]) -> dict[str, tuple[float, agl.Fitted]]:
    data = planted(kind, seed)
    found = {}
    for name, params in runs.items():
        fitted = agl.fit(data.problem, agl.Params(**SMALL | params), generators(seed))
        found[name] = data.test_correlation(fitted), fitted
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_the_learned_cut_beats_no_genes_and_all_genes(seed: int) -> None:
    found = _scores(
        "nuisance",
        seed,
        none={"strategy": "none"},
        all={"strategy": "all"},
        learned={},
        from_few={"start": N_USEFUL / 400 / 3},
    )
    best_fixed = max(found["none"][0], found["all"][0])
    assert found["learned"][0] > best_fixed + 0.02
    assert found["from_few"][0] > best_fixed + 0.02
    assert 40 <= found["learned"][1].k <= 130
    assert 40 <= found["learned"][1].last_k <= 130


@pytest.mark.slow
def test_among_pure_noise_the_learned_cut_costs_nothing() -> None:
    """Genes of pure noise pull nowhere, so the cut itself may stand anywhere beyond the useful."""
    found = _scores("noise", 0, none={"strategy": "none"}, all={"strategy": "all"}, learned={})
    assert found["learned"][0] > found["none"][0] + 0.02
    assert found["learned"][0] > found["all"][0] - 0.005
