"""Parameters: ranges are declared, and checked before anything runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
import pytest
from annotated_types import Ge

from panelbench import params
from panelbench.errors import ConfigError, UnknownName
from panelbench.params import make_params, params_dict, validated, variant_name
from panelbench.registry import discover
from tests.tools import Bench

METHODS = discover().methods


@dataclass(frozen=True)
class Sizes:
    """Parameters of the tests."""

    n: Annotated[int, Ge(1)] = 3
    low: float = 0.0
    high: float = 1.0
    kind: Literal["a", "b"] = "a"
    widths: tuple[int, ...] = (4, 2)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high: low = {self.low}, high = {self.high}")


def message(given: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validated(Sizes, given, "method m")
    return str(caught.value)


# -- making them ---------------------------------------------------------------------------------


def test_text_becomes_what_the_type_says() -> None:
    found = validated(Sizes, {"n": "7", "low": "-1e-3", "widths": [8, "9"]}, "here")
    assert found == Sizes(n=7, low=-1e-3, widths=(8, 9))
    assert isinstance(found, Sizes) and type(found.n) is int


def test_the_message_says_where_what_was_expected_and_what_was_found() -> None:
    assert message({"n": 0}) == (
        "method m: parameter n: input should be greater than or equal to 1 (found 0)"
    )
    assert message({"kind": "c"}) == (
        "method m: parameter kind: input should be 'a' or 'b' (found 'c')"
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = message({"n": 0, "kind": "c", "high": "x"})
    assert all(f"parameter {name}:" in found for name in ("n", "kind", "high"))


def test_a_rule_between_parameters_speaks_for_itself() -> None:
    assert message({"low": 2}) == ("method m: low must not exceed high: low = 2.0, high = 1.0")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "-inf"])
def test_what_is_not_a_finite_number_is_refused(value: object) -> None:
    assert "parameter high: input should be a finite number" in message({"high": value})


def test_unknown_parameters_are_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown parameter 'hihg' in here: did you mean high"):
        validated(Sizes, {"hihg": 1}, "here")


# -- writing them --------------------------------------------------------------------------------


def test_written_parameters_are_json_and_make_the_same_again() -> None:
    given = Sizes(n=5, widths=(1,))
    written = params_dict(given)
    assert written == {"n": 5, "low": 0.0, "high": 1.0, "kind": "a", "widths": [1]}
    assert validated(Sizes, json.loads(json.dumps(written)), "here") == given


def test_a_variant_names_what_differs_from_the_defaults() -> None:
    assert variant_name("m", Sizes()) == "m"
    assert variant_name("m", Sizes(n=5, kind="b")) == "m[n=5,kind=b]"


def test_types_are_read_once_per_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan writes parameters of every run: what that takes must not grow with them."""
    made: list[type] = []
    real = pydantic.TypeAdapter

    def counted(kind: type) -> Any:
        made.append(kind)
        return real(kind)

    monkeypatch.setattr(pydantic, "TypeAdapter", counted)
    params._adapter.cache_clear()
    for n in range(1, 50):
        params_dict(validated(Sizes, {"n": n}, "here"))
    assert made == [Sizes]
    params._adapter.cache_clear()


# -- the methods' own ----------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("yoto", {"epochs": 0}, "parameter epochs: .* equal to 1"),
    ("yoto", {"batch_size": 1}, "parameter batch_size: .* equal to 2"),
    ("yoto", {"hidden": []}, "parameter hidden: .* at least 1 item"),
    ("yoto", {"hidden": [8, 0]}, r"parameter hidden\.1: .* equal to 1"),
    ("yoto", {"dropout": 1.0}, "parameter dropout: .* less than 1"),
    ("yoto-single", {"lr_scores": -1.0}, "parameter lr_scores: .* equal to 0"),
    ("yoto-persist-arch", {"tau_start": 0}, "parameter tau_start: .* greater than 0"),
    ("yoto", {"anneal": 1.5}, "parameter anneal: .* equal to 1"),
    ("persist", {"select_epochs": 0}, "parameter select_epochs: .* equal to 1"),
    ("persist", {"t_end": 20}, "must not rise: t_start = 10.0, t_end = 20.0"),
    ("persist-unsup", {"t_start": 1e-3}, "must not rise: t_start = 0.001, t_end = 0.01"),
    ("persist", {"t_end": 0}, "parameter t_end: .* greater than 0"),
    ("persist", {"target": -1}, "parameter target: .* equal to 0"),
    ("persist", {"tol": 0}, "parameter tol: .* greater than 0"),
    ("persist", {"draws": 0}, "parameter draws: .* equal to 1"),
    ("persist-unsup", {"loss": "l1"}, "parameter loss: .* 'hurdle' or 'mse'"),
    ("markermap", {"batch_size": 1}, "parameter batch_size: .* equal to 2"),
    ("markermap-joint", {"tradeoff": 1.1}, "parameter tradeoff: .* equal to 1"),
    ("markermap-unsup", {"t_decay": 1.5}, "parameter t_decay: .* equal to 1"),
    ("concrete-vae", {"min_epochs": 0}, "parameter min_epochs: .* equal to 1"),
    ("gumbel-vae", {"max_lr": 1e-8}, "parameter max_lr: .* greater than 0.00000001"),
    ("markermap", {"beta": 1.0}, "parameter beta: .* less than 1"),
    ("lassonet", {"path_multiplier": 1.0}, "parameter path_multiplier: .* greater than 1"),
    ("scvi", {"train_size": 0.0}, "parameter train_size: .* greater than 0"),
    ("scgenefit", {"epsilon": 0, "redundancy": 2}, "parameter epsilon: .*; parameter redundancy: "),
    ("rankcorr", {"sparsity": 0.5}, "parameter sparsity: .* equal to 1"),
    ("hsic-lasso", {"block_size": 1}, "parameter block_size: .* equal to 2"),
    ("seurat", {"n_bins": 0}, "parameter n_bins: .* equal to 1"),
    ("seurat-v3", {"span": 1.5}, "parameter span: .* equal to 1"),
    ("cosg", {"mu": -1}, "parameter mu: .* equal to 0"),
    ("smash", {"n_estimators": 0}, "parameter n_estimators: .* equal to 1"),
    ("rf-importance", {"max_depth": 0}, "parameter max_depth: .* equal to 1"),
]


@pytest.mark.parametrize(("id", "given", "match"), WRONG)
def test_impossible_parameters_are_named(id: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=f"^method {id}: .*{match}"):
        make_params(METHODS[id], given)


@pytest.mark.parametrize("id", METHODS)
def test_defaults_are_within_their_ranges(id: str) -> None:
    defaults = METHODS[id].params()
    assert make_params(METHODS[id], params_dict(defaults)) == defaults


@pytest.mark.parametrize("id", METHODS)
def test_every_number_has_a_range(id: str) -> None:
    hints = get_type_hints(METHODS[id].params, include_extras=True)
    open_ended = [
        item.name
        for item in fields(METHODS[id].params)
        if any(part in (int, float) for part in _numbers(hints[item.name]))
    ]
    assert not open_ended, "say with Annotated[int, Ge(1)] or the like what will do"


def _numbers(hint: Any) -> list[Any]:
    """Parts of a type that have no annotation around them."""
    if get_origin(hint) is Annotated:
        base = get_args(hint)[0]
        return [] if base in (int, float) else _numbers(base)
    if get_origin(hint) in (Union, UnionType, tuple):
        return [part for inner in get_args(hint) for part in _numbers(inner)]
    return [hint]


def test_planning_fails_with_one_message_before_anything_runs(bench: Bench) -> None:
    for value, expected in (
        (".nan", "a finite number (found nan)"),
        ("-1", "equal to 0 (found -1"),
    ):
        found = bench.call_here(
            "run", *bench.own("--method", "random", "--method", "yoto", "--k", "5"),
            "--set", f"yoto.lr={value}",
        )  # fmt: skip
        assert found.code == 2
        (line,) = found.err.strip().splitlines()
        assert "method yoto" in line and "parameter lr" in line and expected in line
    assert not bench.records()
