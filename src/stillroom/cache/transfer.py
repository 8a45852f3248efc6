"""Copy a cache to another place, or from there, teacher by teacher: what is there already is not copied again."""

from dataclasses import dataclass
from pathlib import Path

from stillroom.cache.identity import folder_name
from stillroom.cache.manifest import Manifest, Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.root import teachers
from stillroom.cache.shards import DamagedCache, Shard
from stillroom.cache.store import Store
from stillroom.errors import InputError
from stillroom.storage import open_storage


@dataclass(frozen=True)
class Moved:
    """What was copied of one teacher's folder."""

    teacher: str
    shards: int
    size_bytes: int


def export(root: Path, target: str, teacher: str | None = None) -> list[Moved]:
    """Send every teacher's answers, or one's, to a folder or s3://bucket/prefix. Raises DamagedCache, before a shard
    is sent, for a folder that is not whole."""
    moved: list[Moved] = []
    for name in _chosen(str(root), teacher):
        manifest = _manifest(str(root), name)
        Reader.open(root / name).verify()
        moved.append(_moved(name, Store(root, manifest.fingerprint, target).push()))
    return moved


def fetch(source: str, root: Path, teacher: str | None = None) -> list[Moved]:
    """Fetch every teacher's answers, or one's, from a folder or s3://bucket/prefix, each shard checked.

    Nothing changes there; what is damaged is told of and left out.
    """
    manifests = {name: _manifest(source, name) for name in _chosen(source, teacher)}
    return [
        _moved(name, Store(root, manifest.fingerprint, source).pull(strike=False))
        for name, manifest in manifests.items()
    ]


def _chosen(address: str, teacher: str | None) -> list[str]:
    found = teachers(address)
    if teacher is not None and teacher not in found:
        raise InputError(f"{address}: holds no folder {teacher}; there are {', '.join(found)}")
    return found if teacher is None else [teacher]


def _manifest(address: str, name: str) -> Manifest:
    """The manifest of a teacher's folder, whose name must be its fingerprint's."""
    storage = open_storage(f"{address}/{name}")
    manifest = Manifests(storage).latest()
    if (told := folder_name(manifest.fingerprint)) != name:
        raise DamagedCache(f"{storage.where}: its manifest is of the teacher {told}; remove this folder")
    return manifest


def _moved(name: str, shards: tuple[Shard, ...]) -> Moved:
    return Moved(name, len(shards), sum(shard.bytes for shard in shards))
