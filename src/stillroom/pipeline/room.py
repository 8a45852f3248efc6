"""Is there room on the disk for a run? Asked before it starts, because a full disk shows late."""

from stillroom import layout
from stillroom.data.sources import disk
from stillroom.data.sources.fetching import source_store
from stillroom.data.sources.teacher import read_pin
from stillroom.pipeline.workspace import Workspace


def ensure_room(workspace: Workspace) -> None:
    """Raise InputError unless the disks can take a run over the sources that are in place.

    Without sources nothing is known and nothing is refused.
    """
    pin = workspace.path / layout.SOURCE_TEACHER
    found = source_store().find(read_pin(pin).sha256) if pin.is_file() else None
    teacher_bytes = disk.size_on_disk(found.path) if found else 0
    data_bytes = disk.size_on_disk(workspace.path / layout.SOURCE_DATA)
    disk.ensure_room(workspace.state, workspace.path, teacher_bytes, data_bytes)
