"""Virtual environments of methods whose libraries clash with ours: made once, kept, called.

A method declares a `panelbench.method.Environment` and calls a script of its own in it::

    HERE = Path(__file__).parent

    @method("its-name", environment=Environment(("numpy==1.26.4", ...)), ...)
    def select(task: Task, params: Params) -> Selection:
        answer = call(task, HERE / "inside.py", {"X": task.X, "k": task.k})
        return Selection(task.genes[answer["order"]].tolist())

The script imports nothing of panelbench. Its function ``select`` takes the content and returns the
answer: mappings of names to arrays, CSR matrices and what JSON holds.
"""

from __future__ import annotations

from panelbench.environments.calls import call

__all__ = ["call"]
