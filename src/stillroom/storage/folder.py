"""Immutable files in a folder of a file system that has hard links."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from stillroom.errors import Absent, InputError, TryAgain
from stillroom.files import atomic_file, create_file, disk_errors, is_temporary
from stillroom.storage.address import checked, folder_prefix, is_name

_PIECE = 1 << 20
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


class Folder:
    """A storage in a folder, which need not exist yet. Symbolic links below it are refused, never followed."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root

    def names(self, below: str = "") -> list[str]:
        # By way of a name in it, so that the folder itself is no symbolic link either.
        folder = self._path(f"{folder_prefix(below)}any").parent if below else self._root
        found = (path.relative_to(self._root).as_posix() for path in _files(folder))
        with disk_errors(folder):
            return sorted(name for name in found if is_name(name))

    def read(self, name: str) -> bytes:
        with disk_errors(self._path(name)), self._open(name) as stream:
            return stream.read()

    def write(self, name: str, source: Path) -> None:
        with disk_errors(source):
            stream = source.open("rb")
        with stream:
            _copy(stream, self._path(name))

    def create(self, name: str, content: bytes) -> bool:
        path = self._path(name)
        with disk_errors(path.parent):
            try:
                return create_file(path, content)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise InputError(
                    f"{path.parent}: its file system makes no hard links ({error.strerror}), without which two writers "
                    "could both win; use another one, or a bucket"
                ) from error

    def fetch(self, name: str, target: Path) -> None:
        with self._open(name) as stream:
            _copy(stream, target)

    def remove(self, name: str) -> None:
        path = self._path(name)
        with disk_errors(path), suppress(NotADirectoryError, IsADirectoryError):
            path.unlink(missing_ok=True)

    def size(self, name: str) -> int:
        with self._open(name) as stream:
            return os.fstat(stream.fileno()).st_size

    def modified(self, name: str) -> float:
        with self._open(name) as stream:
            return os.fstat(stream.fileno()).st_mtime

    def sweep(self, older_than_s: float) -> None:
        with disk_errors(self._root):
            for path in _files(self._root):
                with suppress(FileNotFoundError):  # its writer has finished meanwhile
                    if is_temporary(path.name) and time.time() - path.stat().st_mtime > older_than_s:
                        path.unlink()

    def _path(self, name: str) -> Path:
        """Where a name stands; InputError if a symbolic link is on the way, which could lead out of the folder."""
        path = self._root.joinpath(*checked(name).split("/"))
        for folder in path.parents[: name.count("/")]:
            if folder.is_symlink():
                raise linked(folder)
        return path

    def _open(self, name: str) -> BinaryIO:
        path = self._path(name)
        with disk_errors(path):
            try:
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    raise linked(path)
                if stat.S_ISREG(mode):
                    return path.open("rb")
            except (FileNotFoundError, NotADirectoryError):
                pass
        raise Absent(f"{path}: no such file")


def linked(path: Path) -> InputError:
    """What is said of a symbolic link, by which files outside a storage would be read or written."""
    return InputError(f"{path}: is a symbolic link; a storage holds files of its own, replace it with a copy")


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder at any depth; none if it is missing or is a file."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(here / entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield here / entry.name


def _copy(source: BinaryIO, target: Path) -> None:
    """Copy to a temporary sibling that takes the target's place when it is whole and on disk."""
    size = os.fstat(source.fileno()).st_size
    with disk_errors(target.parent), atomic_file(target) as temporary:
        with temporary.open("xb") as stream:
            shutil.copyfileobj(source, stream, _PIECE)
        if temporary.stat().st_size != size:
            raise TryAgain(f"{target}: its source changed while it was copied; try again")
