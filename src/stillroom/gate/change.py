"""What would change if a candidate took the champion's place: both answer the same test rows."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from stillroom.errors import InputError
from stillroom.gate.statistics import Ints, cells
from stillroom.gate.uncertainty import agreement_bounds, mcnemar
from stillroom.gate.verdict import Bounds
from stillroom.problem import ProblemType

Answer = tuple[str, ...]
"""The labels of a text by name: one, or any number."""


class ClassChange(BaseModel):
    """Test rows with a label that only one of the two answers rightly."""

    model_config = ConfigDict(frozen=True)

    gained: int
    lost: int


class Change(BaseModel):
    """A candidate beside the champion on the same test rows.

    flips: share of rows whose answer changes, with one-sided bounds (see agreement_bounds); gained, lost: rows that
    only the candidate, only the champion answers rightly, and McNemar's exact two-sided p-value that neither is
    commoner; classes: where those rows are, most lost first.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    confidence: float
    flips: Bounds
    gained: int
    lost: int
    p_value: float
    candidate_accuracy: float
    champion_accuracy: float
    classes: dict[str, ClassChange]

    def in_words(self) -> str:
        """One line."""
        return (
            f"{self.flips.point:.2%} of {self.rows:,} test answers change (at most {self.flips.upper:.2%} with "
            f"{self.confidence:.0%} confidence): {self.gained} gained, {self.lost} lost (p = {self.p_value:.2g}), "
            f"accuracy {self.champion_accuracy:.4f} → {self.candidate_accuracy:.4f}"
        )


def answers(choice: Ints, names: Sequence[str], problem: ProblemType) -> list[Answer]:
    """Labels or choices (see stillroom.problem) by name, in an order that does not depend on that of the classes."""
    if problem == "single_label":
        return [(names[c],) for c in choice.tolist()]
    return [tuple(sorted(names[c] for c in np.flatnonzero(row).tolist())) for row in choice]


def compare(
    labels: Sequence[Answer], champion: Sequence[Answer], candidate: Sequence[Answer], confidence: float
) -> Change:
    """Compare answers to the same rows, in the same order; the models' classes may differ, names are what counts.

    Raises InputError for no rows, or for numbers of rows that differ.
    """
    sizes = {len(labels), len(champion), len(candidate)}
    if len(sizes) != 1 or not labels:
        raise InputError(f"gate: labels, champion and candidate have {sorted(sizes)} rows; give the same rows of each")
    number = {answer: place for place, answer in enumerate(sorted({*labels, *champion, *candidate}))}
    sample = cells(*([number[answer] for answer in column] for column in (labels, champion, candidate)))
    same, lower, upper = agreement_bounds(sample, confidence)
    lost, gained, p_value = mcnemar(sample)
    won, gone = Counter[str](), Counter[str]()
    for label, before, after in zip(labels, champion, candidate, strict=True):
        if (before == label) != (after == label):
            (won if after == label else gone).update(label or ("no label",))
    return Change(
        rows=sample.rows,
        confidence=confidence,
        flips=Bounds(point=1 - same, lower=1 - upper, upper=1 - lower),
        gained=gained,
        lost=lost,
        p_value=p_value,
        candidate_accuracy=sum(map(_equal, labels, candidate)) / sample.rows,
        champion_accuracy=sum(map(_equal, labels, champion)) / sample.rows,
        classes={
            name: ClassChange(gained=won[name], lost=gone[name])
            for name in sorted({*won, *gone}, key=lambda name: (-gone[name], name))
        },
    )


def _equal(first: Answer, second: Answer) -> bool:
    return first == second
