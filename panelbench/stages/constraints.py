"""What a panel must keep to: genes that are on it or off it, their expression, cost, and classes.

Which genes a method may choose among is decided before it sees any (`candidates`); what a ranking
alone cannot promise is mended afterwards (`completion`). Both look at training cells only.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from panelbench.schema import Model

GROUPS: dict[str, tuple[str, ...]] = {
    "mitochondrial": ("MT-*", "mt-*"),
    "ribosomal": ("RPL[0-9]*", "RPS[0-9]*", "RPLP[0-9]*", "RPSA", "Rpl[0-9]*", "Rps[0-9]*",
                  "Rplp[0-9]*", "Rpsa"),
    "haemoglobin": ("HBA[12]", "HB[BDEGMQZ]", "HBG[12]", "HBE1", "HBQ1", "Hba-*", "Hbb-*",
                    "Hbq1?"),
}  # fmt: skip
"""Genes of human and mouse that are rarely wanted, by symbol."""


def _ordered(bounds: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = bounds
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lower bound {low:g} is above the upper bound {high:g}")
    return bounds


Bounds: TypeAlias = Annotated[tuple[float | None, float | None], AfterValidator(_ordered)]
"""Smallest and largest value; None for no bound."""
_FREE: Bounds = (None, None)


class Constraints(Model):
    """What every panel of a suite keeps to, whatever the method.

    include, exclude
        Genes that are always on the panel, counted within k; genes, patterns (``RP[LS]*``) or
        names of `GROUPS` that never are.
    mean, class_mean
        Bounds on the mean count of a gene per training cell: over all cells, or within the class
        where it is highest (a gene that is too high there crowds the others out of the image).
    detection, class_detection
        The same for the share of cells in which the gene is seen at all.
    costs, budget
        Cost of each gene, and the most that the genes of a panel may cost together. A gene without
        a cost cannot be ordered, and is no candidate.
    markers
        Genes on the panel, at least, that mark each class: AUROC of the class against the rest
        above `marker_auroc`, seen in more than `marker_detection` of its cells.
    task
        The task whose classes count; the first of the data set with classes otherwise.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mean: Bounds = _FREE
    class_mean: Bounds = _FREE
    detection: Bounds = _FREE
    class_detection: Bounds = _FREE
    costs: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    budget: Annotated[float, Field(gt=0)] | None = None
    markers: Annotated[int, Field(ge=0)] = 0
    marker_auroc: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    marker_detection: Annotated[float, Field(ge=0, lt=1)] = 0.2
    task: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Constraints:
        if (self.budget is None) == bool(self.costs):
            raise ValueError("costs and budget belong together")
        if len(set(self.include)) < len(self.include):
            raise ValueError("include: every gene only once")
        return self

    @property
    def by_size(self) -> bool:
        """Whether a panel's genes depend on its size beyond being the first of a ranking."""
        return self.budget is not None or self.markers > 0

    @property
    def by_mean(self) -> bool:
        """Whether means count."""
        return self.mean != _FREE or self.class_mean != _FREE

    @property
    def by_class(self) -> bool:
        """Whether classes have a part in it."""
        return self.markers > 0 or self.class_mean != _FREE or self.class_detection != _FREE
