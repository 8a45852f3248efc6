"""A run that the disk cannot take is refused before it starts."""

from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.sources import disk
from stillroom.data.sources.fetching import source_store
from stillroom.data.sources.teacher import TeacherPin
from stillroom.errors import InputError
from stillroom.pipeline.room import ensure_room
from tests.pipeline.project import Project

MB = 1_000_000


@pytest.fixture
def sized(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose data have 3 MB and whose teacher has 20."""
    monkeypatch.setenv(layout.STATE_VARIABLE, str(project.path / ".stillroom"))
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "model.safetensors").write_bytes(bytes(20 * MB))
    listing = source_store().listing(teacher)
    source_store().locate(teacher, listing.digest)
    (project.path / layout.SOURCE_DATA).mkdir(parents=True)
    (project.path / layout.SOURCE_DATA / "train.csv").write_bytes(bytes(3 * MB))
    pin = TeacherPin(uri="teacher", sha256=listing.digest, licence=None, files=listing.files)
    (project.path / layout.SOURCE_TEACHER).write_text(pin.model_dump_json())
    return project


def free(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: size_bytes)


def test_the_estimate_grows_with_teacher_and_data(sized: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = 11 * 20 * MB + 6 * 3 * MB + disk.RESERVE_BYTES
    with sized.open() as workspace:
        free(monkeypatch, estimate)
        ensure_room(workspace)
        free(monkeypatch, estimate - 1)
        with pytest.raises(
            InputError, match=r"may write 238.0 MB \(a teacher of 20.0 MB, data of 3.0 MB\).*305.1 MB free"
        ):
            ensure_room(workspace)


def test_nothing_is_refused_before_the_sources_are_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0)
    with project.open() as workspace:
        ensure_room(workspace)
