"""Evaluations with their keys: hundreds of thousands of them in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panelbench.data.specs import TaskSpec
from panelbench.records.keys import ObjectDigest, canonical, library_versions, text_digest
from panelbench.stages.questions import EvaluateQuestion
from panelbench.suite.runs import EvaluateRun, SelectRun
from panelbench.suite.scoring_plan import Scorer
from panelbench.suite.specs import NoiseLevel


@dataclass(frozen=True)
class Asked:
    """What evaluations share that differ in their selection alone.

    Its digest is most of the work of planning one; what is shared is written once.
    """

    scorer: Scorer
    question: EvaluateQuestion
    identity: Mapping[str, Any]
    keyed: ObjectDigest
    unkeyed: str

    @classmethod
    def of(
        cls, scorer: Scorer, task: TaskSpec, k: int | None, seed: int, noise: float, code: str
    ) -> Asked:
        """Write what does not depend on the selection."""
        evaluator = scorer.evaluator
        question = EvaluateQuestion(
            select="",
            fold="",
            evaluator=evaluator.id,
            params=scorer.values,
            task=task,
            k=k,
            seed=seed,
            noise=noise,
        )
        asked = question.identity()
        identity = {
            "stage": "evaluate",
            **asked,
            "version": evaluator.version,
            "source": scorer.source,
            "code": code,
            "libraries": library_versions(evaluator.libraries),
        }
        unkeyed = canonical({**asked, "select": None, "fold": None})
        return cls(scorer, question, identity, ObjectDigest(identity, ("fold", "select")), unkeyed)

    def key(self, select: SelectRun) -> str:
        """Key of the evaluation of a selection."""
        return self.keyed(select.question.fold, select.key)

    def run(self, select: SelectRun, key: str, level: NoiseLevel) -> EvaluateRun:
        """The evaluation of a selection."""
        theirs = {"select": select.key, "fold": select.question.fold}
        question_digest = f"[{canonical(select.question_digest)},{self.unkeyed}]"
        return EvaluateRun(
            select=select,
            question=EvaluateQuestion(**{**vars(self.question), **theirs}),
            evaluator_variant=self.scorer.variant,
            identity={**self.identity, **theirs},
            key=key,
            question_digest=text_digest(question_digest),
            declared=self.scorer.evaluator,
            levels=(level,),
        )
