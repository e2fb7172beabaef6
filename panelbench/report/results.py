"""What the report reads: the records of a suite as two tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from panelbench.suite.runs import Row
from panelbench.suite.specs import SuiteSpec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """The records of one suite.

    Attributes
    ----------
    suite
        The suite.
    rows
        Its methods, in the suite's order.
    scores
        One line per planned evaluation and level of label noise that it answers for, whether it
        has run or not. Columns: ``dataset``, ``variant``, ``label``, ``method``, ``evaluator``
        (``rf``, or with parameters ``rf[n_estimators=500]``), ``task``, ``kind`` (of the task, or
        ``expression`` or ``view``), ``k`` (int; 0 when the panel is not cut), ``seed``, ``noise``
        (`NoiseLevel`), ``beyond`` (bool: more genes than the panel's were read), ``status``
        (``ok``, ``failed``, ``timeout``, ``oom``, ``skipped``, ``lost``, ``missing``), ``reason``
        (str, "" when ok), ``metrics`` (dict name -> float, empty unless ok), ``classes`` (list of
        str), ``per_class_f1`` (dict class -> float), ``confusion`` (list of lists of int, rows
        true), ``by_class`` (dict class -> metrics of reconstructed expression), ``arrays`` (path
        of coordinates for pictures, "" if none), ``notes`` (list of str), ``seconds``,
        ``cpu_seconds``, ``peak_memory_mb``, ``gpu_memory_mb`` (float, NaN unless run), ``key``,
        ``select_key``.
    selections
        One line per planned selection. Columns: ``dataset``, ``variant``, ``label``, ``method``,
        ``tasks`` (tuple of str, empty when unsupervised), ``k`` (int, the largest asked for),
        ``seed``, ``noise`` (fraction of noisy labels it saw), ``status``, ``reason``,
        ``seconds``, ``cpu_seconds``, ``peak_memory_mb``, ``gpu_memory_mb``, ``ranking`` (list of
        gene names, empty unless ok), ``info`` (dict), ``warnings`` (list of str),
        ``source_digest`` (str), ``started`` (ISO time, UTC), ``host``, ``versions`` (dict library
        -> version), ``key``.
    datasets
        Facts of each data set by id: ``title``, ``cells``, ``genes``, ``citation``,
        ``licence``, ``split``, ``tasks`` (name -> {class: number of cells}), ``markers``
        (class -> genes), ``notes``; whatever is unknown is absent.
    stale
        Number of records made with other code or versions than those at hand. Not part of any
        table: tables are a function of the records alone.
    """

    suite: SuiteSpec
    rows: tuple[Row, ...]
    scores: pd.DataFrame
    selections: pd.DataFrame
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stale: int = 0
