"""Search the cheapest student whose package holds on validation what is asked.

Levels are tried from cheap to dear, by the families' cost model. Of a level the default recipe is trained whole; where
it comes near, its other recipes are trained for a part of the epochs, and the better half of them whole (successive
halving, Jamieson and Talwalkar, arXiv 1502.07943). The search ends at the first level that holds. Every trial is
packaged and measured as what ships would be, on validation rows, and kept, so that a killed search goes on.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from stillroom import events
from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.student_params import AutoParams, FixedStudent
from stillroom.students.family import Cost
from stillroom.students.shortlist import Level

TRIAL = "trial.json"
_SHARE_OF_EPOCHS = 3
"""A recipe is first trained for one part in so many of its epochs."""
_NEAR = 0.03
"""A level that misses the retention by more is left without trying its other recipes."""

log = logging.getLogger("stillroom")


class Measured(BaseModel):
    """A package on the validation rows: what it reaches, and what one text of theirs costs."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    fp32_accuracy: float
    latency_p50_ms: float
    latency_p95_ms: float
    size_bytes: int
    params: int
    quantisation: str
    seconds: float
    """Of training and packaging."""


class Trial(BaseModel):
    """One student tried. whole: trained for all its epochs; lacks: what it does not hold, in words."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: str
    settings: dict[str, object]
    whole: bool
    retention: float
    measured: Measured
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What a package must hold. teacher_accuracy: of the teacher on the same validation rows."""

    settings: AutoParams
    teacher_accuracy: float

    @property
    def retention(self) -> float:
        """Retention on validation, margin included."""
        return min(1.0, self.settings.retention + self.settings.margin)

    def lacks(self, measured: Measured) -> tuple[str, ...]:
        """What a package does not hold, in words; empty where all holds."""
        found = []
        if (kept := measured.accuracy / self.teacher_accuracy) < self.retention:
            found.append(f"retention {kept:.4f} is below {self.retention:g}")
        return (*found, *self.beyond(measured))

    def beyond(self, measured: Measured) -> tuple[str, ...]:
        """Budgets that a package breaks, in words."""
        settings, found = self.settings, []
        if settings.max_latency_p95_ms is not None and measured.latency_p95_ms > settings.max_latency_p95_ms:
            found.append(f"p95 {measured.latency_p95_ms:.3g} ms is above {settings.max_latency_p95_ms:g} ms")
        if settings.max_package_bytes is not None and measured.size_bytes > settings.max_package_bytes:
            found.append(f"package of {measured.size_bytes} bytes is above {settings.max_package_bytes}")
        return tuple(found)


@dataclass(frozen=True)
class Found:
    """The winner's settings, the folder of its trained student, and every trial."""

    settings: FixedStudent
    folder: Path
    trials: tuple[Trial, ...]


@dataclass
class Search:
    """A search under way. cost: of a student before it is trained; run: train, publish and package one in a folder."""

    asked: Asked
    scratch: Path
    cost: Callable[[FixedStudent], Cost]
    run: Callable[[FixedStudent, Path], Measured]
    trials: list[Trial] = field(default_factory=list)

    def find(self, levels: Sequence[Level]) -> Found:
        """The first student that holds, or the best of those within the budgets.

        Raises InputError where no student keeps within the budgets, naming the nearest that was reached.
        """
        self._check_reachable(levels)
        for level in sorted(levels, key=self._order):
            for trial in self._try(level):
                if trial.whole and not trial.lacks:
                    log.info("search: %s holds; %d trials", trial.name, len(self.trials))
                    return self._found(trial)
        within = [trial for trial in self.trials if trial.whole and not self.asked.beyond(trial.measured)]
        if not within:
            nearest = min(self.trials, key=self._excess)
            raise InputError(
                f"params.yaml: no family keeps within the budgets; nearest is {nearest.name} with "
                f"{nearest.measured.latency_p95_ms:.3g} ms (p95) and {nearest.measured.size_bytes} bytes; "
                "raise max_latency_p95_ms or max_package_bytes of the student, or name other families"
            )
        best = max(within, key=lambda trial: (trial.retention, -trial.measured.latency_p50_ms))
        log.info("search: none of %d trials holds; the best, %s, lacks: %s", len(self.trials), best.name, best.lacks[0])
        return self._found(best)

    def _order(self, level: Level) -> tuple[int, int]:
        cost = self.cost(level.candidates[0])
        return cost.flops_per_token, cost.params

    def _check_reachable(self, levels: Sequence[Level]) -> None:
        """Refuse before any training a size that not even the weights of the smallest student in int8 would have."""
        limit = self.asked.settings.max_package_bytes
        least = min(self.cost(student).params for level in levels for student in level.candidates)
        if limit is not None and least > limit:
            raise InputError(
                f"params.yaml: max_package_bytes is {limit}; the smallest student has {least} weights of one byte in "
                "int8, so ask for more than that, or lower max_vocabulary"
            )

    def _try(self, level: Level) -> Iterator[Trial]:
        first, *others = level.candidates
        trial = self._trial(level, 0, first)
        yield trial
        near = trial.retention >= self.asked.retention - _NEAR
        if not others or not near or self.asked.beyond(trial.measured):
            return
        tasted = [self._trial(level, number, student, whole=False) for number, student in enumerate(others, start=1)]
        yield from tasted
        tasted.sort(key=lambda short: -short.retention)
        for short in tasted[: (len(tasted) + 1) // 2]:
            number = int(short.name.rpartition("#")[2].partition("/")[0])
            yield self._trial(level, number, level.candidates[number])

    def _trial(self, level: Level, number: int, student: FixedStudent, whole: bool = True) -> Trial:
        """Run a trial, or read what an earlier process left of it."""
        name = f"{level.name}#{number}" + ("" if whole else f"/{_SHARE_OF_EPOCHS}")
        folder = self._folder(name)
        if not whole:
            student = student.model_copy(update={"epochs": max(1, student.epochs // _SHARE_OF_EPOCHS)})
        if (folder / TRIAL).is_file():
            trial = Trial.model_validate(read_json(folder / TRIAL))
        else:
            events.emit("trial", name=name)
            measured = self.run(student, folder)
            trial = Trial(
                name=name,
                level=level.name,
                settings=student.model_dump(mode="json"),
                whole=whole,
                retention=measured.accuracy / self.asked.teacher_accuracy,
                measured=measured,
                lacks=self.asked.lacks(measured),
            )
            write_json(folder / TRIAL, trial.model_dump(mode="json"))
        self.trials.append(trial)
        log.info(
            "search: %s retention %.4f, p95 %.3g ms, %d bytes%s",
            name,
            trial.retention,
            trial.measured.latency_p95_ms,
            trial.measured.size_bytes,
            f"; {'; '.join(trial.lacks)}" if trial.lacks else "",
        )
        return trial

    def _folder(self, name: str) -> Path:
        return self.scratch / name.replace("/", "-")

    def _found(self, trial: Trial) -> Found:
        settings: FixedStudent = TypeAdapter(FixedStudent).validate_python(trial.settings)
        return Found(settings, self._folder(trial.name), tuple(self.trials))

    def _excess(self, trial: Trial) -> float:
        settings, measured = self.asked.settings, trial.measured
        over = [0.0]
        if settings.max_latency_p95_ms is not None:
            over.append(measured.latency_p95_ms / settings.max_latency_p95_ms)
        if settings.max_package_bytes is not None:
            over.append(measured.size_bytes / settings.max_package_bytes)
        return max(over)
