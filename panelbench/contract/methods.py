"""The rules that every method keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from panelbench.contract import tasks
from panelbench.contract.imports import imports_late, imports_only, own_files
from panelbench.contract.rules import NotAsked, Rules, demand, lacking
from panelbench.contract.watch import leaves_random_states, starts_no_process
from panelbench.errors import Fault, NotApplicable
from panelbench.method import Matrix, Method, Predictor, Selection, Target, Task
from panelbench.ranking import gene_variances
from panelbench.stages.selection import (
    check,
    outputs,
    read_of,
    resolve_device,
    saved_predictor,
)

OFFERED = ("method", "ranking", "errors", "nn", "environments")
"""Parts of panelbench that a method may import."""


class MethodTrial:
    """A method that is tried on small planted data, with its quick parameters.

    Parameters
    ----------
    method
        The method.
    given
        Parameters to try it with; the others are the defaults, epochs cut to 3.
    """

    def __init__(self, method: Method, given: Mapping[str, Any] | None = None) -> None:
        self.method = method
        self.params = tasks.quick_params(method, given)

    @property
    def files(self) -> set[str]:
        """Files of the method's own code."""
        return {str(path) for path in own_files(self.method.module).values()}

    @property
    def hindrance(self) -> str:
        """What is missing on this machine, if anything."""
        try:
            resolve_device(self.method, "auto")
            tasks.python_for(self.method)
        except (NotApplicable, Fault) as error:
            return str(error)
        return lacking(self.method.libraries)

    def task(self, **options: Any) -> Task:
        """A task (see `tasks.make_task`); a method that refuses classes gets numbers."""
        if not self.takes_classes and not self.method.expression:
            options.setdefault("target", tasks.expression())
        return tasks.make_task(self.method, **options)

    def run(self, **options: Any) -> tuple[Task, Selection]:
        """Run it on such a task."""
        task = self.task(**options)
        return task, self.method.select(task, self.params)

    @cached_property
    def usual(self) -> tuple[Task, Selection]:
        """The run that others are compared with."""
        return self.run()

    @cached_property
    def takes_classes(self) -> bool:
        """Whether it takes class labels, which a method for regression may refuse."""
        if self.method.expression:
            return False
        if not (self.method.supervised and self.method.regression):
            return True
        try:
            self.method.select(tasks.make_task(self.method), self.params)
        except NotApplicable:
            return False
        return True

    def predictor(self) -> Predictor:
        """The predictor of the usual run, once saved and loaded."""
        found = self.usual[1].predictor
        if found is None or self.method.predictor is None:
            raise NotAsked("returns no predictor")
        return self.method.predictor.load(*found.save())


RULES: Rules[MethodTrial] = Rules()


def _ranking(run: tuple[Task, Selection], k: int | None = None) -> list[str]:
    return [str(gene) for gene in run[1].ranking][:k]


def _checked(trial: MethodTrial, run: tuple[Task, Selection]) -> None:
    """What is checked after every run, and that genes are texts."""
    task, found = run
    check(found, task, trial.method)
    strange = [gene for gene in found.ranking if not isinstance(gene, str)]
    demand(not strange, f"ranks {strange[:1]}: genes are ranked by name, as in task.genes")


@RULES.rule
def says_what_it_is(trial: MethodTrial) -> None:
    """It has a label, a docstring of a sentence and limits above zero."""
    method = trial.method
    demand(method.label, "has no label")
    demand(len(method.doc) > 20, "the function has no docstring that says what it does")
    demand(method.needs in ("counts", "lognorm", "binary", "prepared"), f"needs={method.needs!r}")
    demand(method.minutes > 0 and method.memory_gb > 0, "minutes or memory_gb are not above 0")


@RULES.rule
def imports_what_is_offered(trial: MethodTrial) -> None:
    """Of panelbench its module imports method, ranking, errors, nn and environments only."""
    imports_only(trial.method.module, OFFERED)


@RULES.rule
def imports_heavy_libraries_late(trial: MethodTrial) -> None:
    """Heavy libraries (torch, scanpy, ...) are imported inside functions."""
    imports_late(trial.method.module)


@RULES.rule
def ranks_known_genes_once(trial: MethodTrial) -> None:
    """It ranks at least k genes of the task by name, each once; scores are finite."""
    _checked(trial, trial.usual)


@RULES.rule
def serves_every_k(trial: MethodTrial) -> None:
    """It serves k = 1, fewer genes than classes, and all genes."""
    for k in (1, tasks.N_CLASSES - 1, tasks.N_GENES):
        _checked(trial, trial.run(k=k))


@RULES.rule
def same_seed_same_ranking(trial: MethodTrial) -> None:
    """The same seed gives the same ranking."""
    _needs_determinism(trial)
    same = _ranking(trial.run()) == _ranking(trial.usual)
    demand(same, "two runs with one seed rank differently; take all randomness from "
                 "task.rng('purpose'), or declare deterministic=False")  # fmt: skip


def _needs_determinism(trial: MethodTrial) -> None:
    if not trial.method.deterministic:
        raise NotAsked("declared not deterministic")


@RULES.rule
def leaves_inputs_alone(trial: MethodTrial) -> None:
    """It writes into nothing that it is given."""
    for sparse in (False, True):
        task, _ = trial.run(sparse=sparse)
        fresh = tasks.make_task(trial.method, sparse=sparse, target=_numbers_of(task))
        for name in ("X", "counts", "inputs"):
            demand(_same(getattr(task, name), getattr(fresh, name)), f"changes task.{name}")
        demand(task.genes.tolist() == fresh.genes.tolist(), "changes task.genes")
        for name, target in fresh.targets.items():
            same = np.array_equal(task.targets[name].values, target.values)
            demand(same, f"changes the labels of {name}")


def _numbers_of(task: Task) -> Target | None:
    target = next(iter(task.targets.values()), None)
    return target if target is not None and target.kind != "classification" else None


def _same(a: Matrix, b: Matrix) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return all(np.array_equal(getattr(a, p), getattr(b, p)) for p in ("data", "indices", "indptr"))


@RULES.rule
def sparse_as_dense(trial: MethodTrial) -> None:
    """Expression as CSR gives the same ranking as an array."""
    k = trial.usual[0].k
    same = _ranking(trial.run(sparse=True), k) == _ranking(trial.usual, k)
    demand(same, "ranks other genes when task.X is a CSR matrix; task.dense() gives an array")


@RULES.rule
def reads_its_labels(trial: MethodTrial) -> None:
    """With shuffled labels a supervised method ranks otherwise."""
    if not trial.method.supervised:
        raise NotAsked("declared unsupervised: it gets no labels")
    if trial.method.expression:
        other = not _same_result(trial, trial.run(target=tasks.outputs(reverse=True)))
        demand(other, "predicts and ranks the same when every output has the values of another")
        return
    order = np.random.default_rng(5).permutation(tasks.N_CELLS)
    if not trial.takes_classes:
        shuffled = trial.run(target=tasks.expression(order))
    else:
        shuffled = trial.run(target=tasks.cell_type(tasks.labels()[order]))
    # A method of several tasks is asked for the one whose labels are shuffled.
    plain = trial.run(target=tasks.cell_type()) if trial.method.multitask else trial.usual
    other = _ranking(plain) != _ranking(shuffled)
    demand(other, "shuffled labels change nothing; declare supervised=False if it reads none")


def _same_result(trial: MethodTrial, other: tuple[Task, Selection]) -> bool:
    """Whether a run ranks and predicts what the usual one does, from the usual inputs."""
    predicted = []
    for _, found in (trial.usual, other):
        task = trial.usual[0]
        if found.predictor is not None:
            X = read_of(task, found.predictor, trial.method)
            predicted.append(outputs(found.predictor, task.target, X))
    return _ranking(trial.usual) == _ranking(other) and (
        not predicted or np.array_equal(predicted[0], predicted[1])
    )


@RULES.rule
def reads_inputs_only(trial: MethodTrial) -> None:
    """A method that reads inputs gives the same whatever the expression beside its targets is."""
    if trial.method.reads != "inputs":
        raise NotAsked("declared to read genes")
    other = trial.run(matrix=np.ones_like(tasks.counts()), target=trial.usual[0].target)
    demand(_same_result(trial, other), "task.X changes what it finds; declare reads='genes'")


@RULES.rule
def copes_with_missing_outputs(trial: MethodTrial) -> None:
    """A cell may lack some outputs; its other outputs stay, and all predictions are numbers."""
    if not trial.method.expression:
        raise NotAsked("takes no expression targets")
    run = trial.run(target=tasks.outputs(missing=True))
    _checked(trial, run)
    saved_predictor(run[1], run[0], trial.method)
    demand(not _same_result(trial, run), "missing outputs change nothing")


@RULES.rule
def copes_with_rare_classes(trial: MethodTrial) -> None:
    """A class may have one training cell, or none."""
    if not (trial.method.supervised and trial.takes_classes):
        raise NotAsked("takes no classes")
    codes = tasks.labels().copy()
    codes[0] = 4  # class 4 has one training cell, class 3 none
    _checked(trial, trial.run(target=tasks.cell_type(codes, classes=5)))


@RULES.rule
def constant_genes_come_last(trial: MethodTrial) -> None:
    """No gene that has one value in all cells stands above one that varies."""
    if not trial.method.nested:
        raise NotAsked("may rank k genes only")
    task, _ = trial.usual
    constant = set(task.genes[gene_variances(task.X) == 0].tolist())
    flags = [gene in constant for gene in _ranking(trial.usual)]
    demand(flags == sorted(flags), "a constant gene stands above one that varies; "
                                   "panelbench.ranking has what turns scores into a ranking"
           )  # fmt: skip


@RULES.rule
def nested_means_prefix(trial: MethodTrial) -> None:
    """The first genes of a nested ranking do not depend on the k asked for."""
    if not trial.method.nested:
        raise NotAsked("declared not nested")
    same = _ranking(trial.run(k=5), 5) == _ranking(trial.usual, 5)
    demand(same, "the first 5 genes are others for k = 5 than for k = 10; declare nested=False")


@RULES.rule
def workers_change_nothing(trial: MethodTrial) -> None:
    """Two jobs give the same ranking as one."""
    _needs_determinism(trial)
    same = _ranking(trial.run(n_jobs=2)) == _ranking(trial.usual)
    demand(same, "ranks otherwise with n_jobs = 2")


@RULES.rule
def together_as_alone(trial: MethodTrial) -> None:
    """Runs that it answers together get the answers that they get alone, to the last bit."""
    together = trial.method.together
    if together is None:
        raise NotAsked("answers one run at a time")
    _needs_determinism(trial)
    several = [trial.usual[0], trial.task(k=tasks.N_CLASSES, seed=1)]
    several.append(tasks.first_cells(trial.task(seed=2), tasks.N_CELLS - 20))
    found = list(together(several, [trial.params] * len(several)))
    demand(len(found) == len(several), f"gives {len(found)} answers to {len(several)} tasks")
    for task, answer in zip(several, found, strict=True):
        check(answer, task, trial.method)
        usual, answered = trial.usual
        alone = answered if task is usual else trial.method.select(task, trial.params)
        what = f"k = {task.k}, seed {task.seed}, {task.n_cells} cells"
        demand(_ranking((task, answer)) == _ranking((task, alone)),
               f"ranks otherwise in a group ({what})")  # fmt: skip
        demand(_content(answer) == _content(alone), f"scores or predicts otherwise ({what})")


def _content(found: Selection) -> tuple[Any, ...]:
    """Scores and predictor of a selection, to be compared bit by bit."""
    scores = None if found.scores is None else np.asarray(found.scores).tobytes()
    arrays = {} if found.predictor is None else found.predictor.save()[0]
    return scores, {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


@RULES.rule
def one_job_starts_no_process(trial: MethodTrial) -> None:
    """With one job it starts neither a process nor a program."""
    if trial.method.environment is not None:
        raise NotAsked("runs a script in an environment of its own")
    _ = trial.usual  # whatever is imported is imported now
    starts_no_process(lambda: trial.run(n_jobs=1))


@RULES.rule
def global_random_states_stay(trial: MethodTrial) -> None:
    """It neither seeds nor uses the random state of numpy, torch or random."""
    _ = trial.usual
    leaves_random_states(trial.run)


@RULES.rule
def info_is_json(trial: MethodTrial) -> None:
    """What it keeps in info can be written as JSON."""
    _as_json(trial.usual[1].info, "info")


def _as_json(value: Mapping[str, Any], what: str) -> Any:
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        demand(False, f"{what} cannot be written as JSON: {error}")


@RULES.rule
def predictor_survives_saving(trial: MethodTrial) -> None:
    """Saved as arrays and JSON and loaded again, its predictor predicts the same."""
    task, found = trial.usual
    kind = trial.method.predictor
    if found.predictor is None and kind is None:
        raise NotAsked("returns no predictor")
    saved_predictor(found, task, trial.method)
    assert found.predictor is not None and kind is not None
    demand(isinstance(found.predictor, kind), f"returns another predictor than {kind.__name__}")
    arrays, facts = found.predictor.save()
    strange = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    demand(not strange, f"saves {strange} that are no arrays")
    copies = {name: value.copy() for name, value in arrays.items()}
    loaded = kind.load(copies, _as_json(facts, "what save() returns beside the arrays"))
    demand(list(loaded.genes) == list(found.predictor.genes), "loses its genes by saving")
    X = read_of(task, loaded, trial.method)
    for name, target in task.targets.items():
        same = np.array_equal(outputs(loaded, target, X), outputs(found.predictor, target, X))
        demand(same, f"its predictor for {name} changes when saved and loaded")


@RULES.rule
def predicts_in_every_mode(trial: MethodTrial) -> None:
    """Its predictor predicts in each declared mode, in the first as returned."""
    if not trial.method.modes:
        raise NotAsked("declares no modes")
    task, loaded = trial.usual[0], trial.predictor()
    for mode in trial.method.modes:
        reader = loaded.in_mode(mode)  # type: ignore[attr-defined]
        for name, target in task.targets.items():
            found = outputs(reader, target, read_of(task, reader, trial.method))
            plain = outputs(loaded, target, read_of(task, loaded, trial.method))
            same = mode != trial.method.modes[0] or np.array_equal(found, plain)
            demand(same, f"predicts {name} in the mode {mode} otherwise than as returned")


@RULES.rule
def reconstructs_all_genes(trial: MethodTrial) -> None:
    """A predictor that reconstructs gives finite values of all genes in their order."""
    if not trial.method.reconstructs:
        raise NotAsked("declares no reconstruction")
    task, loaded = trial.usual[0], trial.predictor()
    again = np.asarray(loaded.reconstruct(read_of(task, loaded, trial.method)))  # type: ignore[attr-defined]
    expected = (task.n_cells, task.n_genes)
    demand(again.shape == expected, f"its reconstruction has shape {again.shape}, not {expected}")
    demand(np.isfinite(again).all(), "its reconstruction is not finite")
