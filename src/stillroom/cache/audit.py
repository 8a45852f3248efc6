"""Check a teacher's folder whole: every manifest, every shard, and that each key leads to its own entry."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stillroom.cache.capture import keys_and_sample, sample_rows
from stillroom.cache.identity import Fingerprint, check_same, differences, folder_name
from stillroom.cache.live import LiveTeacher
from stillroom.cache.manifest import Manifest, Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.root import TEACHER, at_hand
from stillroom.cache.shards import FOLDER, DamagedCache, MappedShard, describe
from stillroom.cache.texts import Texts
from stillroom.cache.verify import check_sample
from stillroom.errors import InputError
from stillroom.storage import Folder


@dataclass(frozen=True)
class Audit:
    """What a teacher's folder holds and what is wrong with it.

    address: of the folder; fingerprint: of the newest manifest that is readable, None without one; entries: distinct
    ones of whole shards; shards: that are listed; damaged: a line for each file, which it names; manifests: names of
    those that are damaged.
    """

    address: str
    fingerprint: Fingerprint | None
    entries: int
    shards: int
    damaged: tuple[str, ...]
    manifests: tuple[str, ...]


def audit(address: str) -> Audit:
    """Check a teacher's folder, on this machine or in a bucket. Raises InputError for a folder that is no cache."""
    with at_hand(address) as folder:
        found = _audit(folder)
    told = tuple(line.replace(str(folder), address.rstrip("/")) for line in found.damaged)
    return replace(found, address=address, damaged=told)


def check_live(
    audits: Iterable[Audit], teachers: Iterable[LiveTeacher], texts: Texts, count: int, seed: int
) -> dict[str, str]:
    """Compare a seeded sample of texts with live teachers; by address of a folder of their answers, what is wrong.

    Raises StaleCache if no whole folder holds the answers of any of them.
    """
    whole = [(one, one.fingerprint) for one in audits if not one.damaged and one.fingerprint is not None]
    rows = sample_rows(len(texts), count, seed)
    _, examples = keys_and_sample(texts, rows)
    found: dict[str, str] = {}
    refusals: list[tuple[Audit, Fingerprint, Fingerprint]] = []
    compared = False
    for teacher in teachers:
        asked = teacher.fingerprint(())
        for one, fields in whole:
            expected = {**asked, "signals": fields.get("signals")}
            if differences(fields, expected):
                refusals.append((one, fields, expected))
                continue
            compared = True
            with at_hand(one.address) as folder:
                try:
                    check_sample(Reader.open(folder), teacher, rows, examples)
                except DamagedCache as error:
                    found[one.address] = str(error).replace(str(folder), one.address)
    if refusals and not compared:
        one, fields, expected = refusals[0]
        check_same(fields, expected, Path(one.address))
    return found


def _audit(folder: Path) -> Audit:
    manifests = list(Manifests(Folder(folder)).every())
    if not manifests and not (folder / FOLDER).is_dir():
        Manifests(Folder(folder)).latest()  # says that it is no cache
    damaged = [str(found) for _, found in manifests if isinstance(found, InputError)]
    names = tuple(name for name, found in manifests if isinstance(found, InputError))
    readable = [found for _, found in manifests if isinstance(found, Manifest)]
    fingerprint = readable[-1].fingerprint if readable else None
    if not manifests or isinstance(manifests[-1][1], InputError):
        if not manifests:
            damaged.append(f"{folder}: its manifest is missing")
        damaged += _unlisted(folder)
        return Audit(str(folder), fingerprint, 0, 0, tuple(damaged), names)
    newest = readable[-1]
    teacher = folder_name(newest.fingerprint)
    if TEACHER.fullmatch(folder.name) and folder.name != teacher:
        damaged.append(f"{folder}: its manifest is of the teacher {teacher}")
    whole: list[MappedShard] = []
    for shard in newest.shards:
        try:
            mapped = MappedShard(folder, teacher, shard, newest.read_signals())
            mapped.verify()
            whole.append(mapped)
        except DamagedCache as error:
            damaged.append(str(error))
    entries = 0
    try:
        entries = _indexed(Reader.over(folder, newest, whole))
    except DamagedCache as error:
        damaged.append(str(error))
    return Audit(str(folder), fingerprint, entries, len(newest.shards), tuple(damaged), names)


def _indexed(reader: Reader) -> int:
    """The number of distinct entries. Raises DamagedCache unless each key leads to an entry of that key."""
    if not reader.shards:
        return 0
    keys = np.concatenate([shard.keys for shard in reader.shards])
    at = reader.find(keys)
    lost = int(((at < 0) | (keys[at] != keys).any(axis=1)).sum())
    if lost:
        raise DamagedCache(f"{reader.folder}: its index does not lead to {lost} of {len(keys)} entries")
    return len(reader)


def _unlisted(folder: Path) -> list[str]:
    """What is wrong with shards of which no manifest tells."""
    damaged = []
    for name in Folder(folder).names(FOLDER):
        try:
            describe(folder / name)
        except DamagedCache as error:
            damaged.append(str(error))
    return damaged
