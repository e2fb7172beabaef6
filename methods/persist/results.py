"""What a training leaves behind: the record, and the predictor with its accuracies."""

from __future__ import annotations

from typing import Any

import numpy as np

from panelbench.method import Task

from .data import Cells
from .predictor import PersistPredictor
from .search import Found
from .stages import Selected

FEW_STEPS = 8000
"""With fewer steps of selection, rows drawn anew may not settle where the data say."""


def record(task: Task, selected: Selected, found: Found | None) -> dict[str, Any]:
    """Facts for `Selection.info`."""
    history = selected.history
    rows = task.genes[selected.rows].tolist()
    info: dict[str, Any] = {
        "converged": history.converged,
        "epochs": len(history.loss),
        "steps": history.steps,
        "temperature": round(history.temperature, 6),
        "rows": rows,
        "unique": len(set(rows)),
        "refilled": selected.refilled,
        "candidates": len(selected.inputs),
        "lambda": [[trial.penalty, trial.n_open] for trial in found.trials] if found else [],
        "fallback": found.fallback if found else "none",
        "curves": {"loss": history.loss, "repaired": history.repaired},
    }
    if history.validation:
        info["curves"]["validation loss"] = history.validation
    if history.steps < FEW_STEPS and not history.converged:
        info["warning"] = (
            f"selection took {history.steps} steps; below {FEW_STEPS} chance may decide some "
            "genes: raise select_epochs"
        )
    return info


def predictor(
    task: Task, selected: Selected, ranking: np.ndarray, *, draws: int, temperature: float
) -> PersistPredictor:
    """Predictor that reads the panel, or all genes through masks drawn at a temperature."""
    n_seen = len(selected.inputs) - selected.mask.theta.shape[1]
    masks = selected.mask.masks(draws, temperature).cpu().numpy()
    chosen = ranking[: len(ranking) - selected.refilled]
    place = {column: i for i, column in enumerate(selected.inputs.tolist())}
    return PersistPredictor(
        task=task.target.name,
        all_genes=task.genes.tolist(),
        panel=task.genes[ranking].tolist(),
        columns=selected.inputs,
        masks=np.concatenate([np.ones((draws, n_seen), np.float32), masks], axis=1),
        chosen=np.array([place[column] for column in chosen.tolist()], dtype=np.int64),
        layers=[
            (
                np.ascontiguousarray(weight.detach().cpu().numpy().T),
                bias.detach().cpu().numpy().copy(),
            )
            for weight, bias in selected.network.layers
        ],
    )


def accuracy(task: Task, found: PersistPredictor, cells: Cells) -> dict[str, Any]:
    """Soft and hard accuracy on held-out cells, where there are such, else on training cells."""
    held_out = len(cells.held_out) > 0
    rows = cells.held_out if held_out else cells.training
    inputs, truth = cells.inputs.cpu().numpy()[rows], task.target.values[rows]
    facts: dict[str, Any] = {"accuracy_on": "validation cells" if held_out else "training cells"}
    place = {gene: column for column, gene in enumerate(task.genes.tolist())}
    for mode in ("soft", "hard"):
        reader = found.in_mode(mode)
        X = inputs[:, [place[gene] for gene in reader.genes]]
        right = reader.predict_proba(task.target.name, X).argmax(axis=1) == truth
        facts[f"train_accuracy_{mode}"] = round(float(right.mean()), 5)
    gap = facts["train_accuracy_hard"] - facts["train_accuracy_soft"]
    return facts | {"hard_minus_soft": round(gap, 5)}
