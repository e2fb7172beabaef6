"""The options of the command line, in groups that commands share.

Each group is a function that is never called: its parameters are the options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_GRID, _OWN, _PLACE, _HOW = "What to run", "Your own data", "Where things are", "How to run"
_CLUSTER, _PANELS = "On a cluster", "What panels keep to"


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def grid(
    suite: Annotated[
        str | None, _option(_GRID, "--suite", help="A suite that ships, or a YAML file.")
    ] = None,
    dataset: Annotated[
        list[str] | None, _option(_GRID, "--dataset", help="Data set id. Repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None, _option(_GRID, "--method", help="Method id. Repeatable.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        _option(_GRID, "--set", help="METHOD.PARAMETER=VALUE. Repeatable."),
    ] = None,
    k: Annotated[list[int] | None, _option(_GRID, "--k", help="Panel size. Repeatable.")] = None,
    task: Annotated[
        list[str] | None, _option(_GRID, "--task", help="Task of the data set. Repeatable.")
    ] = None,
    seed: Annotated[list[int] | None, _option(_GRID, "--seed", help="Seed. Repeatable.")] = None,
    evaluator: Annotated[
        list[str] | None,
        _option(
            _GRID,
            "--evaluator",
            help="A way to score: rf, knn, builtin, ... (`list evaluators`). Repeatable.",
        ),
    ] = None,
    max_runs: Annotated[
        int | None,
        _option(_GRID, "--max-runs", min=1, help="Refuse a grid of more runs, as not meant."),
    ] = None,
    max_cells: Annotated[
        int | None,
        _option(
            _GRID,
            "--max-cells",
            min=2,
            help="Train on a sample of so many cells, of all classes; test on all test cells.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        _option(
            _OWN,
            "--data",
            help="Your own: .h5ad, 10x .h5 or folder, .loom, .zarr, .csv, .tsv (.gz); no YAML.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, _option(_OWN, "--label", help="Column of obs with classes. Repeatable.")
    ] = None,
    labels: Annotated[
        Path | None,
        _option(_OWN, "--labels", help="A table with names of cells, then labels, for --label."),
    ] = None,
    target: Annotated[
        list[str] | None,
        _option(_OWN, "--target", help="Column of obs or key of obsm with numbers. Repeatable."),
    ] = None,
    group: Annotated[
        str | None,
        _option(_OWN, "--group", help="Column of obs with donors: none on both sides of a split."),
    ] = None,
    split: Annotated[
        str | None,
        _option(
            _GRID,
            "--split",
            help="Score on groups of cells not trained on: groups, or "
            "leave-one-group-out (the group of the seed).",
        ),
    ] = None,
    hvg: Annotated[
        int | None, _option(_OWN, "--hvg", help="Keep this many highly variable genes.")
    ] = None,
    layer: Annotated[
        str | None, _option(_OWN, "--layer", help="Read this layer (or raw) instead of X.")
    ] = None,
    gene_names: Annotated[
        str | None,
        _option(_OWN, "--gene-names", help="Column of var with gene names, if not its index."),
    ] = None,
    log1p: Annotated[
        bool,
        _option(_OWN, "--log1p", help="Values are normalised, no logarithms: take the logarithm."),
    ] = False,
    lognorm: Annotated[
        bool, _option(_OWN, "--lognorm", help="Values are logarithms, though they look otherwise.")
    ] = False,
    min_genes: Annotated[
        int | None,
        _option(_OWN, "--min-genes", min=0, help="Drop cells in which fewer genes are seen."),
    ] = None,
    min_cells_per_class: Annotated[
        int | None,
        _option(_OWN, "--min-cells-per-class", help="Drop classes with fewer cells."),
    ] = None,
    no_stratify: Annotated[
        bool, _option(_OWN, "--no-stratify", help="Split without regard to the classes.")
    ] = False,
    make_unique: Annotated[
        bool, _option(_OWN, "--make-unique", help="Make repeated gene names unique.")
    ] = False,
) -> None:
    """Options that say what to run."""


def place(
    results: Annotated[
        Path, _option(_PLACE, "--results", help="Folder of the records. Default: results.")
    ] = Path("results"),
    cache: Annotated[
        Path | None,
        _option(_PLACE, "--cache", help="Stage cache; may be deleted. Default: user's cache."),
    ] = None,
    datasets: Annotated[
        Path | None, _option(_PLACE, "--datasets", help="Catalogue of data sets (YAML).")
    ] = None,
    methods_dir: Annotated[
        list[Path] | None,
        _option(_PLACE, "--methods-dir", help="Folder with methods of your own. Repeatable."),
    ] = None,
    evaluators_dir: Annotated[
        list[Path] | None,
        _option(_PLACE, "--evaluators-dir", help="Folder with own evaluators. Repeatable."),
    ] = None,
    mirror: Annotated[
        list[Path] | None,
        _option(_PLACE, "--mirror", help="Folder searched before downloading. Repeatable."),
    ] = None,
    output: Annotated[
        str, _option(_PLACE, "--output", help="text or json (on standard output).")
    ] = "text",
    debug: Annotated[bool, _option(_PLACE, "--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options that say where things are and how to speak."""


def run(
    jobs: Annotated[
        int | None, _option(_HOW, "--jobs", min=1, help="Runs at a time. Default: one per core.")
    ] = None,
    shard: Annotated[
        str | None, _option(_HOW, "--shard", help="I/N: only the runs of shard I of N, from 0.")
    ] = None,
    key: Annotated[
        list[str] | None,
        _option(_HOW, "--key", help="Only runs whose keys begin so (comma-separated). Repeatable."),
    ] = None,
) -> None:
    """Options of commands that do runs themselves."""


def limits(
    device: Annotated[
        str, _option(_HOW, "--device", help="auto, cpu, cuda or cuda:N. Default: auto.")
    ] = "auto",
    together: Annotated[
        int | None,
        _option(
            _HOW,
            "--together",
            min=1,
            help="Runs that a method does at once, at most, where it can. Default: 1 on a CPU, "
            "what fits on a GPU.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, _option(_HOW, "--dry-run", help="List the runs and where they stand; run nothing.")
    ] = False,
    retry: Annotated[
        str | None,
        _option(_HOW, "--retry", help="Do runs again that ended so: failed,timeout,oom,skipped."),
    ] = None,
    time_limit: Annotated[
        str | None, _option(_HOW, "--time-limit", help="Of one run: 90, 10m, 2h.")
    ] = None,
    memory_limit: Annotated[
        str | None, _option(_HOW, "--memory-limit", help="Of one run: 500M, 8G.")
    ] = None,
) -> None:
    """Options that say how runs are done."""


def queue(
    executor: Annotated[
        str, _option(_CLUSTER, "--executor", help="slurm or dask. Default: slurm.")
    ] = "slurm",
    scheduler: Annotated[
        str | None, _option(_CLUSTER, "--scheduler", help="Address of a Dask scheduler.")
    ] = None,
    scheduler_file: Annotated[
        Path | None, _option(_CLUSTER, "--scheduler-file", help="The file that it wrote.")
    ] = None,
    need: Annotated[
        list[str] | None,
        _option(
            _CLUSTER,
            "--need",
            help="ID.WHAT=VALUE: time, memory, cores, gpus or usual (time) of the runs of a method "
            "or evaluator, of preprocess or report, or of all. Repeatable.",
        ),
    ] = None,
    pack: Annotated[
        str, _option(_CLUSTER, "--pack", help="Short runs share a task of this time. Default: 30m.")
    ] = "30m",
    throttle: Annotated[
        int | None,
        _option(_CLUSTER, "--throttle", min=1, help="Tasks of an array at a time."),
    ] = None,
    partition: Annotated[str | None, _option(_CLUSTER, "--partition", help="As of sbatch.")] = None,
    account: Annotated[str | None, _option(_CLUSTER, "--account", help="As of sbatch.")] = None,
    qos: Annotated[str | None, _option(_CLUSTER, "--qos", help="As of sbatch.")] = None,
    constraint: Annotated[
        str | None, _option(_CLUSTER, "--constraint", help="As of sbatch.")
    ] = None,
    gres: Annotated[
        str | None,
        _option(_CLUSTER, "--gres", help="What runs that need a GPU ask for. Default: gpu:N."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        _option(_CLUSTER, "--sbatch", help="Any other option: mail-type=END. Repeatable."),
    ] = None,
    print_: Annotated[
        Path | None,
        _option(_CLUSTER, "--print", help="Write the scripts into a folder; send nothing."),
    ] = None,
    wait: Annotated[
        bool, _option(_CLUSTER, "--wait", help="Follow the jobs until all are over.")
    ] = False,
) -> None:
    """Options of jobs on a cluster."""


def panel(
    panel: Annotated[
        list[Path] | None,
        _option(
            _OWN,
            "--panel",
            help="Score these genes: a CSV with a column gene, or a list. Repeatable.",
        ),
    ] = None,
) -> None:
    """Options of commands that can score any panel."""


def paper(
    paper: Annotated[
        str | None,
        _option(
            _GRID,
            "--paper",
            help="All suites, tables and figures of a paper: yoto, markermap, agl, or a YAML file.",
        ),
    ] = None,
) -> None:
    """Options of commands that know papers."""


def constraints(
    include: Annotated[
        list[Path] | None,
        _option(_PANELS, "--include", help="A file of genes that are always on it. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _option(
            _PANELS,
            "--exclude",
            help="Genes that never are: a file, a pattern (MT-*), or mitochondrial, ribosomal, "
            "haemoglobin. Repeatable.",
        ),
    ] = None,
    mean: Annotated[
        str | None, _option(_PANELS, "--mean", help="MIN:MAX of a gene's mean count per cell.")
    ] = None,
    class_mean: Annotated[
        str | None,
        _option(_PANELS, "--class-mean", help="The same in the class where it is highest."),
    ] = None,
    detection: Annotated[
        str | None,
        _option(_PANELS, "--detection", help="MIN:MAX of the share of cells with the gene."),
    ] = None,
    class_detection: Annotated[
        str | None,
        _option(_PANELS, "--class-detection", help="The same in the class where it is highest."),
    ] = None,
    costs: Annotated[
        Path | None, _option(_PANELS, "--costs", help="A CSV with the columns gene and cost.")
    ] = None,
    budget: Annotated[
        float | None, _option(_PANELS, "--budget", min=0, help="What a panel may cost.")
    ] = None,
    markers: Annotated[
        int | None,
        _option(_PANELS, "--markers-per-class", min=0, help="Markers of each class, at least."),
    ] = None,
    marker_auroc: Annotated[
        float | None,
        _option(
            _PANELS,
            "--marker-auroc",
            help="A marker tells its class from the rest better than this. Default: 0.8.",
        ),
    ] = None,
) -> None:
    """Options of commands that choose panels."""


def out(
    out: Annotated[
        Path | None, _option(_OWN, "--out", help="Write the panel as CSV: rank, gene, score.")
    ] = None,
) -> None:
    """Options of commands that choose one panel."""


def listing(
    what: Annotated[
        str, typer.Argument(help="methods, evaluators, datasets, tasks, suites or runs.")
    ],
) -> None:
    """Argument of list."""


def show(
    run: Annotated[str, typer.Argument(help="Key of a run, or its first digits.")],
) -> None:
    """Argument of show."""


def clean(
    what: Annotated[
        str,
        typer.Argument(help="leftovers (of killed runs), cache, or runs (deletes results)."),
    ] = "leftovers",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only runs on this data set.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Only runs of this method.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only records with this status.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Options of clean."""


def pack(
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Only records of this suite. Default: all there are."),
    ] = None,
) -> None:
    """Options of pack and unpack."""


def contract(
    file: Annotated[
        Path, typer.Argument(help="The module: a .py file, a package, or a folder of modules.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="ID.PARAMETER=VALUE to try it with. Repeatable."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", help="text or json (on standard output).")
    ] = "text",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of commands that try the contract."""
