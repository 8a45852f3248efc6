"""What a download may write, and where: free space, an upper size, names that stay inside their folder."""

import shutil
from collections import Counter
from pathlib import Path, PurePosixPath

from stillroom import layout
from stillroom.errors import InputError

MAX_SOURCE_BYTES = 64 << 30
"""No source is larger: a stream without end must not fill a disk."""
RESERVE_BYTES = 64 << 20
"""Left free on the disk beside what is written."""
_TEACHER_IN_STATE = 7
"""In sizes of the teacher: a resume point with both moments, the next one beside it, the best weights."""
_TEACHER_IN_WORKSPACE = 4
"""The published teacher, its graph in fp32 and int8, and what DVC's cache copies."""
_DATA_IN_WORKSPACE = 6
"""Ingested and split rows, and they and the raw file in DVC's cache and remote."""


def ensure_free(folder: Path, size_bytes: int, what: str) -> None:
    """Raise InputError unless the disk of `folder`, which need not exist yet, has room for `size_bytes`."""
    if size_bytes > MAX_SOURCE_BYTES:
        raise InputError(f"{what}: {in_words(size_bytes)} is more than the {in_words(MAX_SOURCE_BYTES)} of a source")
    free = free_bytes(folder)
    if size_bytes + RESERVE_BYTES > free:
        raise InputError(
            f"{what}: needs {in_words(size_bytes)}, but the disk of {folder} has {in_words(free)} free; "
            "free some or set STILLROOM_STATE to a larger disk"
        )


def ensure_room(state: Path, workspace: Path, teacher_bytes: int, data_bytes: int) -> None:
    """Raise InputError unless the disks can take what a run writes at most, estimated from teacher and data."""
    wanted = (
        (state, _TEACHER_IN_STATE * teacher_bytes),
        (workspace, _TEACHER_IN_WORKSPACE * teacher_bytes + _DATA_IN_WORKSPACE * data_bytes),
    )
    needs: Counter[int] = Counter()
    folders: dict[int, Path] = {}
    for folder, size_bytes in wanted:
        device = _existing(folder).stat().st_dev
        needs[device] += size_bytes
        folders[device] = folder
    for device, size_bytes in needs.items():
        free = free_bytes(folders[device])
        if size_bytes and size_bytes + RESERVE_BYTES > free:
            raise InputError(
                f"{folders[device]}: a run may write {in_words(size_bytes)} (a teacher of {in_words(teacher_bytes)}, "
                f"data of {in_words(data_bytes)}), but its disk has {in_words(free)} free; free some, or move the "
                f"checkout or {layout.STATE_VARIABLE} to a larger disk"
            )


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder` or will hold it."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 for neither."""
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())


def inside(folder: Path, name: str, what: str) -> Path:
    """The path of an archive's or bucket's member below `folder`; a name leading out is an InputError."""
    parts = PurePosixPath(name).parts
    unsafe = not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]
    if unsafe:
        raise InputError(f"{what}: holds a member named {name!r}, which leads out of its folder; do not trust it")
    return folder.joinpath(*parts)


def in_words(size_bytes: int) -> str:
    """A size for people: `12.3 MB`, decimal units."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
