"""Figures of the report: what is drawn is what was measured, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panelbench.errors import UnknownName
from panelbench.report import build, figures
from panelbench.report.build import _KINDS
from panelbench.report.class_palette import LIMIT, OTHER, Palette
from panelbench.report.confusion_figure import floored
from panelbench.report.figures import Looks
from panelbench.report.results import EvaluatorRef, Results
from panelbench.report.summary import Summary
from panelbench.suite.runs import Row
from panelbench.suite.specs import FigureSpec
from tests.reports import CLASSES, DECLARED, ROWS, fake_results, no_score

ONE = {"datasets": [{"dataset": "visp", "tasks": ["cell_types_25"]}]}
NOISE = {"fractions": [0.5, 0, 0.2], "variants": ["both", "select"]}
SORTED = sorted(CLASSES)


def draw(kind: str, results: Results, **chosen: Any) -> Any:
    """The figure of one kind, or None."""
    summary = Summary(results)
    spec = FigureSpec.model_validate({"name": "drawn", "kind": kind} | chosen)
    kind_of = _KINDS[spec.kind]
    content = kind_of.content(summary, spec, Looks(summary))
    return None if content is None else kind_of.draw(content)


def shown(figure: Any) -> list[Any]:
    """Axes that something is drawn in."""
    return [ax for ax in figure.axes if ax.get_visible() and (ax.lines or ax.collections)]


def noisier(line: dict[str, Any]) -> dict[str, Any]:
    """Each fraction of noise takes as many points off; half of that in the selection only."""
    fraction, variant = line["noise"]
    loss = fraction if variant == "both" else fraction / 2
    return line | {"metrics": {name: v - loss for name, v in line["metrics"].items()}}


def with_arrays(folder: Path, n_classes: int = 3) -> Any:
    """Turn scores of forests into views, those of own predictors into reconstructions."""
    rng = np.random.default_rng(0)
    classes = [f"class {i:02d}" for i in range(n_classes)]

    def change(line: dict[str, Any]) -> dict[str, Any]:
        own = line["evaluator"].own
        path = folder / f"{line['row'].variant}-{line['k']}-{line['seed']}.npz"
        n = 60
        arrays = {
            "codes": np.arange(n) % n_classes,
            "umap": rng.normal(size=(n, 2)).astype(np.float32) + (line["k"] or 0),
            "variances": np.stack([np.linspace(0, 2, 20), np.linspace(0, 1, 20)]),
            "components": rng.normal(size=(2, n, 2)).astype(np.float32),
        }
        names = ("variances", "components", "codes") if own else ("umap", "codes")
        np.savez(path, **{name: arrays[name] for name in names})
        return line | {
            "kind": "expression" if own else "view",
            "evaluator": EvaluatorRef.of("builtin-reconstruct" if own else "umap"),
            "metrics": {"spearman_variance": 0.875, "l2": 1.0} if own else {},
            "classes": classes, "confusion": [], "arrays": str(path),
        }  # fmt: skip

    return change


VIEWS = ONE | {"evaluators": ["umap", "builtin-reconstruct"], "ks": [16, 64], "tables": [
    {"name": "errors", "metrics": ["l2"]}]}  # fmt: skip


# -- a metric ------------------------------------------------------------------------------


def test_lines_by_noise_are_means_over_seeds_and_share_the_clean_point() -> None:
    results = fake_results(ONE | {"noise": NOISE, "ks": [16, 64]}, noisier)
    figure = draw("metric-by-noise", results, metric="accuracy", methods=["mrmr-f"])
    both, select = shown(figure)
    assert [ax.get_title() for ax in (both, select)] == [
        "visp\nnoise in selection and classifier", "visp\nnoise in selection only",
    ]  # fmt: skip
    clean = 100 * (0.75 - 0.5 / 64)
    for ax, losses in ((both, [0, 20, 50]), (select, [0, 10, 25])):
        (line,) = ax.lines
        np.testing.assert_allclose(line.get_xdata(), [0, 0.2, 0.5])
        np.testing.assert_allclose(line.get_ydata(), clean - np.array(losses))
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((clean - losses[-1] - 1, clean + 1))


def test_by_noise_shows_the_sizes_asked_for_and_controls_in_grey() -> None:
    results = fake_results(ONE | {"noise": NOISE | {"variants": ["both"]}}, noisier)
    figure = draw("metric-by-noise", results, ks=[16, 32])
    assert [ax.get_title().split("\n")[1] for ax in shown(figure)] == ["k = 16", "k = 32"]
    colours = [line.get_color() for line in shown(figure)[0].lines]
    assert colours.count(figures.GREY) == 1 and len(colours) == len(ROWS)


def test_by_noise_needs_noise() -> None:
    assert draw("metric-by-noise", fake_results(ONE)) is None
    assert draw("metric-by-noise", fake_results(ONE | {"noise": {"fractions": 0.2}})) is None


def test_by_k_draws_the_methods_and_sizes_that_it_names() -> None:
    figure = draw("metric-by-k", fake_results(ONE), methods=["mrmr-f", "yoto"], ks=[16, 64])
    (ax,) = shown(figure)
    assert [list(line.get_xdata()) for line in ax.lines] == [[16, 64], [16, 64]]
    expected = [100 * (skill - 0.5 / k) for skill in (0.75, 0.85) for k in (16, 64)]
    np.testing.assert_allclose([y for line in ax.lines for y in line.get_ydata()], expected)
    assert len(draw("metric-by-k", fake_results(ONE)).axes[0].lines) == len(ROWS)


def test_a_variant_can_be_named_with_its_parameters() -> None:
    rows = (*ROWS[:2], Row("mrmr-f[relevance=rf]", "mRMR-rf", "mrmr-f", DECLARED))
    results = fake_results(ONE, rows=rows)
    for methods, n in ((["mrmr-f"], 2), (["mrmr-f[relevance=rf]"], 1)):
        assert len(draw("metric-by-k", results, methods=methods).axes[0].lines) == n


@pytest.mark.parametrize(
    "chosen", [{"methods": ["mrmr"]}, {"ks": [17]}, {"evaluators": ["knn"]}, {"datasets": ["x"]}]
)
@pytest.mark.parametrize("kind", ["metric-by-k", "confusion", "umap"])
def test_a_figure_that_names_what_is_not_there_is_an_error(
    kind: str, chosen: dict[str, Any]
) -> None:
    with pytest.raises(UnknownName, match="figure drawn"):
        draw(kind, fake_results(ONE), **chosen)


# -- confusion -----------------------------------------------------------------------------


def test_matrices_are_sums_over_seeds_by_sorted_class() -> None:
    def by_seed(line: dict[str, Any]) -> dict[str, Any]:
        # In the order of the codes: B cell, T cell, NK; no T cell in seed 2.
        matrix = [[8, 2, 0], [1, 9, 0] if line["seed"] < 2 else [0, 0, 0], [0, line["seed"], 2]]
        return line | {"confusion": matrix}

    figure = draw("confusion", fake_results(ONE, by_seed), methods=["mrmr-f", "seurat"])
    first, second = (ax for ax in figure.axes if ax.images)
    assert (first.get_title(), second.get_title()) == ("Seurat", "mRMR-f")
    assert SORTED == ["B cell", "NK <50% & more>", "T cell"]
    assert [t.get_text() for t in first.get_yticklabels()] == [
        f"{name}  {number}" for number, name in enumerate(SORTED, 1)
    ]
    expected = [[24 / 30, 0, 6 / 30], [0, 6 / 9, 3 / 9], [2 / 20, 0, 18 / 20]]
    np.testing.assert_allclose(first.images[0].get_array(), expected)
    texts = {(t.get_position(), t.get_text()) for t in first.texts}
    # Columns are x, rows are y: two thirds are cut off, not rounded up.
    assert ((1, 1), "0.66") in texts and len(texts) == 6


def test_a_share_is_called_one_only_where_it_is() -> None:
    assert [floored(*pair) for pair in ((1, 1), (999, 1000), (29, 100), (1, 1000))] == [
        "1.00", "0.99", "0.29", "0.00",
    ]  # fmt: skip


def test_controls_and_more_than_six_matrices_are_shown_only_when_named() -> None:
    rows = tuple(Row(f"mrmr-f[a={i}]", f"V{i}", "mrmr-f", DECLARED) for i in range(8))
    results = fake_results(ONE, rows=(*rows, ROWS[-1]))
    titles = [ax.get_title() for ax in draw("confusion", results).axes if ax.images]
    assert titles == [f"V{i}" for i in range(6)]
    named = draw("confusion", results, methods=["mrmr-f", "all-genes"])
    assert sum(bool(ax.images) for ax in named.axes) == 9


def test_many_classes_are_colours_only() -> None:
    n = 40

    def many(line: dict[str, Any]) -> dict[str, Any]:
        matrix = (np.eye(n, dtype=int) + 1).tolist()
        return line | {"classes": [f"c{i:02d}" for i in range(n)], "confusion": matrix}

    figure = draw("confusion", fake_results(ONE, many), methods=["mrmr-f"])
    (ax,) = (ax for ax in figure.axes if ax.images)
    assert not ax.texts and ax.images[0].get_array().shape == (n, n)


# -- cells ---------------------------------------------------------------------------------


def test_maps_are_those_of_the_first_seed_that_has_one(tmp_path: Path) -> None:
    results = fake_results(VIEWS, with_arrays(tmp_path))
    (tmp_path / "mrmr-f-16-0.npz").unlink()
    figure = draw("umap", results, methods=["seurat", "mrmr-f"])
    axes = [ax for ax in figure.axes if ax.collections]
    assert [ax.get_title() for ax in axes] == [
        "Seurat, k = 16", "Seurat, k = 64", "mRMR-f, k = 16", "mRMR-f, k = 64",
    ]  # fmt: skip
    for ax, (name, seed) in zip(axes, (("seurat", 0), ("seurat", 0), ("mrmr-f", 1), ("mrmr-f", 0)),
                                strict=True):  # fmt: skip
        k = ax.get_title().rpartition(" ")[2]
        drawn = np.concatenate([group.get_offsets() for group in ax.collections])
        given = np.load(tmp_path / f"{name}-{k}-{seed}.npz")["umap"]
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(given, axis=0))
        assert all(group.get_rasterized() for group in ax.collections)


def test_a_cell_has_the_colour_of_its_class() -> None:
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    classes = ["b", "a", *(f"z{i:02d}" for i in range(10))]
    palette, ax = Palette(classes, {}), Figure().subplots()
    codes = np.arange(len(classes))
    palette.scatter(ax, np.stack([codes, codes], axis=1).astype(float), codes)
    handles = palette.handles()
    assert list(handles) == sorted(classes)
    for marker, group in zip(("o", "x"), ax.collections, strict=True):
        for (x, _), colour in zip(group.get_offsets(), group.get_facecolor(), strict=True):
            handle = handles[classes[int(x)]]
            assert (handle.get_marker(), handle.get_color()) == (marker, to_hex(colour).upper())
    looks = {(handle.get_marker(), handle.get_color()) for handle in handles.values()}
    assert len(looks) == len(classes)


def test_the_smallest_of_too_many_classes_share_a_grey() -> None:
    classes = [f"c{i:02d}" for i in range(30)]
    handles = Palette(classes, {name: i for i, name in enumerate(classes)}).handles()
    assert len(handles) == LIMIT
    assert list(handles)[-1] == "11 smaller classes" and "c10" not in handles and "c11" in handles
    assert handles["11 smaller classes"].get_color() == OTHER
    assert len(Palette(classes[:LIMIT], {}).handles()) == LIMIT


def test_variances_stand_against_each_other(tmp_path: Path) -> None:
    results = fake_results(VIEWS, with_arrays(tmp_path))
    figure = draw("reconstruction", results, methods=["yoto", "seurat"], ks=[64])
    left, right = (ax for ax in figure.axes if ax.collections)
    points = left.collections[0].get_offsets()
    # The first gene is constant: it has no place on a logarithmic axis.
    np.testing.assert_allclose(points[:, 0], np.linspace(0, 2, 20)[1:])
    np.testing.assert_allclose(points[:, 1], np.linspace(0, 1, 20)[1:])
    assert left.texts[0].get_text() == "Spearman 0.875\n1 constant genes not drawn"
    true, again = np.load(tmp_path / "yoto-64-0.npz")["components"]
    np.testing.assert_allclose(right.collections[0].get_offsets(), true)
    np.testing.assert_allclose(
        np.sort(right.collections[1].get_offsets(), axis=0), np.sort(again, axis=0)
    )


# -- in the report -------------------------------------------------------------------------

KINDS = ("metric-by-k", "metric-by-noise", "confusion", "umap", "reconstruction")
EACH = {"figures": [{"name": kind, "kind": kind} for kind in KINDS]}


def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    suite = ONE | {"noise": NOISE, "evaluators": ["rf", "umap", "builtin-reconstruct"]} | EACH
    build(fake_results(suite), tmp_path)
    assert (tmp_path / "figures" / "confusion.png").exists()
    # What an earlier report drew goes too; what somebody else put there stays.
    (tmp_path / "figures" / "mine.svg").touch()
    build(fake_results(suite, no_score("failed", "")), tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.svg"]


def test_views_without_their_files_are_left_out(tmp_path: Path) -> None:
    results = fake_results(VIEWS, with_arrays(tmp_path))
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"cut off") if path.name.startswith("yoto") else path.unlink()
    assert draw("umap", results) is None
    assert draw("reconstruction", results) is None


def test_the_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    shown = [{"name": kind, "kind": kind, "ks": [64], "methods": ["seurat", "yoto"]}
             for kind in KINDS[-2:]]  # fmt: skip
    suite = VIEWS | {"figures": shown}
    results = fake_results(suite, with_arrays(tmp_path, n_classes=25))
    first, again = ({path.name: path.read_bytes() for path in build(results, tmp_path / out)
                     if path.parent.name == "figures"} for out in ("a", "b"))  # fmt: skip
    assert sorted(first) == ["reconstruction.png", "reconstruction.svg", "umap.png", "umap.svg"]
    assert first == again
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Test cells by the genes of a panel: UMAP" in page
