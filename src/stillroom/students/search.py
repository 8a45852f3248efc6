"""Search the cheapest student whose package holds on validation what is asked.

Levels are tried from cheap to dear, by the families' cost model. Of a level the default recipe is trained whole; where
it comes near, its other recipes are trained for a part of the epochs, and the better half of them whole (successive
halving, Jamieson and Talwalkar, arXiv 1502.07943). The search ends at the first level that holds. Every trial is
packaged and measured as what ships would be, on validation rows, and kept, so that a killed search goes on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from stillroom import events
from stillroom.errors import Diverged, InputError
from stillroom.files import read_json, write_json
from stillroom.gate_params import MetricName
from stillroom.student_params import AutoParams, FixedStudent
from stillroom.students.family import Cost
from stillroom.students.shortlist import Level

TRIAL = "measured.json"
_SHARE_OF_EPOCHS = 3
"""A recipe is first trained for one part in so many of its epochs."""
_NEAR = 0.03
"""A level that misses a retention by more is left without trying its other recipes."""

log = logging.getLogger("stillroom")


class Measured(BaseModel):
    """A package on the validation rows: what it reaches, and what one text of theirs costs."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    macro_f1: float
    fp32_accuracy: float
    latency_p50_ms: float
    latency_p95_ms: float
    size_bytes: int
    params: int
    quantisation: str
    seconds: float
    """Of training and packaging."""


class Trial(BaseModel):
    """One student tried.

    whole: trained for all its epochs; cost: by the family's model; retention: of the metric that has least to spare;
    lacks: what it does not hold, in words; measured and retention: None where it could not be trained or packaged,
    which `lacks` then tells.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    level: str
    settings: dict[str, object]
    whole: bool
    cost: dict[str, int]
    measured: Measured | None
    retention: float | None
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What a package must hold. teacher: its metrics on the same validation rows.

    Raises InputError for a metric that the teacher has none of.
    """

    settings: AutoParams
    teacher: Mapping[str, float]

    def __post_init__(self) -> None:
        for metric in self.settings.retained:
            if not self.teacher[metric]:
                raise InputError(
                    f"the teacher's {metric} on the validation rows is 0, so that its retention is undefined; have "
                    "gate.retention and the search's name another metric"
                )

    def least(self, metric: MetricName) -> float:
        """Retention on validation that is asked of a metric, margin included."""
        return min(1.0, self.settings.retained[metric] + self.settings.margin)

    def kept(self, measured: Measured) -> dict[MetricName, float]:
        """Retention of every metric that is asked for, the one with least to spare first."""
        found = {metric: getattr(measured, metric) / self.teacher[metric] for metric in self.settings.retained}
        return dict(sorted(found.items(), key=lambda one: one[1] - self.least(one[0])))

    def spare(self, measured: Measured) -> float:
        """By how much the retention with least to spare is above what is asked; negative below it."""
        metric, kept = next(iter(self.kept(measured).items()))
        return kept - self.least(metric)

    def lacks(self, measured: Measured) -> tuple[str, ...]:
        """What a package does not hold, in words; empty where all holds."""
        found = [
            f"retention of {metric} {kept:.4f} is below {self.least(metric):g}"
            for metric, kept in self.kept(measured).items()
            if kept < self.least(metric)
        ]
        return (*found, *self.beyond(measured))

    def beyond(self, measured: Measured) -> tuple[str, ...]:
        """Budgets that a package breaks, in words."""
        settings, found = self.settings, []
        if self.is_too_slow(measured):
            found.append(f"p95 {measured.latency_p95_ms:.3g} ms is above {settings.max_latency_p95_ms:g} ms")
        if settings.max_package_bytes is not None and measured.size_bytes > settings.max_package_bytes:
            found.append(f"package of {measured.size_bytes} bytes is above {settings.max_package_bytes}")
        return tuple(found)

    def is_too_slow(self, measured: Measured) -> bool:
        """Whether a package breaks the budget of latency."""
        limit = self.settings.max_latency_p95_ms
        return limit is not None and measured.latency_p95_ms > limit

    def excess(self, measured: Measured) -> float:
        """How many times a package takes what the tightest of its budgets allows."""
        limits = (
            (measured.latency_p95_ms, self.settings.max_latency_p95_ms),
            (measured.size_bytes, self.settings.max_package_bytes),
        )
        return max((value / limit for value, limit in limits if limit is not None), default=0.0)


@dataclass(frozen=True)
class Found:
    """The winner's settings, the folder of its trained student, and every trial."""

    settings: FixedStudent
    folder: Path
    trials: tuple[Trial, ...]


@dataclass
class Search:
    """A search under way.

    tokens: of a text, in the mean; cost: of a student before it is trained; folder: of a trial's files, by its
    settings; run: train, publish and package a student in that folder.
    """

    asked: Asked
    tokens: float
    cost: Callable[[FixedStudent], Cost]
    folder: Callable[[FixedStudent], Path]
    run: Callable[[FixedStudent, Path], Measured]
    trials: list[Trial] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def find(self, levels: Sequence[Level]) -> Found:
        """The first student that holds, or the best of those within the budgets.

        Raises InputError where no student keeps within the budgets, naming the nearest that was reached; where none
        could be trained at all, the error of the first.
        """
        too_slow: set[str] = set()
        for level in self._from_cheap_to_dear(levels):
            family = level.candidates[0].family
            if family in too_slow:
                log.info("search: %s is left out: a cheaper %s is too slow already", level.name, family)
                continue
            for trial in self._try(level):
                if trial.whole and not trial.lacks:
                    log.info("search: %s holds; %d trials", trial.name, len(self.trials))
                    return self._found(trial)
                if trial.whole and trial.measured and self.asked.is_too_slow(trial.measured):
                    too_slow.add(family)
        return self._found(self._best())

    def _from_cheap_to_dear(self, levels: Sequence[Level]) -> list[Level]:
        """Levels by cost, without those that a teacher does not allow or whose weights alone exceed the package size.

        Raises InputError before any training where none is left.
        """
        limit = self.asked.settings.max_package_bytes
        costs: dict[str, Cost] = {}
        refused: dict[str, list[str]] = {}
        for level in levels:
            try:
                costs[level.name] = self.cost(level.candidates[0])
            except InputError as error:
                refused.setdefault(str(error), []).append(level.name)
        if not costs:
            raise InputError(next(iter(refused)))
        for why, names in refused.items():
            log.warning("search: %s left out: %s", ", ".join(names), why)
        fitting = [level for level in levels if level.name in costs]
        if limit is not None:
            fitting = [level for level in fitting if costs[level.name].params <= limit]
            least = min(cost.params for cost in costs.values())
            if not fitting:
                raise InputError(
                    f"params.yaml: max_package_bytes is {limit}; the smallest student has {least} weights of one byte "
                    "in int8, so ask for more than that, or lower max_vocabulary"
                )
        return sorted(fitting, key=lambda level: (costs[level.name].flops(self.tokens), costs[level.name].params))

    def _best(self) -> Trial:
        measured = [trial for trial in self.trials if trial.measured is not None]
        if not measured:
            raise self.failures[0]
        within = [trial for trial in measured if trial.whole and not self.asked.beyond(_of(trial))]
        if not within:
            nearest = min(measured, key=lambda trial: self.asked.excess(_of(trial)))
            raise InputError(
                f"params.yaml: no family keeps within the budgets; nearest is {nearest.name} with "
                f"{_of(nearest).latency_p95_ms:.3g} ms (p95) and {_of(nearest).size_bytes} bytes; "
                "raise max_latency_p95_ms or max_package_bytes of the student, or name other families"
            )
        best = max(within, key=lambda trial: (self.asked.spare(_of(trial)), -_of(trial).latency_p50_ms))
        log.info("search: none of %d trials holds; the best, %s, lacks: %s", len(self.trials), best.name, best.lacks[0])
        return best

    def _try(self, level: Level) -> Iterator[Trial]:
        first, *others = level.candidates
        trial = self._trial(level, 0, first)
        yield trial
        if (found := trial.measured) and (self.asked.spare(found) < -_NEAR or self.asked.beyond(found)):
            return
        tasted: list[tuple[float, int]] = []
        for number, student in enumerate(others, start=1):
            short = student.model_copy(update={"epochs": max(1, student.epochs // _SHARE_OF_EPOCHS)})
            trial = self._trial(level, number, short, whole=False)
            yield trial
            if trial.measured is not None:
                tasted.append((-self.asked.spare(trial.measured), number))
        for _, number in sorted(tasted)[: (len(tasted) + 1) // 2]:
            yield self._trial(level, number, level.candidates[number])

    def _trial(self, level: Level, number: int, student: FixedStudent, whole: bool = True) -> Trial:
        """Run a trial, or read what an earlier process left of it. One that fails is told, and the search goes on."""
        name = f"{level.name}#{number}" + ("" if whole else f"/{_SHARE_OF_EPOCHS}")
        events.emit("trial", name=name)
        measured: Measured | None = None
        try:
            measured = self._measured(student)
            lacks = self.asked.lacks(measured)
        except (Diverged, InputError) as error:
            self.failures.append(error)
            lacks = (f"failed: {error}",)
        trial = Trial(
            name=name,
            level=level.name,
            settings=student.model_dump(mode="json"),
            whole=whole,
            cost=asdict(self.cost(student)),
            measured=measured,
            retention=None if measured is None else next(iter(self.asked.kept(measured).values())),
            lacks=lacks,
        )
        self.trials.append(trial)
        if measured is None:
            log.warning("search: %s %s", name, lacks[0])
        else:
            figures = (trial.retention, measured.latency_p95_ms, measured.size_bytes)
            told = f"; {'; '.join(lacks)}" if lacks else ""
            log.info("search: %s retention %.4f, p95 %.3g ms, %d bytes%s", name, *figures, told)
        return trial

    def _measured(self, student: FixedStudent) -> Measured:
        folder = self.folder(student)
        if (folder / TRIAL).is_file():
            return Measured.model_validate(read_json(folder / TRIAL))
        measured = self.run(student, folder)
        write_json(folder / TRIAL, measured.model_dump(mode="json"))
        return measured

    def _found(self, trial: Trial) -> Found:
        settings: FixedStudent = TypeAdapter(FixedStudent).validate_python(trial.settings)
        return Found(settings, self.folder(settings), tuple(self.trials))


def _of(trial: Trial) -> Measured:
    assert trial.measured is not None
    return trial.measured
