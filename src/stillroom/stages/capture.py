"""capture: the teacher's answers for the transfer set → a verified snapshot of the teacher cache."""

from pathlib import Path

from stillroom import compute, layout
from stillroom.cache.capture import Captured, capture
from stillroom.cache.live import load_live
from stillroom.cache.manifest import Manifest
from stillroom.cache.store import snapshot
from stillroom.cache.texts import Stored
from stillroom.data.grown import TEXTS
from stillroom.files import atomic_folder
from stillroom.params import Params


def run(params: Params) -> dict[str, float]:
    """Compute what the shared store lacks, then hand out the answers for this run's texts alone."""
    captured = fill(params, Path(), layout.state() / "cache")
    manifest = publish(captured, params, Path())
    return {
        "entries": float(sum(shard.entries for shard in manifest.shards)),
        "computed": float(captured.computed),
        "tokens_per_second": captured.tokens / captured.seconds if captured.computed else 0.0,
    }


def transfer_set(place: Path) -> Stored:
    """The texts that the teacher of a workspace is asked about."""
    return Stored(place / layout.SPLIT / "train.parquet", place / layout.GROWN / TEXTS)


def fill(params: Params, place: Path, root: Path) -> Captured:
    """Compute what a store below `root` lacks for the transfer set of a workspace."""
    compute.prepare(params.compute)
    return capture(
        load_live(place / layout.TEACHER, params.compute, params.capture.batch_tokens),
        transfer_set(place),
        params.capture,
        root,
        params.seed,
        params.compute,
    )


def publish(captured: Captured, params: Params, place: Path) -> Manifest:
    """Write artifacts/cache of a workspace, whole or not at all."""
    with atomic_folder(place / layout.CACHE) as folder:
        return snapshot(captured.reader, captured.keys, folder, params.capture.shard_entries)
