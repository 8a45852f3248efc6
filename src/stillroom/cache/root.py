"""The root of a cache, on a disk or in a bucket: a folder for every teacher."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stillroom.cache import manifest, shards
from stillroom.errors import Absent, InputError
from stillroom.storage import open_storage
from stillroom.storage.address import parse

TEACHER = re.compile(r"[0-9a-f]{32}")
"""Name of a teacher's folder: the first digits of its fingerprint's digest."""
_PARTS = (manifest.FOLDER, shards.FOLDER)


def teachers(address: str) -> list[str]:
    """Names of the teachers' folders below a root that hold a manifest, sorted. Raises InputError if there are none."""
    return _found(address, (manifest.FOLDER,))


def begun(address: str) -> list[str]:
    """As `teachers`, with folders whose first manifest was never written."""
    return _found(address, _PARTS)


def folders(address: str) -> list[str]:
    """Addresses of the teachers' folders at an address: itself if it is one, or those below it."""
    if any(open_storage(address).names(part) for part in _PARTS):
        return [address]
    return [f"{address}/{name}" for name in teachers(address)]


def local(address: str, purpose: str) -> Path:
    """The folder of an address. Raises InputError for a bucket. purpose: what needs a folder."""
    place = parse(address)
    if not isinstance(place, Path):
        raise InputError(f"{address}: {purpose} needs a folder of this machine; give one by --store")
    return place


@contextmanager
def at_hand(address: str) -> Iterator[Path]:
    """A teacher's folder as one of this machine: itself, or a copy that lasts as long as the context."""
    place = parse(address)
    if isinstance(place, Path):
        yield place
        return
    storage = open_storage(address)
    with tempfile.TemporaryDirectory(prefix="stillroom-cache-") as temporary:
        folder = Path(temporary) / address.rstrip("/").rpartition("/")[2]
        folder.mkdir()
        for name in (name for part in _PARTS for name in storage.names(part)):
            try:
                storage.fetch(name, folder / name)
            except Absent:
                continue  # pruned meanwhile; a shard that is still listed is found to lack
        yield folder


def teacher_files(address: str, teacher: str) -> dict[str, int]:
    """The files of a teacher's folder with their bytes. Raises InputError if there is no such folder."""
    found = begun(address)
    if teacher not in found:
        raise InputError(f"{address}: holds no folder {teacher}; there are {', '.join(found)}")
    storage = open_storage(f"{address}/{teacher}")
    return {name: storage.size(name) for name in storage.names()}


def remove_teacher(address: str, teacher: str) -> dict[str, int]:
    """Remove a teacher's folder; its files with their bytes. Manifests go first, so that nobody sees half of it."""
    files = teacher_files(address, teacher)
    storage = open_storage(f"{address}/{teacher}")
    for name in files:  # sorted: manifests/ before shards/, the newest manifest as their last
        storage.remove(name)
    storage.sweep(0)
    place = parse(address)
    if isinstance(place, Path):
        shutil.rmtree(place / teacher)
    return files


def _found(address: str, parts: Sequence[str]) -> list[str]:
    storage = open_storage(address)
    split = [name.split("/") for name in storage.names()]
    found = {path[0] for path in split if len(path) == 3 and TEACHER.fullmatch(path[0]) and path[1] in parts}
    if not found:
        raise InputError(
            f"{storage.where}: holds no teacher's answers, so it is no cache; give the folder above the teachers'"
        )
    return sorted(found)
