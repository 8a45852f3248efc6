"""Fixtures of the students' room: a published teacher, a snapshot of its answers, and what a student is made from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.cache.capture import capture
from stillroom.cache.live import load_live
from stillroom.cache.store import snapshot
from stillroom.cache.texts import Listed
from stillroom.files import tree_digest
from stillroom.params import CaptureParams, ComputeParams, validate
from stillroom.student_params import PretrainedParams, StudentParams
from stillroom.students.material import Material, Start, gather
from tests.students.rows import TRAIN, VALIDATION
from tests.toys import publish_teacher, write_smaller_checkpoint

SIGNALS = ("logits", "embedding", "hidden.2")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A published teacher; leave it unchanged."""
    return publish_teacher(tmp_path_factory.mktemp("students") / "teacher", tiny_checkpoint)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """The teacher's answers for the training rows; leave it unchanged."""
    root = tmp_path_factory.mktemp("answers")
    machine = ComputeParams(precision="fp32")
    live = load_live(teacher, machine, 8192)
    settings = CaptureParams(signals=SIGNALS)
    captured = capture(live, Listed(TRAIN.text), settings, root / "store", 0, machine)
    snapshot(captured.reader, captured.keys, root / "cache", 40)
    return root / "cache"


@pytest.fixture(scope="session")
def smaller_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder narrower than the teacher, whose tokeniser is of another kind; leave it unchanged."""
    return write_smaller_checkpoint(tmp_path_factory.mktemp("smaller") / "checkpoint")


@pytest.fixture(scope="session")
def settings_of(smaller_checkpoint: Path) -> Callable[..., Any]:
    """`settings_of(family, **changes)`: checked settings of a student."""
    own = {"pretrained": {"checkpoint": {"source": str(smaller_checkpoint), "sha256": tree_digest(smaller_checkpoint)}}}

    def make(family: str, **changes: Any) -> Any:
        raw = {
            "data": {"source": "x"},
            "teacher": {"source": "x"},
            "capture": {"signals": SIGNALS},
            "students": {"one": {"family": family, "max_length": 32} | own.get(family, {}) | changes},
        }
        return validate(raw, "test").students["one"]

    return make


@pytest.fixture(scope="session")
def material_of(teacher: Path, cache: Path) -> Callable[..., Material]:
    """`material_of(settings, special_tokens, signals)`: what a student of these settings is made from."""

    def make(settings: StudentParams, special_tokens: bool, signals: tuple[str, ...] = ("logits",)) -> Material:
        start = None
        if isinstance(settings, PretrainedParams):
            start = Start(Path(settings.checkpoint.source), settings.checkpoint.pooling)
        return gather(teacher, cache, TRAIN, (), VALIDATION, settings, special_tokens, signals, start)

    return make
