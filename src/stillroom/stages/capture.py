"""capture: the teacher's answers for the transfer set → a verified snapshot of the teacher cache."""

from collections.abc import Sequence
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
from stillroom.teacher.model import teachers_of


def run(params: Params) -> dict[str, float]:
    """Compute what the shared store lacks, then hand out the answers for this run's texts alone."""
    captured = fill(params, Path(), layout.state() / "cache")
    manifest = publish(captured, params, Path())
    computed = sum(one.computed for one in captured)
    tokens, seconds = (sum(values) for values in zip(*((one.tokens, one.seconds) for one in captured), strict=True))
    return {
        "entries": float(sum(shard.entries for shard in manifest.shards)),
        "computed": float(computed),
        "tokens_per_second": tokens / seconds if computed else 0.0,
    }


def transfer_set(place: Path) -> Stored:
    """The texts that the teacher of a workspace is asked about."""
    return Stored(place / layout.SPLIT / "train.parquet", place / layout.GROWN / TEXTS)


def fill(params: Params, place: Path, root: Path) -> list[Captured]:
    """Compute what a store below `root` lacks for the transfer set of a workspace, of each of its teachers in turn."""
    compute.prepare(params.compute)
    return [
        capture(
            load_live(folder, params.compute, params.capture.batch_tokens),
            transfer_set(place),
            params.capture,
            root,
            params.seed,
            params.compute,
        )
        for folder in teachers_of(place / layout.TEACHER)
    ]


def publish(captured: Sequence[Captured], params: Params, place: Path) -> Manifest:
    """Write artifacts/cache of a workspace, whole or not at all; what of the first teacher is in it."""
    first, *others = captured
    with atomic_folder(place / layout.CACHE) as folder:
        manifest = snapshot(first.reader, first.keys, folder, params.capture.shard_entries)
        for number, one in enumerate(others, start=1):
            own = folder / layout.MEMBERS / str(number)
            own.mkdir(parents=True)
            snapshot(one.reader, one.keys, own, params.capture.shard_entries)
    return manifest
