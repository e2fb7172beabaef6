"""YOTO's training, piece by piece: class weights, decay, dropout, calibration, candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from panelbench.methods import yoto
from panelbench.methods.yoto import training
from panelbench.methods.yoto.data import Cells
from panelbench.methods.yoto.training import Settings, Trainer, input_dropout

from panelbench.contract import tasks
from panelbench.method import Task, frozen_mapping

SETTINGS = yoto.settings(yoto.Params(preset="joint", epochs=3, batch_size=50, hidden=(8, 6)))


def _task(X: np.ndarray | None = None, k: int = 6) -> Task:
    matrix = tasks.lognorm(tasks.counts()) if X is None else X
    targets = frozen_mapping({"cell_type": tasks.cell_type()})
    return Task(tasks.locked(matrix.astype(np.float32)), tasks.gene_names(), targets, k=k, seed=0)


def test_rare_classes_weigh_more_and_a_cell_weighs_one_on_average() -> None:
    (labels,) = Cells(_task(), standardize=False).labels
    sizes = np.bincount(tasks.labels())
    for power in (0.5, 1.0):
        weights = labels.class_weights(power)
        assert weights is not None
        found = weights.numpy().astype(np.float64)
        assert (found * sizes).sum() == pytest.approx(sizes.sum())
        np.testing.assert_allclose(found / found[0], (sizes / sizes[0]) ** -power, rtol=1e-5)
    assert labels.class_weights(0.0) is None


def test_weights_decay_and_scores_do_not() -> None:
    trainer = Trainer(_task(), replace(SETTINGS, weight_decay=0.5, lr=0.1, lr_scores=0.1))
    scores, first = trainer.scores.clone(), trainer.network.first.clone()
    for parameter in trainer.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    assert torch.equal(trainer.scores, scores)
    torch.testing.assert_close(trainer.network.first, first * (1 - 0.1 * 0.5))


def test_genes_are_dropped_at_the_full_rate_while_cells_are_few() -> None:
    settings = replace(SETTINGS, input_dropout=0.4, cells_per_gene=10.0)
    assert input_dropout(settings, n_cells=100, k=50) == 0.4
    assert input_dropout(settings, n_cells=100, k=10) == 0.4
    assert input_dropout(settings, n_cells=200, k=10) == pytest.approx(0.2)
    assert input_dropout(settings, n_cells=4000, k=10) == pytest.approx(0.01)


def test_the_rate_follows_the_number_of_genes_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    plain = training.drop

    def spied(values: Any, rate: float, noise: Any) -> Any:
        rates.append(rate)
        return plain(values, rate, noise)

    monkeypatch.setattr(training, "drop", spied)
    settings = replace(SETTINGS, input_dropout=0.4, cells_per_gene=5.0)
    found = Trainer(_task(), settings).run()
    n = tasks.N_CELLS
    assert rates[0] == 0.4, "all genes: more than a gene for five cells"
    assert rates[-1] == pytest.approx(0.4 * 5 * 6 / n), "six genes for 150 cells"
    assert rates == sorted(rates, reverse=True)
    assert found.curves["k"][-1] == 6


def test_the_network_is_normalised_by_all_training_cells_on_the_final_panel() -> None:
    task = _task()
    trainer = Trainer(task, SETTINGS)
    found = trainer.run()
    network, k = trainer.network, found.k
    place = {gene: row for row, gene in enumerate(trainer.cells.genes.tolist())}
    panel = found.genes[:k]
    first = network.first[[place[gene] for gene in panel.tolist()]]
    hidden = torch.from_numpy(np.array(task.X[:, panel])) @ first + network.bias
    with torch.no_grad():
        for depth, norm in enumerate(network.norms):
            if depth:
                hidden = torch.nn.functional.linear(hidden, *network.layers[depth - 1])
            torch.testing.assert_close(norm.mean, hidden.mean(0), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(norm.variance, hidden.var(0, correction=0), rtol=1e-3,
                                       atol=1e-4)  # fmt: skip
            hidden = torch.relu(norm.apply(hidden, training=False))


def test_a_gene_that_hardly_varies_is_a_candidate_that_is_not_blown_up() -> None:
    X = tasks.lognorm(tasks.counts()).copy()
    levels = np.linspace(20_000, 30_000, 10, dtype=np.float32)
    X[:, 30:40] = levels
    X[0, 30:40] = np.nextafter(levels, np.float32(np.inf))  # rounding hides their variance
    X[:, 21] = 0.1  # constant, and 0.1 is not exact in binary
    X[:, 22] = np.where(np.arange(len(X)) < 5, 1e-3, 0)
    cells = Cells(_task(X), standardize=True)
    assert {22, *range(30, 40)} <= set(cells.genes.tolist())
    assert 21 not in cells.genes and tasks.SILENT not in cells.genes
    assert float(cells.gain.max()) < 15 / np.median(X[:, :20].std(axis=0))
    plain = Cells(_task(X), standardize=False)
    assert isinstance(SETTINGS, Settings) and (plain.gain == 1).all()
