"""Seed to seed: how far apart students are that differ in nothing but the seed of their training.

A bound of the gate says what other test rows would have shown of this very package; the spread says what another
training of the same recipe would have given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.gate.evidence import Evaluation
from stillroom.gate_params import MetricName
from stillroom.student_params import AutoParams, Student


@dataclass(frozen=True)
class Spread:
    """Of one figure; deviation: the standard deviation of a sample (n - 1)."""

    mean: float
    deviation: float
    least: float
    most: float


@dataclass(frozen=True)
class SeedSpread:
    """Students of equal settings, their seeds, and the spread of their accuracy and of each retention that all have."""

    students: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: Spread
    retention: dict[MetricName, Spread]


def twins(students: Mapping[str, Student], seed: int) -> Iterator[dict[str, int]]:
    """Students of equal settings with their seeds, by name, wherever there are two seeds or more; each seed once.
    seed: of students that name none."""
    seen: set[str] = set()
    for name, student in students.items():
        if isinstance(student, AutoParams) or name in seen:
            continue
        found = {name: seed if student.seed is None else student.seed}
        for other, its in students.items():
            if isinstance(its, AutoParams) or other == name or its.model_copy(update={"seed": student.seed}) != student:
                continue
            seen.add(other)
            own = seed if its.seed is None else its.seed
            if own not in found.values():
                found[other] = own
        if len(found) > 1:
            yield found


def spread(
    seeds: Mapping[str, int], evaluations: Mapping[str, Evaluation], retention: Mapping[str, Mapping[MetricName, float]]
) -> SeedSpread:
    """The spread among these students. retention: by student and metric."""
    metrics = [metric for metric in retention[next(iter(seeds))] if all(metric in retention[name] for name in seeds)]
    return SeedSpread(
        tuple(seeds),
        tuple(seeds.values()),
        _of([evaluations[name].metrics.accuracy for name in seeds]),
        {metric: _of([retention[name][metric] for name in seeds]) for metric in metrics},
    )


def _of(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)), min(values), max(values))
