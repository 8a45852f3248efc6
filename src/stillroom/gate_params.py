"""The gate in params.yaml: what a student must prove on the test rows, over all of them and over named parts."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from stillroom.pattern import compiled
from stillroom.section import Section, check_given_name

Kept = Annotated[float, Field(gt=0.0, le=1.0)]
MetricName = Literal["accuracy", "macro_f1"]
Retention = Annotated[dict[MetricName, Kept], Field(min_length=1)]
"""Metric → the least that student ÷ teacher may be."""


class ClassRecallParams(Section):
    """A floor under the recall of every class, relative to the teacher's on the same rows."""

    floor: Kept = 0.9
    """The least that student's recall ÷ teacher's may be in any class."""
    significance: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Chance, at most, that any class is failed though all of them truly reach the floor (after Holm's correction)."""


class SliceParams(Section):
    """A part of the test rows, by their texts or by a column, in which the student must keep the teacher's accuracy
    too."""

    pattern: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Regular expression (the syntax of the package regex, as of re): texts in which it is found anywhere."""
    min_chars: Annotated[int, Field(ge=0)] | None = None
    """Texts of so many characters at least."""
    max_chars: Annotated[int, Field(ge=0)] | None = None
    """Texts of so many characters at most."""
    column: Annotated[str, Field(min_length=1)] | None = None
    """A further column of the file that test rows come from: data.test or, without one, data.source."""
    values: tuple[bool | int | str, ...] = ()
    """Rows that have one of these there."""
    retention: Kept | None = None
    """The least that student's accuracy ÷ teacher's may be here; default, gate.retention.accuracy."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            compiled(value)
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        has_length = self.min_chars is not None or self.max_chars is not None
        if (self.pattern is not None) + has_length + (self.column is not None) != 1:
            raise ValueError("give either pattern, or min_chars and max_chars or one of these, or column and values")
        if (self.column is not None) != bool(self.values):
            raise ValueError("column and values go together; give both")
        if self.min_chars is not None and self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars is {self.min_chars} and max_chars {self.max_chars}; no text has such a length")
        return self


class GateParams(Section):
    """What a student must prove on the test rows."""

    retention: Retention = Field(default={"accuracy": 0.97})
    """Guarded metric → the least the lower bound of student ÷ teacher may be."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    resamples: Annotated[int, Field(ge=100)] = 10_000
    class_recall: ClassRecallParams | None = None
    slices: dict[str, SliceParams] = Field(default={})
    """Name → a part of the test rows that is judged by itself, by the same bounds."""
    max_latency_p95_ms: Annotated[float, Field(gt=0.0)] | None = None
    max_package_bytes: Annotated[int, Field(gt=0)] | None = None
    max_peak_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    max_load_ms: Annotated[float, Field(gt=0.0)] | None = None
    """Budget for start-up: a process of its own imports the runtime, loads the package and answers one text."""
    max_ece: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Budget for the expected calibration error."""
    max_flip_rate: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Share of test answers that may differ from the champion's; a student beyond it is not promoted by itself."""
    approval: Literal["auto", "human"] = "auto"
    """Who makes a student that passed champion: the run itself, or a person. A high-risk use (governance.ai_act)
    always needs a person."""
    four_eyes: bool = False
    """Whether a person must, and another one than the author of the run."""

    @model_validator(mode="after")
    def _slices_have_floors(self) -> Self:
        for name, part in self.slices.items():
            check_given_name(name, "slices", "slice")
            if part.retention is None and "accuracy" not in self.retention:
                raise ValueError(f"slices.{name}.retention is missing, and there is no retention.accuracy to take")
        return self
