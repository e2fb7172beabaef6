"""Auxiliary gene learning: other genes as further targets, and how many of them help.

A network predicts the expression of a few primary genes from features of a cell or spot (an image
embedding, proteins, a panel of genes), or from an image of it (`images`). It is trained on the
primary genes and on auxiliary ones, which share its trunk (`network`). Auxiliary genes stand in the
order of their variability (`ordering`); a soft cut in that order (`mask`) is learned from the
validation loss of the primary genes (`hyper`, `training`). What remains is a predictor
(`predictor`) and the cut.

The order is that of Seurat's highly variable genes and is not learned. The cut says how far down
the list genes are useful as training targets, not which genes are worth measuring.

Expression targets are its tasks (`expression` declares the methods); panels are scored by the same
training through the evaluator `imputation`; and `fit` is for use from Python.

Source: Shiku et al. 2026, AAAI 40 (arXiv 2511.18336).
"""

from __future__ import annotations

from panelbench.ranking import dispersion_order

from .baselines import LinearPredictor, fit_mean, fit_ridge
from .cells import Problem
from .correlations import gene_correlations, mean_correlation
from .estimator import Fitted, fit
from .expression import OutputsPredictor
from .ordering import Roles, assign_roles
from .params import SCHEDULES, Hyper, Params, Schedule, Strategy, settings
from .predictor import AglPredictor

__all__ = [
    "SCHEDULES",
    "AglPredictor",
    "Fitted",
    "Hyper",
    "LinearPredictor",
    "OutputsPredictor",
    "Params",
    "Problem",
    "Roles",
    "Schedule",
    "Strategy",
    "assign_roles",
    "dispersion_order",
    "fit",
    "fit_mean",
    "fit_ridge",
    "gene_correlations",
    "mean_correlation",
    "settings",
]
