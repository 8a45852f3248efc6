"""Digests of files and folders, remembered by what `stat` tells so that an unchanged file is read once."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import InputError
from stillroom.files import listing_digest, read_json, sha256_file, write_json

_RACY_NS = 2_000_000_000
"""A file changed so shortly before it was read could change again unseen (git's racy entries)."""


@dataclass(frozen=True)
class Listing:
    """sha256 of every file by POSIX path, in the order of files.file_digests, and the digest of the whole."""

    files: dict[str, str]
    digest: str


def read_listing(path: Path, memory: Path | None = None) -> Listing:
    """Digest a file or a folder as files.tree_digest does.

    `memory` is a folder for what was seen before: a file with the same size, inode and times is not read
    again. Losing it, or giving none, costs time only.
    """
    record = memory / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()}.json" if memory else None
    before = _recall(record) if record else {}
    now_ns = time.time_ns()
    digests: dict[str, str] = {}
    after: dict[str, list[Any]] = {}
    for name, file in _files(path).items():
        status = file.stat()
        seen = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        known = before.get(name)
        digests[name] = str(known[-1]) if known and known[:-1] == seen else sha256_file(file)
        if now_ns - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS:
            after[name] = [*seen, digests[name]]
    if record and after != before:
        write_json(record, {"path": str(path.absolute()), "files": after})
    whole = digests[path.name] if path.is_file() else listing_digest(digests)
    return Listing(digests, whole)


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    return {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}


def _recall(record: Path) -> dict[str, list[Any]]:
    try:
        files = read_json(record)["files"]
    except (InputError, KeyError, TypeError):
        return {}
    return {name: seen for name, seen in files.items() if isinstance(seen, list) and len(seen) == 5}
