"""The shared store of answers: grows by shards, never loses one, and hands out snapshots for a run."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from stillroom.cache.identity import Fingerprint, Keys, entry_keys
from stillroom.cache.reader import Reader, signals_at, unique_keys
from stillroom.cache.shards import (
    MANIFEST,
    DamagedCache,
    Manifest,
    Shard,
    folder_of,
    map_shard,
    read_manifest,
    write_manifest,
    write_shard,
)
from stillroom.errors import InputError, TryAgain

_LOCK_WAIT_S = 60.0

log = logging.getLogger("stillroom")


class Store:
    """The answers of one teacher in a state folder; several processes may add to it."""

    def __init__(self, root: Path, fields: Fingerprint) -> None:
        self.folder = folder_of(root, fields)
        self._fields = fields
        self._known: frozenset[str] = frozenset()
        """Shards shown to the caller, who adds only what they lack."""
        self._added: dict[str, frozenset[bytes]] = {}
        """Keys of the shards that this or another writer has added since."""

    def reader(self) -> Reader | None:
        """All that is visible and whole; None while there is nothing.

        A damaged shard is struck from the manifest with a warning, so that its entries, and no others, count as
        absent and are captured again; a damaged manifest is set aside.
        """
        with self._locked():
            manifest = self._manifest()
            whole = tuple(shard for shard in manifest.shards if len(self._keys_of(shard, manifest)))
            if whole != manifest.shards:
                manifest = manifest.model_copy(update={"shards": whole})
                write_manifest(self.folder, manifest)
            self._known = frozenset(shard.name for shard in whole)
            return Reader.open(self.folder) if whole else None

    def add(self, keys: Keys, signals: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write one shard of new answers, then list it; what has been added since `reader` is left out.

        Raises TryAgain if another process holds the manifest for a minute.
        """
        widths = {name: values.shape[1] for name, values in signals.items()}
        with self._locked():
            manifest = self._manifest()
            new = ~self._added_since(keys, manifest)
            if not new.any():
                return
            shard = write_shard(self.folder, keys[new], {name: values[new] for name, values in signals.items()})
            shards = (*manifest.shards, shard)
            write_manifest(self.folder, manifest.model_copy(update={"widths": widths, "shards": shards}))

    def _added_since(self, keys: Keys, manifest: Manifest) -> npt.NDArray[np.bool_]:
        """Which keys stand in a whole shard that was added since `reader`, [n]."""
        for shard in manifest.shards:
            if shard.name not in self._known and shard.name not in self._added:
                self._added[shard.name] = frozenset(key.tobytes() for key in self._keys_of(shard, manifest))
        listed = {shard.name for shard in manifest.shards}
        added = [stored for name, stored in self._added.items() if name in listed]
        return np.array([any(key.tobytes() in stored for stored in added) for key in keys], dtype=bool)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=_LOCK_WAIT_S):
                yield
        except Timeout as error:
            raise TryAgain(f"{self.folder}: another capture holds its lock; run again") from error

    def _manifest(self) -> Manifest:
        path = self.folder / MANIFEST
        if not path.exists():
            return Manifest(fingerprint=self._fields)
        try:
            return read_manifest(self.folder)
        except InputError as error:
            log.warning("%s; it is set aside and its entries are captured again", error)
            path.replace(path.with_suffix(".damaged"))
            return Manifest(fingerprint=self._fields)

    def _keys_of(self, shard: Shard, manifest: Manifest) -> Keys:
        """The keys of a shard; none, and a warning, if it is damaged."""
        try:
            return map_shard(self.folder, shard, manifest.widths)[0]
        except DamagedCache as error:
            log.warning("%s; its %d entries are captured again", error, shard.entries)
            return entry_keys([])


def export(reader: Reader, keys: Keys, target: Path, shard_entries: int) -> Manifest:
    """Write the answers for some keys into an empty folder: sorted by key, so equal content gives equal bytes."""
    wanted, _ = unique_keys(keys)
    positions = reader.locate(wanted, "texts")
    names = list(reader.manifest.widths)
    shards = [
        write_shard(target, wanted[part], signals_at(reader, positions[part], names))
        for part in (slice(start, start + shard_entries) for start in range(0, len(wanted), shard_entries))
    ]
    manifest = Manifest(fingerprint=reader.manifest.fingerprint, widths=reader.manifest.widths, shards=tuple(shards))
    write_manifest(target, manifest)
    return manifest


def absent(reader: Reader | None, keys: Keys) -> npt.NDArray[np.bool_]:
    """Which keys have no answer yet, [n]."""
    return np.ones(len(keys), dtype=bool) if reader is None else reader.find(keys) < 0
