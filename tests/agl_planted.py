"""Planted data for auxiliary gene learning: the first auxiliary genes help, the others do not."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from panelbench.methods import agl

N_PRIMARY, N_AUXILIARY, N_USEFUL = 20, 400, 100


@dataclass(frozen=True)
class Planted:
    """A problem of training and validation cells, and test cells."""

    problem: agl.Problem
    inputs: np.ndarray
    truth: np.ndarray

    def test_correlation(self, fitted: agl.Fitted) -> float:
        """Mean correlation of the primary genes over the test cells."""
        return agl.mean_correlation(fitted.predictor.predict(self.inputs), self.truth)


def generators(seed: int) -> Callable[[str], np.random.Generator]:
    """Generators by purpose."""
    return lambda purpose: np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def planted(
    kind: Literal["nuisance", "noise"] = "nuisance",
    seed: int = 0,
    n_train: int = 1200,
    n_validation: int = 400,
    n_test: int = 2000,
) -> Planted:
    """Draw the data.

    Primary genes and the first 100 auxiliary ones follow 4 latent variables, functions of the 32
    inputs; primary genes are three times as noisy. The other 300 auxiliary genes follow 40 other
    latent variables, or are pure noise.
    """
    rng = np.random.default_rng([seed, 7])
    n = n_train + n_validation + n_test
    inputs = rng.normal(size=(n, 32))
    latent = np.tanh(inputs @ (rng.normal(size=(32, 44)) * 2 / np.sqrt(32)))
    useful, nuisance = latent[:, :4], latent[:, 4:]
    primary = useful @ rng.normal(size=(4, N_PRIMARY)) + 3 * rng.normal(size=(n, N_PRIMARY))
    helping = useful @ rng.normal(size=(4, N_USEFUL)) + rng.normal(size=(n, N_USEFUL))
    rest = N_AUXILIARY - N_USEFUL
    other = rng.normal(size=(n, rest))
    if kind == "nuisance":
        other += nuisance @ (rng.normal(size=(40, rest)) / np.sqrt(10))
    expression = np.concatenate([primary, helping, other], axis=1).astype(np.float32)
    genes = np.array([f"P{i}" for i in range(N_PRIMARY)] + [f"A{i}" for i in range(N_AUXILIARY)])
    used = n_train + n_validation
    problem = agl.Problem(
        inputs[:used].astype(np.float32),
        expression[:used],
        genes,
        np.arange(used) >= n_train,
        primary=tuple(genes[:N_PRIMARY].tolist()),
        auxiliary=tuple(genes[N_PRIMARY:].tolist()),
    )
    return Planted(problem, inputs[used:], expression[used:, :N_PRIMARY])
