"""What an encoder does not allow its students, told before a teacher is trained."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from stillroom.cache.codecs import asked_for
from stillroom.errors import InputError
from stillroom.params import Params
from stillroom.student_params import NarrowParams, PretrainedParams, SlicedParams
from stillroom.students.projection import narrow_config
from stillroom.students.sliced import lower_layers
from stillroom.teacher.inference import layers_named
from stillroom.teacher.model import load_encoder


def check_allowed(params: Params, teacher: Path, starts: Mapping[str, Path]) -> None:
    """Raise InputError for layers, widths and signals that the teacher's encoder, or a student's own, does not have.

    teacher: folder of its checkpoint; starts: of those of students, by their section. A search leaves out by itself
    what is not allowed.
    """
    load = cache(load_encoder)
    numbers = [signal.layer for signal in asked_for(params.capture.signals) if signal.layer is not None]
    if numbers:
        layers_named(load(teacher), numbers)
    for name, student in params.students.items():
        if isinstance(student, SlicedParams):
            _named(name, lower_layers, load(teacher), student.layers, "the teacher")
        elif isinstance(student, NarrowParams):
            _named(name, narrow_config, load(teacher), student.width, student.layers, 1, 0)
        elif isinstance(student, PretrainedParams) and student.layers is not None:
            own = load(starts[f"students.{name}.checkpoint"])
            _named(name, lower_layers, own, student.layers, "the checkpoint")


def _named(name: str, check: Callable[..., object], *asked: object) -> None:
    """Call a check, and have its error name the student."""
    try:
        check(*asked)
    except InputError as error:
        raise InputError(f"params.yaml: students.{name}: {error}") from error
