"""What a default run asks for while it decides: trainings, done at once or in step with others.

A run is a generator. It yields what is to be trained and is sent what came of it, so what it
decides is written once, whether it is alone or goes on in step with other runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .stacked import shape_of

if TYPE_CHECKING:
    import torch

    from .fit import Fit
    from .search import Search

T = TypeVar("T")


@dataclass(frozen=True)
class Learn:
    """Run a search; answered by its curves."""

    search: Search
    epochs: int

    def alone(self) -> dict[str, list[float]]:
        """The answer, without others."""
        return self.search.run(self.epochs)

    def shape(self) -> tuple[Any, ...]:
        """What is the same in all that are done in step."""
        search = self.search
        return search.count, *shape_of(search.cells), search.settings.shared(), self.epochs

    @staticmethod
    def together(asked: Sequence[Learn]) -> list[dict[str, list[float]]]:
        """The answers of several of one shape."""
        from .searches import Searches

        return Searches([each.search for each in asked]).run(asked[0].epochs)


@dataclass(frozen=True)
class HeldOut:
    """Try a panel on cells that its networks have not seen; answered as by `Fit.held_out`."""

    fit: Fit
    seen: torch.Tensor
    rates: tuple[float, ...]
    epochs: int

    def alone(self) -> torch.Tensor:
        """As of `Learn`."""
        return self.fit.held_out(self.seen, self.rates, self.epochs)

    def shape(self) -> tuple[Any, ...]:
        """As of `Learn`."""
        fit, count = self.fit, len(self.seen) * len(self.rates)
        return count, *shape_of(fit.cells), fit.hidden, fit.settings.shared(), self.epochs

    @staticmethod
    def together(asked: Sequence[HeldOut]) -> list[torch.Tensor]:
        """As of `Learn`."""
        from .fits import Fits

        jobs = [each.fit.folds(each.seen, each.rates) for each in asked]
        return [
            each.fit.losses_of(nets, each.seen, len(each.rates))
            for each, nets in zip(asked, Fits(jobs).run(asked[0].epochs), strict=True)
        ]


@dataclass(frozen=True)
class Finish:
    """Train a predictor; answered by its networks."""

    fit: Fit
    rate: float
    epochs: int

    def alone(self) -> Any:
        """As of `Learn`."""
        return self.fit.finish(self.rate, self.epochs)

    def shape(self) -> tuple[Any, ...]:
        """As of `Learn`."""
        fit = self.fit
        return *shape_of(fit.cells), fit.hidden, fit.settings.shared(), self.epochs

    @staticmethod
    def together(asked: Sequence[Finish]) -> list[Any]:
        """As of `Learn`."""
        from .fits import Fits

        return Fits([each.fit.members(each.rate) for each in asked]).run(asked[0].epochs)


Asked: TypeAlias = Learn | HeldOut | Finish
Deciding: TypeAlias = Generator[Asked, Any, T]
"""Part of a run that ends with a T."""


def alone(run: Deciding[T]) -> T:
    """Do a run by itself."""
    answer: Any = None
    while True:
        try:
            asked = run.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = asked.alone()


def in_step(runs: Sequence[Deciding[T]]) -> list[T]:
    """Do runs side by side: what they ask for at a time is trained together where it fits."""
    answers: dict[int, Any] = dict.fromkeys(range(len(runs)))
    found: dict[int, T] = {}
    while answers:
        alike: dict[Any, list[tuple[int, Any]]] = defaultdict(list)
        for number, answer in answers.items():
            try:
                asked = runs[number].send(answer)
            except StopIteration as end:
                found[number] = end.value
            else:
                alike[type(asked), asked.shape()].append((number, asked))
        answers = {}
        for (kind, _), several in alike.items():
            numbers, questions = zip(*several, strict=True)
            answers |= dict(zip(numbers, kind.together(questions), strict=True))
    return [found[number] for number in range(len(runs))]
