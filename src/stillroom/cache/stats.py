"""Figures of a cache: whose answers it holds, how many, how large, and how often they were asked for again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.cache.manifest import FOLDER as MANIFESTS
from stillroom.cache.manifest import Manifests
from stillroom.cache.reader import Reader
from stillroom.cache.root import teachers
from stillroom.cache.store import PASSES
from stillroom.files import disk_errors
from stillroom.storage import open_storage
from stillroom.storage.address import parse


@dataclass(frozen=True)
class TeacherStats:
    """Of one teacher's folder.

    labels: their number; weights: the first digits of their sha256; signals: name → codec; entries: distinct ones, in
    a bucket as its manifest counts them; size_bytes: of all files; bytes_per_entry: of listed shards and the newest
    manifest; passes: captures on this machine; hit_rate: share of the texts they asked for that was there, None
    without any; last_pass: seconds since 1970.
    """

    teacher: str
    labels: int
    precision: str
    max_length: int | None
    weights: str
    signals: dict[str, str]
    entries: int
    shards: int
    size_bytes: int
    bytes_per_entry: float | None
    passes: int
    hit_rate: float | None
    last_pass: int | None


def stats(address: str) -> list[TeacherStats]:
    """Figures of every teacher's folder below a root. Raises InputError for one that is no cache or is damaged."""
    return [_stats(f"{address}/{name}", name) for name in teachers(address)]


def _stats(address: str, name: str) -> TeacherStats:
    storage = open_storage(address)
    manifest = Manifests(storage).latest()
    fields = manifest.fingerprint
    sizes = {file: storage.size(file) for file in storage.names()}
    newest = max(file for file in sizes if file.startswith(f"{MANIFESTS}/"))
    kept = sum(shard.bytes for shard in manifest.shards) + sizes[newest]
    place = parse(address)
    entries = len(Reader.open(place)) if isinstance(place, Path) else sum(shard.entries for shard in manifest.shards)
    passes = list(_passes(place)) if isinstance(place, Path) else []
    asked = sum(one["asked"] for one in passes)
    return TeacherStats(
        teacher=name,
        labels=len(fields.get("labels", ())),
        precision=str(fields.get("precision")),
        max_length=fields.get("max_length"),
        weights=_first_digits(fields.get("weights")),
        signals={signal: stored.codec for signal, stored in manifest.signals.items()},
        entries=entries,
        shards=len(manifest.shards),
        size_bytes=sum(sizes.values()),
        bytes_per_entry=kept / entries if entries else None,
        passes=len(passes),
        hit_rate=sum(one["found"] for one in passes) / asked if asked else None,
        last_pass=max((one["time"] for one in passes), default=None),
    )


def _passes(folder: Path) -> Iterator[dict[str, int]]:
    """The passes over a store, without a line that a kill cut short."""
    path = folder / PASSES
    if path.is_symlink() or not path.is_file():
        return
    with disk_errors(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        try:
            told = json.loads(line)
            yield {name: int(told[name]) for name in ("time", "asked", "found")}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _first_digits(weights: Any) -> str:
    digests = weights.values() if isinstance(weights, dict) else [weights]
    return ", ".join(str(digest)[:12] for digest in digests)
