"""Which data sets there are: the catalogue, a file of one's own, synthetic data on request."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from panelbench.data import synthetic
from panelbench.data.download import in_words
from panelbench.data.own_files import recognise
from panelbench.data.read import check_reader
from panelbench.data.recipes import resolve
from panelbench.data.specs import PACKAGE, DatasetSpec, SourceFile, SplitSpec, Step, TaskSpec
from panelbench.errors import ConfigError, DataError, UnknownName
from panelbench.schema import parse, read_yaml

VARIABLE = "PANELBENCH_DATASETS"
SYNTHETIC = "synthetic:"
HEST = "hest:"


_SHIPPED = Path(__file__).parent.parent / "datasets.yaml"


def find_catalogue(option: Path | None = None) -> Path:
    """Return the catalogue to use.

    The first of: the path given (``--datasets``), ``$PANELBENCH_DATASETS``, ``./datasets.yaml``,
    the one that comes with the package.

    Raises
    ------
    ConfigError
        When the one asked for does not exist.
    """
    asked = {"--datasets": option, f"${VARIABLE}": os.environ.get(VARIABLE) or None}
    for source, value in asked.items():
        if value is not None:
            path = Path(value)
            if not path.is_file():
                raise ConfigError(f"{source}: no such file: {path}")
            return path
    here = Path("datasets.yaml")
    return here if here.is_file() else _SHIPPED


def load_catalogues(option: Path | None = None) -> dict[str, DatasetSpec]:
    """Data sets that come with the package, and those of a catalogue of one's own beside them.

    An entry of one's own stands for the shipped one of the same id.
    """
    own, shipped = find_catalogue(option), load_catalogue(_SHIPPED)
    return shipped if own.samefile(_SHIPPED) else {**shipped, **load_catalogue(own)}


def where_from(spec: DatasetSpec) -> str:
    """How the files of a data set are had, in words: with a package, by download, by hand."""
    if spec.missing:
        return f"not available: {spec.missing}"
    if not spec.files:
        return "made by the suite"
    by_hand = [file.name for file in spec.files if file.url is None]
    if by_hand:
        return f"to be supplied: {', '.join(by_hand)} in --mirror FOLDER ({spec.homepage or 'own'})"
    packages = {
        file.url.removeprefix(PACKAGE).partition("/")[0]
        for file in spec.files
        if file.url is not None and file.url.startswith(PACKAGE)
    }
    if packages:
        return f"comes with {', '.join(sorted(packages))}"
    sizes = [file.size for file in spec.files]
    known = in_words(sum(size for size in sizes if size)) if any(sizes) else "size unknown"
    return f"download, {'' if all(sizes) or not any(sizes) else 'at least '}{known}"


def load_catalogue(path: Path) -> dict[str, DatasetSpec]:
    """Read and check a catalogue, a mapping of id -> entry.

    Raises
    ------
    ConfigError
        Naming the file, the data set and the key that is wrong.
    """
    data = read_yaml(path)
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: expected data sets by id, found {type(data).__name__}")
    found = {}
    for key, entry in data.items():
        where = f"{path}, data set {str(key)!r}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {type(entry).__name__}")
        if "id" in entry:
            raise ConfigError(f"{where}: the id is the key of the entry; remove 'id'")
        found[str(key)] = _checked(parse(DatasetSpec, {**entry, "id": str(key)}, where), where)
    return found


def find_dataset(name: str, catalogue: Mapping[str, DatasetSpec]) -> DatasetSpec:
    """Return a data set by id: an entry of the catalogue, ``synthetic:...`` or ``hest:ID``.

    Raises
    ------
    UnknownName
        With near matches.
    ConfigError
        Options of synthetic data that do not fit.
    """
    if name in catalogue:
        return catalogue[name]
    if name.startswith(SYNTHETIC):
        return synthetic_data(name)
    if name.startswith(HEST):
        return hest_data(name)
    known = [*catalogue, f"{SYNTHETIC}cells=...,genes=...", f"{HEST}ID"]
    raise UnknownName("data set", name, known)


def _checked(spec: DatasetSpec, where: str) -> DatasetSpec:
    """What the model cannot check: reader, recipe, and names that would collide."""
    if spec.reader:
        check_reader(spec)
    if spec.reader == "synthetic":
        synthetic.parse_options(spec.reader_options, where)
    try:
        resolve(spec.recipe)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    names = [task.name for task in spec.tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{where}: task {twice[0]!r} is declared twice")
    groups = {name for name in (spec.group, spec.split.group) if name is not None}
    if len(groups) > 1:
        raise ConfigError(f"{where}: 'group' and 'split.group' name different columns")
    if groups and "group" in names:
        raise ConfigError(
            f"{where}: a task cannot be called 'group' beside a group column; give it another "
            "name, with column: group"
        )
    return spec


def own_data(
    path: Path,
    labels: Sequence[str],
    *,
    regression: Sequence[str] = (),
    group: str | None = None,
    inputs: str | None = None,
    layer: str | None = None,
    min_cells: int = 0,
    min_genes: int = 0,
    make_unique: bool = False,
    hvg: int | None = None,
    gene_names: str | None = None,
    log1p: bool = False,
    lognorm: bool = False,
    label_file: str | Path | None = None,
    scheme: Literal["holdout", "groups", "leave-one-group-out"] = "holdout",
    test: float = 0.2,
    validation: float = 0.0,
    stratify: bool = True,
) -> DatasetSpec:
    """Describe a file or folder of one's own, of any kind that `own_files` knows.

    Counts (in ``X``, or else in ``layers["counts"]``) are normalised to 10,000 per cell and
    log-transformed when the file is read; logarithms are taken as they are, with a note; other
    values need `log1p`.

    Parameters
    ----------
    path
        The file. The id of the data set is its name without suffix.
    labels
        Columns of ``obs`` with classes, one task each.
    regression
        Columns of ``obs`` or keys of ``obsm`` with numbers, one task each.
    group
        Column of ``obs`` with donors, batches or slides; needed by schemes other than holdout.
    inputs
        Key of ``obsm`` with features to predict from.
    layer
        Matrix to read instead of ``X``: a layer, or ``raw``.
    min_cells
        Classes with fewer cells are dropped from their task.
    min_genes
        Cells in which fewer genes are seen are dropped.
    make_unique
        Make repeated gene names unique.
    hvg
        Keep this many highly variable genes, chosen on training cells.
    gene_names
        Column of ``var`` with the names of the genes, if not its index.
    log1p
        The matrix holds values that are normalised but no logarithms (RPKM, counts per 10,000):
        take their logarithm.
    lognorm
        The matrix holds logarithms, whatever its values look like.
    label_file
        A table with the names of the cells in its first column and labels in others, which then
        stand in ``obs``.
    scheme, test, validation, stratify
        The split, see `panelbench.data.specs.SplitSpec`.

    Raises
    ------
    DataError
        No such file, or one of another kind; saying what to do.
    ConfigError
        Options that do not fit each other.
    """
    reader, files = recognise(path)
    where = f"--data {path}"
    tasks = [{"name": valid_name(c), "column": c, "min_cells": min_cells} for c in labels]
    tasks += [{"name": valid_name(c), "column": c, "kind": "regression"} for c in regression]
    recipe = [Step(name="filter_cells", options={"min_genes": min_genes})] if min_genes else []
    recipe.append(Step(name="log1p" if log1p else "to_lognorm"))
    if hvg is not None:
        recipe.append(Step(name="hvg", options={"n": hvg, "flavor": "auto"}))
    split = parse(
        SplitSpec,
        {
            "scheme": scheme,
            "test": test,
            "validation": validation,
            "stratify": stratify,
            "group": group if scheme != "holdout" else None,
        },
        where,
    )
    table = None if label_file is None else _beside(Path(label_file), files)
    if log1p and lognorm:
        raise ConfigError(f"{where}: --log1p and --lognorm exclude each other")
    given = {
        "layer": layer,
        "gene_names": gene_names,
        "make_unique": make_unique,
        "x": "linear" if log1p else "lognorm" if lognorm else None,
        "labels": None if table is None else table.name,
    }
    reader_options = {name: value for name, value in given.items() if value}
    return _checked(
        DatasetSpec(
            id=valid_name(Path(path.absolute().name.removesuffix(".gz")).stem),
            title=path.name,
            reader=reader,
            reader_options=reader_options,
            files=tuple(
                SourceFile(name=str(file.absolute()))
                for file in (*files, *([] if table is None else [table]))
            ),
            recipe=tuple(recipe),
            tasks=tuple(parse(TaskSpec, task, where) for task in tasks),
            split=split,
            group=group,
            inputs=inputs,
        ),
        where,
    )


def _beside(label_file: Path, files: Sequence[Path]) -> Path:
    """The table of labels; files of a data set are told apart by their names."""
    if not label_file.is_file():
        raise DataError(f"--labels {label_file}: no such file")
    if label_file.name in {file.name for file in files}:
        raise ConfigError(f"--labels {label_file}: give it another name than that of --data")
    return label_file


def valid_name(text: str) -> str:
    """Turn any text into a valid name: runs of other characters become one underscore."""
    name = re.sub(r"[^A-Za-z0-9._:+-]+", "_", text).lstrip("._:+-").rstrip("_")
    return name or "data"


def synthetic_data(name: str) -> DatasetSpec:
    """Describe the data set ``synthetic:cells=2000,genes=500,types=3:6:12,seed=1``.

    A list is separated by colons. The id of the data set is the same text with ``-`` and ``+`` for
    ``=`` and ``,`` (which file names do not like); it is understood as well.

    Raises
    ------
    ConfigError
        An unknown option (all are listed) or a value that does not fit.
    """
    options: dict[str, Any] = {}
    for item in filter(None, re.split(r"[,+]", name.removeprefix(SYNTHETIC))):
        key, separator, value = item.partition("=" if "=" in item else "-")
        if not separator or key in options:
            known = ", ".join(synthetic.SyntheticOptions.model_fields)
            raise ConfigError(
                f"{name}: cannot read {item!r}; write option=value, separated by commas, each "
                f"once; options are {known}"
            )
        parsed = [yaml.safe_load(part) for part in value.split(":")]
        options[key] = parsed if key == "types" else parsed[0] if len(parsed) == 1 else value
    checked = synthetic.parse_options(options, name)
    given = [
        f"{key}-{':'.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in sorted(options.items())
    ]
    return _checked(
        DatasetSpec(
            id=SYNTHETIC + ("+".join(given) or "default"),
            title="Synthetic data",
            reader="synthetic",
            reader_options=options,
            recipe=(Step(name="normalize"), Step(name="log1p")),
            tasks=synthetic.tasks(checked),
        ),
        name,
    )


def hest_data(name: str) -> DatasetSpec:
    """Describe a slide of HEST-1k, ``hest:TENX152``, recipe as in the AGL paper.

    Inputs are colours of the patches, or with ``hest:TENX152+patches-32`` the patches themselves,
    averaged to 32 pixels a side (224 are stored). Access to HEST-1k is granted on request, so its
    files must be in mirror folders: ``st`` and ``patches`` of a copy.
    """
    known = valid_name(name.removeprefix(HEST))
    slide, _, side = known.partition("+patches-")
    if side and not side.isdecimal():
        raise ConfigError(f"{name}: write the pixels as a number, {HEST}{slide}+patches-32")
    return _checked(
        DatasetSpec(
            id=HEST + known,
            title=f"HEST-1k, slide {slide}",
            reader="hest",
            reader_options={"make_unique": True, **({"patches": int(side)} if side else {})},
            files=(SourceFile(name=f"{slide}.h5ad"), SourceFile(name=f"{slide}.h5")),
            recipe=(
                Step(name="filter_cells", options={"min_genes": 200}),
                Step(name="filter_genes", options={"min_cells": 3}),
                Step(name="log1p"),
            ),
            # Expression from the colours of the patches, by folds of the spots, as in that paper.
            tasks=(TaskSpec(name="expression", kind="expression", primary=50, min_cells=3),),
            split=SplitSpec(scheme="folds", folds=5, validation=0.2),
            inputs="patches" if side else "image_features",
            citation="Jaume et al. 2024, HEST-1k, NeurIPS Datasets and Benchmarks",
            homepage="https://huggingface.co/datasets/MahmoodLab/hest",
            licence="CC BY-NC-SA 4.0, access on request",
        ),
        name,
    )
