"""The list of shards that makes them visible, as a chain of numbered files that several writers may extend.

A teacher's folder, on a disk or in a bucket, holds shards/SHA256.safetensors and manifests/NUMBER.json. Each manifest
is complete and carries a digest of itself; the highest number counts. A change is the next number, created only if
nobody has it yet, so that of writers that race one wins and the others start again from what it wrote: no lock that a
killed process could hold, and the same on a disk as in a bucket.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillroom.cache.codecs import Signal, known, recorded
from stillroom.cache.shards import MOST_WIDTH, DamagedCache, Shard
from stillroom.errors import Absent, InputError, Spoiled, StillroomError, TryAgain
from stillroom.storage import Storage

FOLDER = "manifests"
FIRST = f"{FOLDER}/{1:08d}.json"
"""The only manifest of a snapshot."""
_NAME = re.compile(rf"{FOLDER}/([0-9]{{8}})\.json")
_KEPT = 8
"""Older manifests that stay for whoever is reading one."""
_ATTEMPTS = 1000
_LAST = 10**8 - 1
_LARGEST = 32 << 20
"""Bytes of a manifest: more than a hundred thousand shards."""


class Kept(BaseModel):
    """How a signal is stored: its codec and the numbers of one vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: str = Field(max_length=64)
    width: int = Field(ge=0, lt=MOST_WIDTH)


class Manifest(BaseModel):
    """What a folder of answers holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    fingerprint: dict[str, Any]
    signals: dict[str, Kept] = {}
    shards: tuple[Shard, ...] = ()

    def read_signals(self) -> dict[Signal, int]:
        """The signals with the width of each. Raises InputError for a codec that this version does not have."""
        return {known(name, kept.codec): kept.width for name, kept in self.signals.items()}

    def with_shards(self, *added: Shard, without: frozenset[str] = frozenset()) -> "Manifest":
        """With some shards, by sha256, struck and others listed once: shards that were merged may give one of them."""
        kept = {shard.sha256: shard for shard in self.shards if shard.sha256 not in without}
        return self.model_copy(update={"shards": tuple((kept | {shard.sha256: shard for shard in added}).values())})


Change = Callable[[Manifest], Manifest]


class Manifests:
    """The manifests of one teacher's folder. `found`: what an empty folder is taken to hold."""

    def __init__(self, storage: Storage, found: Manifest | None = None) -> None:
        self._storage = storage
        self._found = found

    def latest(self) -> Manifest:
        """The manifest that counts. Raises InputError if there is none and nothing is taken for granted, DamagedCache
        that names the file if it is not exactly what was written."""
        return self._latest()[1]

    def every(self) -> Iterator[tuple[str, Manifest | InputError]]:
        """Every manifest that is kept with its name, oldest first, or what is wrong with it."""
        for number in self._numbers():
            try:
                yield _name(number), self._read(number)
            except Absent:
                continue  # pruned meanwhile
            except InputError as error:
                yield _name(number), error

    def change(self, change: Change) -> Manifest:
        """Make a change visible. `change` is asked again as often as another writer was first."""
        for _ in range(_ATTEMPTS):
            number, manifest, names = self._latest()
            changed = change(manifest)
            if changed == manifest:
                return manifest
            # Once more from the highest number after it was made: had the next number been one that was in use
            # and is pruned by now, ours would be hidden behind a higher one.
            if self._create(number + 1, changed) and self._highest() == number + 1:
                with suppress(StillroomError):  # it is made all the same; whoever makes the next one tries again
                    for old in names[: -_KEPT + 1]:
                        self._storage.remove(_name(old))
                return changed
        raise TryAgain(f"{self._storage.where}: other writers were first {_ATTEMPTS} times; run again")

    def replace(self, made: Callable[[], Manifest]) -> None:
        """Let another manifest count than the latest, which is damaged, unless a writer has added one meanwhile."""
        self._create(self._highest() + 1, made())

    def _create(self, number: int, manifest: Manifest) -> bool:
        """Create the next manifest; False if another writer was first. Raises InputError if there can be none."""
        where = f"{self._storage.where}/{_name(min(number, _LAST))}"
        if number > _LAST:
            raise InputError(f"{where}: is the last manifest that there can be; move this folder away")
        if self._storage.create(_name(number), encode(manifest)):
            return True
        if self._highest() < number:
            raise InputError(f"{where}: is no manifest, though it bears the name of the next one; move it away")
        return False

    def _latest(self) -> tuple[int, Manifest, list[int]]:
        for _ in range(_ATTEMPTS):
            numbers = self._numbers()
            if not numbers:
                if self._found is None:
                    raise InputError(
                        f"{self._storage.where}: holds no {FOLDER}/, so it is no cache of a teacher's answers"
                    )
                return 0, self._found, []
            try:
                return numbers[-1], self._read(numbers[-1]), numbers
            except Absent:
                continue  # a writer has added higher numbers and pruned this one
        raise TryAgain(f"{self._storage.where}: lists {_name(numbers[-1])}, but has no such file; try again later")

    def _highest(self) -> int:
        return (self._numbers() or [0])[-1]

    def _numbers(self) -> list[int]:
        found = (_NAME.fullmatch(name) for name in self._storage.names(FOLDER))
        return sorted(int(match[1]) for match in found if match)

    def _read(self, number: int) -> Manifest:
        where = f"{self._storage.where}/{_name(number)}"
        if self._storage.size(_name(number)) > _LARGEST:
            raise DamagedCache(f"{where}: larger than any manifest")
        try:
            return decode(self._storage.read(_name(number)), where)
        except Spoiled as error:
            raise DamagedCache(str(error)) from error


def encode(manifest: Manifest) -> bytes:
    """The file of a manifest."""
    fields = manifest.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**fields, "digest": digest}, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(content: bytes, where: str) -> Manifest:
    """A manifest from its file. Raises DamagedCache if a single byte is not what was written, InputError for a codec
    that this version does not have."""
    try:
        raw = json.loads(content)
        raw.pop("digest")
        manifest = Manifest.model_validate(raw)
        intact = encode(manifest) == content
    except (AttributeError, TypeError, KeyError, ValueError, RecursionError) as error:
        told = "not readable as a cache manifest"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            told = f"not a cache manifest ({'.'.join(map(str, first['loc']))[:60]!r}: {first['msg'][:100]})"
        raise DamagedCache(f"{where}: {told}; run the stage capture again") from error
    if not intact:
        raise DamagedCache(f"{where}: its contents do not match its digest; run the stage capture again")
    try:
        signals = manifest.read_signals()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    kept = recorded(tuple(signals))
    if kept and manifest.fingerprint.get("signals", kept) != kept:
        raise DamagedCache(f"{where}: its signals are not those of its fingerprint; run the stage capture again")
    return manifest


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"
