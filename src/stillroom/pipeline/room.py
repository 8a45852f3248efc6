"""Is there room on the disk for a run? Asked before it starts, because a full disk shows late."""

from collections import Counter
from pathlib import Path

from stillroom import layout
from stillroom.data.sources.disk import RESERVE_BYTES, free_bytes, in_words
from stillroom.data.sources.fetching import source_store
from stillroom.data.sources.teacher import read_pin
from stillroom.errors import InputError
from stillroom.pipeline.workspace import Workspace

_TEACHER_IN_STATE = 7
"""In sizes of the teacher: a resume point with both moments, the next one beside it, the best weights."""
_TEACHER_IN_WORKSPACE = 4
"""The published teacher, its graph in fp32 and int8, and what DVC's cache copies."""
_DATA_IN_WORKSPACE = 6
"""Ingested and split rows, and they and the raw file in DVC's cache and remote."""


def ensure_room(workspace: Workspace) -> None:
    """Raise InputError unless the disks can take what a run writes at most, estimated from data and teacher.

    To be called once the sources are in place; without them nothing is known and nothing is refused.
    """
    needs: Counter[int] = Counter()
    folders: dict[int, Path] = {}
    teacher, data = _teacher_bytes(workspace), _size(workspace.path / layout.SOURCE_DATA)
    wanted = (
        (workspace.state, _TEACHER_IN_STATE * teacher),
        (workspace.path, _TEACHER_IN_WORKSPACE * teacher + _DATA_IN_WORKSPACE * data),
    )
    for folder, size_bytes in wanted:
        device = _existing(folder).stat().st_dev
        needs[device] += size_bytes
        folders[device] = folder
    for device, size_bytes in needs.items():
        free = free_bytes(folders[device])
        if size_bytes and size_bytes + RESERVE_BYTES > free:
            raise InputError(
                f"{folders[device]}: a run may write {in_words(size_bytes)} (a teacher of {in_words(teacher)}, data of "
                f"{in_words(data)}), but its disk has {in_words(free)} free; free some, or move the checkout or "
                f"{layout.STATE_VARIABLE} to a larger disk"
            )


def _teacher_bytes(workspace: Workspace) -> int:
    pin = workspace.path / layout.SOURCE_TEACHER
    found = source_store().find(read_pin(pin).sha256) if pin.is_file() else None
    return _size(found.path) if found else 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
