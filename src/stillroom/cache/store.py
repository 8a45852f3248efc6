"""The shared store of answers: grows by shards, never loses one, and hands out snapshots for a run."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillroom.cache import shards as files
from stillroom.cache.codecs import Encoded, Signal, known
from stillroom.cache.garbage import collect
from stillroom.cache.identity import Fingerprint, Keys, StaleCache, differences, folder_name
from stillroom.cache.manifest import FIRST, FOLDER, Change, Kept, Manifest, Manifests, encode
from stillroom.cache.reader import Contradiction, Reader, unique_keys
from stillroom.cache.shards import DamagedCache, Found, MappedShard, Shard, describe, write_shard
from stillroom.errors import Absent, InputError, Spoiled
from stillroom.files import atomic_file, disk_errors, sha256_file
from stillroom.storage import Folder, Storage, open_storage
from stillroom.storage.folder import linked

Answers = Mapping[Signal, Encoded]
PASSES = "passes.jsonl"
"""A line for every pass over a store: when, how many distinct texts it asked for, how many were there."""
_THREADS = 4
_FEW = 4
"""So many small shards may stand beside the large ones before they are merged."""
_MERGED_BYTES = 64 << 20

log = logging.getLogger("stillroom")


class Store:
    """The answers of one teacher in a folder of this machine, and in a storage that machines share if there is one.

    Any number of processes may add to either. What the shared storage has is fetched before it is asked for, and
    what is added here is sent there: shards first, the manifest that lists them last.
    """

    def __init__(self, root: Path, fields: Fingerprint, shared: str | None = None) -> None:
        """shared: a folder or s3://bucket/prefix, the root of a store like `root`."""
        self.teacher = folder_name(fields)
        self.folder = root / self.teacher
        for path in (self.folder, *(self.folder / name for name in (files.FOLDER, FOLDER, PASSES))):
            _refuse_link(path)
        self._empty = Manifest(fingerprint=fields)
        self._files = Folder(self.folder)
        self._local = Manifests(self._files, self._empty)
        self._storage: Storage | None = open_storage(f"{shared.rstrip('/')}/{self.teacher}") if shared else None
        if isinstance(self._storage, Folder):
            _refuse_link(Path(self._storage.where))
        self._shared = Manifests(self._storage, self._empty) if self._storage else None
        self._mapped: dict[str, MappedShard] = {}
        self._known: set[str] = set()
        """Shards that the caller has been shown, or has added."""
        self._sent: set[str] = set()
        """Shards that the shared storage has had: one that it has no more was merged or struck there."""

    def reader(self) -> Reader | None:
        """All that is visible and whole, here and in the shared storage; None while there is nothing.

        A damaged shard, and two that contradict each other, are struck from the manifest with a warning, so that their
        entries, and no others, count as absent and are captured again; a damaged manifest is made again from the
        shards themselves.
        """
        self._mapped.clear()
        reader = self._sound()
        if self._shared:
            self.pull()
            reader = self._sound()
        self._known |= {shard.shard.sha256 for shard in reader.shards}
        return reader if reader.shards else None

    def add(self, keys: Keys, answers: Answers) -> None:
        """Write one shard of new answers, then list it; what another writer has added since `reader` is left out."""
        manifest = self._manifest()
        others = [shard for shard in manifest.shards if shard.sha256 not in self._known]
        if others:
            new = np.flatnonzero(absent(Reader.over(self.folder, manifest, self._whole(manifest, others)), keys))
            if not len(new):
                return
            keys = keys[new]
            answers = {signal: signal.codec.take(encoded, new) for signal, encoded in answers.items()}
        shard = write_shard(self.folder, self.teacher, keys, answers)
        self._known.add(shard.sha256)
        self._sent.discard(shard.sha256)
        kept = {
            signal.name: Kept(codec=signal.codec.label, width=signal.codec.width(encoded))
            for signal, encoded in answers.items()
        }
        self._local.change(lambda latest: latest.model_copy(update={"signals": kept}).with_shards(shard))
        self.push()

    def pull(self, strike: bool = True) -> tuple[Shard, ...]:
        """Fetch and check the shards that the shared storage has and this machine lacks; those that arrived whole.

        strike: those that are damaged there are struck from its manifest, so that a machine captures them again.
        """
        remote, local = self._shared_manifest(), self._manifest()
        here = _names(local)
        lacking = [shard for shard in remote.shards if shard.sha256 not in here]
        if not lacking:
            return ()
        with ThreadPoolExecutor(_THREADS) as pool:
            present = list(pool.map(self._arrives, lacking))
        arrived = [shard for shard, there in zip(lacking, present, strict=True) if there]
        if local.shards and local.signals != remote.signals:
            raise DamagedCache(
                f"{self._where}: its answers (logits or others) are not as wide as those of the same teacher in "
                f"{self.folder}; move one of the two folders away"
            )
        local = local.model_copy(update={"signals": remote.signals})
        ours, whole = self._whole(local, local.shards), self._whole(local, arrived)
        Reader.over(self.folder, local, [*ours, *whole])  # refuses answers that contradict ours, before they are listed
        listed = [shard.shard for shard in whole]
        there = _names(remote)
        merged = self._merged_elsewhere(local, [shard for shard in ours if shard.shard.sha256 not in there], whole)
        self._local.change(
            lambda latest: latest.model_copy(update={"signals": remote.signals}).with_shards(*listed, without=merged)
        )
        log.info("cache: %d shards fetched from %s", len(listed), self._where)
        lost = frozenset(shard.sha256 for shard in lacking) - {shard.sha256 for shard in listed}
        if lost and strike:
            self._change_shared(lambda latest: latest.with_shards(without=lost))
        return tuple(listed)

    def push(self) -> tuple[Shard, ...]:
        """Send the shards that this machine has and the shared storage never had; those that were sent."""
        if self._storage is None:
            return ()
        storage, local = self._storage, self._manifest()
        sent: dict[str, Shard] = {}

        def listed(latest: Manifest) -> Manifest:
            self._sent |= _names(latest)
            lacking = [shard for shard in local.shards if shard.sha256 not in self._sent]
            for shard in lacking:
                if shard.sha256 not in sent:
                    storage.write(shard.name, self.folder / shard.name)
                    sent[shard.sha256] = shard
            return latest.model_copy(update={"signals": local.signals}).with_shards(*lacking) if lacking else latest

        self._sent |= _names(self._change_shared(listed))
        return tuple(sent.values())

    def compact(self, shard_entries: int) -> None:
        """Merge small shards into few of up to `shard_entries` entries, here and in the shared storage."""
        manifest = self._manifest()
        small = [s for s in manifest.shards if 2 * s.entries < shard_entries and 4 * s.bytes < _MERGED_BYTES]
        if len(small) <= _FEW:
            return
        merged: list[Shard] = []
        whole = self._whole(manifest, small)
        for group in _groups(whole, shard_entries):
            reader = Reader.over(self.folder, manifest, group)
            keys = np.concatenate([shard.keys for shard in group])
            positions = np.flatnonzero(reader.find(keys) == np.arange(len(keys)))  # of keys that repeat, the first
            keys = keys[positions]
            answers = {signal: reader.encoded(signal.name, positions) for signal in manifest.read_signals()}
            merged.append(write_shard(self.folder, self.teacher, keys, answers))
        names = frozenset(shard.shard.sha256 for shard in whole)

        def swap(latest: Manifest) -> Manifest:
            # If another writer has merged some of them already, what it made stays.
            return latest.with_shards(*merged, without=names) if names <= _names(latest) else latest

        self._known |= {shard.sha256 for shard in merged}
        self._local.change(swap)
        if self._storage is not None and names <= _names(self._shared_manifest()):
            for shard in merged:
                self._storage.write(shard.name, self.folder / shard.name)
            self._change_shared(swap)

    def collect(self) -> None:
        """Remove files of this machine that no manifest lists and that have been there for a day."""
        collect(self._files, self._local)

    def record_pass(self, asked: int, found: int) -> None:
        """Remember how many of the texts that a pass asked for were there."""
        path = self.folder / PASSES
        line = json.dumps({"time": round(time.time()), "asked": asked, "found": found}) + "\n"
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise InputError(f"{path}: is no file; move it away")
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line)

    @property
    def _where(self) -> str:
        return self._storage.where if self._storage else str(self.folder)

    def _manifest(self) -> Manifest:
        manifest = self._latest(self._local, self._files)
        if folder_name(manifest.fingerprint) != self.teacher:
            log.warning("%s: its manifest is of another teacher; it is made again from the shards", self.folder)
            self._local.replace(lambda: self._listed_again(self._files))
            manifest = self._local.latest()
        return manifest

    def _shared_manifest(self) -> Manifest:
        assert self._shared is not None
        assert self._storage is not None
        remote = self._own(self._latest(self._shared, self._storage), self._storage)
        self._sent |= _names(remote)
        return remote

    def _latest(self, manifests: Manifests, storage: Storage) -> Manifest:
        """The manifest of a storage that counts; a damaged one is made again first."""
        try:
            return manifests.latest()
        except DamagedCache as error:
            log.warning("%s; it is made again from the shards", error)
            manifests.replace(lambda: self._listed_again(storage))
            return manifests.latest()

    def _own(self, manifest: Manifest, storage: Storage) -> Manifest:
        """A manifest, if it is of this teacher."""
        if told := differences(manifest.fingerprint, self._empty.fingerprint):
            raise StaleCache(
                f"{storage.where}: holds the answers of another teacher: {'; '.join(told)}; move that folder away"
            )
        return manifest

    def _change_shared(self, change: Change) -> Manifest:
        """Change what the shared storage lists, also if its manifest is damaged."""
        assert self._shared is not None
        assert self._storage is not None
        storage = self._storage

        def own(latest: Manifest) -> Manifest:
            return change(self._own(latest, storage))

        try:
            return self._shared.change(own)
        except DamagedCache:
            self._shared_manifest()
            return self._shared.change(own)

    def _listed_again(self, storage: Storage) -> Manifest:
        """A manifest of all shards of this teacher that a storage holds whole."""
        found: dict[tuple[tuple[str, int], ...], list[Shard]] = {}
        for name in storage.names(files.FOLDER):
            try:
                described = describe(self._fetched(storage, name))
                if described.teacher == self.teacher:
                    MappedShard(self.folder, self.teacher, described.shard, self._signals(described)).verify()
                    found.setdefault(tuple(sorted(described.widths.items())), []).append(described.shard)
            except (Absent, DamagedCache) as error:
                log.warning("%s; it is left out", error)
        if not found:
            return self._empty
        # A teacher's answers have one width; shards of another one are not its own, whoever made them.
        widths, own = max(found.items(), key=lambda item: sum(shard.entries for shard in item[1]))
        codecs = self._empty.fingerprint["signals"]
        kept = {name: Kept(codec=codecs[name], width=width) for name, width in widths}
        return self._empty.model_copy(update={"signals": kept}).with_shards(*own)

    def _signals(self, described: Found) -> dict[Signal, int]:
        """The signals of this teacher with the widths that a shard tells of itself."""
        codecs = self._empty.fingerprint["signals"]
        if described.widths.keys() != codecs.keys():
            raise DamagedCache(f"{self.folder / described.shard.name}: its signals are not the teacher's")
        return {known(name, codecs[name]): width for name, width in described.widths.items()}

    def _arrives(self, shard: Shard) -> bool:
        """Whether a shard of the shared storage is here now; if it is not to be had, that is told."""
        assert self._storage is not None
        try:
            self._fetched(self._storage, shard.name)
        except (Absent, DamagedCache) as error:
            log.warning("%s; its %d entries are captured again", error, shard.entries)
            return False
        return True

    def _fetched(self, storage: Storage, name: str) -> Path:
        """The path here of a shard of a storage. Only a file whose content is what its name says comes to stand there;
        one that stands there already, of a pull that broke off, is not fetched again."""
        path = self.folder / name
        if not path.is_symlink() and path.is_file() and _is_named(path, name):
            return path
        if storage.size(name) >= files.MOST_BYTES:
            raise DamagedCache(f"{storage.where}/{name}: larger than any shard")
        with disk_errors(path.parent), atomic_file(path) as temporary:
            try:
                storage.fetch(name, temporary)
            except Spoiled as error:
                raise DamagedCache(str(error)) from error
            if not _is_named(temporary, name):
                raise DamagedCache(f"{storage.where}/{name}: its content is not what its name says")
        return path

    def _sound(self) -> Reader:
        """What is visible on this machine, once what is damaged is struck from the manifest."""
        while True:
            manifest = self._manifest()
            whole = self._whole(manifest, manifest.shards)
            lost = _names(manifest) - {shard.shard.sha256 for shard in whole}
            try:
                reader = Reader.over(self.folder, manifest, whole)
            except Contradiction as error:
                log.warning("%s; their entries are captured again", error)
                lost |= error.shards
            if not lost:
                return reader
            self._local.change(partial(Manifest.with_shards, without=lost))

    def _whole(self, manifest: Manifest, shards: Sequence[Shard]) -> list[MappedShard]:
        """Shards that are as they were written, checked once; the others are told of."""
        signals = manifest.read_signals()

        def checked(shard: Shard) -> MappedShard | None:
            try:
                mapped = self._mapped.get(shard.sha256) or MappedShard(self.folder, self.teacher, shard, signals)
                mapped.verify()
            except DamagedCache as error:
                log.warning("%s; its %d entries are captured again", error, shard.entries)
                return None
            self._mapped[shard.sha256] = mapped
            return mapped

        with ThreadPoolExecutor(_THREADS) as pool:
            return [mapped for mapped in pool.map(checked, shards) if mapped is not None]

    def _merged_elsewhere(
        self, manifest: Manifest, ours: Sequence[MappedShard], arrived: list[MappedShard]
    ) -> frozenset[str]:
        """Shards of which every answer stands in those that arrived: another machine has merged them."""
        if not ours or not arrived:
            return frozenset()
        index = Reader.over(self.folder, manifest, arrived)
        return frozenset(mapped.shard.sha256 for mapped in ours if not absent(index, mapped.keys).any())


def _groups(shards: Sequence[MappedShard], entries: int) -> Iterator[list[MappedShard]]:
    """Runs of shards that together have at most so many entries, and few bytes."""
    group: list[MappedShard] = []
    for shard in shards:
        together = [*group, shard]
        if group and (
            sum(one.shard.entries for one in together) > entries
            or sum(one.shard.bytes for one in together) > _MERGED_BYTES
        ):
            yield group
            together = [shard]
        group = together
    if group:
        yield group


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise linked(path)


def _is_named(path: Path, name: str) -> bool:
    """Whether a shard's name tells the content of a file."""
    return path.stat().st_size < files.MOST_BYTES and name == f"{files.FOLDER}/{sha256_file(path)}{files.SUFFIX}"


def _names(manifest: Manifest) -> frozenset[str]:
    return frozenset(shard.sha256 for shard in manifest.shards)


def snapshot(reader: Reader, keys: Keys, target: Path, shard_entries: int) -> Manifest:
    """Write the answers for some keys into an empty folder: sorted by key, so equal content gives equal bytes."""
    wanted, _ = unique_keys(keys)
    positions = reader.locate(wanted, "texts")
    teacher = folder_name(reader.manifest.fingerprint)
    shards = []
    for start in range(0, len(wanted), shard_entries):
        part = slice(start, start + shard_entries)
        answers = {signal: reader.encoded(name, positions[part]) for name, signal in reader.signals.items()}
        shards.append(write_shard(target, teacher, wanted[part], answers))
    manifest = reader.manifest.model_copy(update={"shards": tuple(shards)})
    path = target / FIRST
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(manifest))
    return manifest


def absent(reader: Reader | None, keys: Keys) -> npt.NDArray[np.bool_]:
    """Which keys have no answer yet, [n]."""
    return np.ones(len(keys), dtype=bool) if reader is None else reader.find(keys) < 0
