"""Must-not-change cases: does a package give each of them exactly the demanded answer?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stillroom.data.cases import FILE, Cases
from stillroom.errors import InputError
from stillroom.gate.evidence import Evaluation, read_predictions
from stillroom.gate.findings import Finding
from stillroom.gate.metrics import checked
from stillroom.problem import choices, equal, problem_of

_TOLD = 5


@dataclass(frozen=True)
class CaseAnswers:
    """Whose answers are demanded, where each case stands in its file, and which were answered otherwise, bool [n]."""

    demanded: Literal["labels", "teacher"]
    place: Sequence[str]
    changed: NDArray[np.bool_]

    @cached_property
    def where(self) -> tuple[str, ...]:
        """The places of those that were answered otherwise."""
        return tuple(place for place, changed in zip(self.place, self.changed, strict=True) if changed)


def read_case_answers(
    folder: Path, evaluation: Evaluation, cases: Cases, digest: str, classes: int
) -> CaseAnswers | None:
    """A package's answers to the cases, from its evaluation folder; None without cases. digest: sha256 of their file.

    Raises InputError where the evaluation is of other cases, or where its answers are missing or damaged.
    """
    if not len(cases):
        return None
    if evaluation.cases_sha256 != digest:
        raise InputError(f"{folder}: answers other cases than those of data.cases; run evaluate again")
    path = folder / FILE
    columns = read_predictions(path, ["student"])
    demanded, shares = checked(columns["label"], columns["student"], str(path))
    if shares.shape != (len(cases), classes):
        raise InputError(f"{path}: answers have shape {shares.shape}, not {(len(cases), classes)}; run evaluate again")
    changed = ~equal(choices(shares, problem_of(demanded)), demanded)
    return CaseAnswers("teacher" if cases.label is None else "labels", cases.place, changed)


def unchanged(answers: CaseAnswers) -> Finding:
    """A single case that is answered otherwise fails: what must not change is no matter of shares."""
    whose = "the label's" if answers.demanded == "labels" else "the teacher's"
    where = answers.where
    if not where:
        return Finding("PASS", f"cases: all {len(answers.place):,} answers are {whose}")
    more = f" and {len(where) - _TOLD:,} more" if len(where) > _TOLD else ""
    told = f"{len(where):,} of {len(answers.place):,} answers are not {whose}"
    return Finding("FAIL", f"cases: {told}: {', '.join(where[:_TOLD])}{more} of data.cases")
