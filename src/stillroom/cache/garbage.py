"""Remove what no manifest lists, and never what one does."""

import time

from stillroom.cache.manifest import Manifest, Manifests
from stillroom.cache.shards import FOLDER
from stillroom.errors import Absent
from stillroom.storage import Storage

GRACE_S = 24 * 3600.0
"""A file that no manifest lists stays so long: its writer may be about to list it, a reader about to open it."""


def collect(storage: Storage, manifests: Manifests, grace_s: float = GRACE_S) -> dict[str, int]:
    """Remove unlisted shards and unfinished files that are older than the grace time; the shards and their bytes."""
    storage.sweep(grace_s)
    removed = unlisted(storage, manifests, grace_s)
    for name in removed:
        storage.remove(name)
    return removed


def unlisted(storage: Storage, manifests: Manifests, grace_s: float) -> dict[str, int]:
    """The shards, with their bytes, that no manifest lists and that are older than the grace time.

    The older manifests that are kept count too: a reader may have one of them in hand. Raises DamagedCache if the
    newest is damaged, which tells nothing of what is in use.
    """
    old = {name: size for name in storage.names(FOLDER) if (size := _size_if_old(storage, name, grace_s)) is not None}
    # Read after the ages: what a writer has listed meanwhile is seen.
    kept = [manifests.latest(), *(manifest for _, manifest in manifests.every() if isinstance(manifest, Manifest))]
    listed = {shard.name for manifest in kept for shard in manifest.shards}
    return {name: size for name, size in old.items() if name not in listed}


def _size_if_old(storage: Storage, name: str, grace_s: float) -> int | None:
    try:
        return storage.size(name) if time.time() - storage.modified(name) > grace_s else None
    except Absent:
        return None
