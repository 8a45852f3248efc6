"""Repair a teacher's folder: what is damaged is struck, and what that loses is computed again where it can be."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.cache.audit import Audit
from stillroom.cache.identity import Fingerprint, folder_name
from stillroom.cache.root import TEACHER
from stillroom.cache.store import Store
from stillroom.errors import InputError
from stillroom.storage import open_storage
from stillroom.storage.address import parse

log = logging.getLogger("stillroom")

Fill = Callable[[Path, str | None], int]
"""Computes what a store (its root, its shared storage) lacks for the transfer set of the workspace; so many entries."""


@dataclass(frozen=True)
class Repaired:
    """address: of the folder; computed: entries that were computed again; None if its teacher is not at hand."""

    address: str
    computed: int | None


def repair(found: Audit, teachers: Sequence[Fingerprint], fill: Fill) -> Repaired:
    """Strike damaged shards, make a damaged manifest again from the shards, and compute what the texts then lack.

    teachers: those of the workspace. Raises InputError for a folder of which nothing tells whose it is.
    """
    root, _, name = found.address.rstrip("/").rpartition("/")
    if not TEACHER.fullmatch(name):
        raise InputError(f"{found.address}: is a snapshot, which the stage capture writes; run it again there")
    ours = next((fields for fields in teachers if folder_name(fields) == name), None)
    fields = ours or found.fingerprint
    if fields is None or folder_name(fields) != name:
        raise InputError(
            f"{found.address}: no manifest tells of its teacher, which is none of this workspace's; capture with "
            f"its teacher, or remove it by `stillroom cache gc --teacher {name}`"
        )
    place = parse(root)
    if isinstance(place, Path):
        return _repaired(found, fields, place, None, fill if ours else None)
    with tempfile.TemporaryDirectory(prefix="stillroom-cache-") as temporary:
        return _repaired(found, fields, Path(temporary), root, fill if ours else None)


def _repaired(found: Audit, fields: Fingerprint, root: Path, shared: str | None, fill: Fill | None) -> Repaired:
    Store(root, fields, shared).reader()
    storage = open_storage(found.address)
    for name in found.manifests:
        storage.remove(name)
    return Repaired(found.address, fill(root, shared) if fill else None)
