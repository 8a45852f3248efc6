"""What a download may write, and where: free space, an upper size, names that stay inside their folder."""

import shutil
from pathlib import Path, PurePosixPath

from stillroom.errors import InputError

MAX_SOURCE_BYTES = 64 << 30
"""No source is larger: a stream without end must not fill a disk."""
RESERVE_BYTES = 64 << 20
"""Left free on the disk beside what is written."""


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


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder` or will hold it."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


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
