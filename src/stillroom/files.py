"""Files that are either whole or not there: atomic writes, digests, JSON."""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillroom.errors import InputError, TryAgain

_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that is full, or whose share for this user is."""
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in 1 MiB pieces. Raises InputError if there is no such file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256", _bufsize=_CHUNK).hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by POSIX path relative to it, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(found)}


def tree_digest(path: Path) -> str:
    """One sha256 for a file (its bytes) or a folder (the sorted list of its files' names and digests).

    Raises InputError if there is neither.
    """
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    return listing_digest(file_digests(path))


def listing_digest(digests: Mapping[str, str]) -> str:
    """The digest of a folder whose files' digests are known, by name, in the order of `file_digests`."""
    listing = "".join(f"{name}\0{digest}\n" for name, digest in digests.items())
    return hashlib.sha256(listing.encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_sibling(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")


def is_temporary(name: str) -> bool:
    """Whether this is a name under which a file is being written; a killed process leaves such a file behind."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write; on success it is synced to disk and takes the target's place."""
    temporary = _temporary_sibling(target)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def create_file(target: Path, content: bytes) -> bool:
    """Write a file whole if its name is free; False if it is taken.

    A synced temporary sibling is linked to the name: a link never replaces anything nor shows half a file.
    """
    temporary = _temporary_sibling(target)
    try:
        temporary.write_bytes(content)
        _sync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            # Over NFS the answer to a link that was made may be lost; the file then has its second name all the same.
            if temporary.stat().st_nlink == 1:
                return False
        _sync(target.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Tell the errors of a disk in one line that names the place: TryAgain if it is full or not to be had now."""
    try:
        yield
    except OSError as error:
        told = f"{place}: {error.strerror or error}"
        if error.errno in NO_SPACE:
            raise TryAgain(f"{told}; free some space and try again") from error
        if error.errno in _PASSING:
            raise TryAgain(f"{told}; try again later") from error
        raise InputError(told) from error


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary sibling; on success it takes the target's place whole, or nothing changes."""
    temporary = _temporary_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            _sync(path)
        if target.exists():
            discarded = _temporary_sibling(target)
            target.rename(discarded)
            try:
                temporary.rename(target)
            except BaseException:
                discarded.rename(target)
                raise
            shutil.rmtree(discarded)
        else:
            temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given, NaN and infinity refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is an InputError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
