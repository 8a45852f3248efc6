"""Shards and the manifest that makes them visible.

A folder of answers holds shards/NAME.safetensors and manifest.json. A shard is a safetensors file with `keys`
(uint8 [n, 16]) and one fp16 array [n, …] per signal. The manifest is written last, lists every shard with its sha256
and size, and carries a digest of itself: what it does not list is not there, and what differs from it is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stillroom.cache.identity import KEY_BYTES, Keys, fingerprint_digest
from stillroom.errors import InputError
from stillroom.files import atomic_file, read_json, sha256_file, write_json

MANIFEST = "manifest.json"
SHARDS = "shards"
Signals = dict[str, npt.NDArray[np.float16]]


class DamagedCache(InputError):
    """A shard or manifest that is not what was written; nothing of it is used."""


class Shard(BaseModel):
    """One file of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[0-9a-f]{16}\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    entries: int = Field(ge=1)
    bytes: int = Field(ge=1)


class Manifest(BaseModel):
    """What a folder of answers holds. widths: shape of one entry of each signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    fingerprint: dict[str, Any]
    widths: dict[str, int] = {}
    shards: tuple[Shard, ...] = ()

    @property
    def entries(self) -> int:
        """Number of answers over all shards."""
        return sum(shard.entries for shard in self.shards)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest. Raises DamagedCache if it is not exactly what was written."""
    path = folder / MANIFEST
    raw = read_json(path)
    try:
        digest = raw.pop("digest")
        manifest = Manifest.model_validate(raw)
    except (AttributeError, TypeError, KeyError, ValidationError) as error:
        raise DamagedCache(f"{path}: not a cache manifest; run the stage capture again") from error
    if digest != _digest(manifest):
        raise DamagedCache(f"{path}: its contents do not match its digest; run the stage capture again")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the shards that the manifest lists visible, atomically."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json") | {"digest": _digest(manifest)})


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def write_shard(folder: Path, keys: Keys, signals: Mapping[str, npt.NDArray[Any]]) -> Shard:
    """Write one shard, synced to disk, named by its content; a manifest has to list it to be seen."""
    if keys.ndim != 2 or keys.shape[1] != KEY_BYTES or not len(keys):
        raise ValueError(f"keys have shape {keys.shape}, expected [n, {KEY_BYTES}] with n > 0")
    for name, values in signals.items():
        if len(values) != len(keys):
            raise ValueError(f"signal {name} has {len(values)} rows for {len(keys)} keys")
        if not np.isfinite(values).all():
            raise InputError(f"the teacher's {name} are not finite in {int((~np.isfinite(values)).sum())} places")
    arrays = {name: np.ascontiguousarray(values, dtype=np.float16) for name, values in signals.items()}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(f"the teacher's {name} exceed the range of fp16 (±65,504)")
    content = save({"keys": np.ascontiguousarray(keys), **arrays})
    digest = hashlib.sha256(content).hexdigest()
    path = folder / SHARDS / f"{digest[:16]}.safetensors"
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return Shard(name=path.name, sha256=digest, entries=len(keys), bytes=len(content))


def map_shard(folder: Path, shard: Shard, widths: Mapping[str, int]) -> tuple[Keys, Signals]:
    """Memory-map a shard after checking its sha256 and shape. Raises DamagedCache naming the shard."""
    path = folder / SHARDS / shard.name
    if path.is_symlink() or not path.is_file():
        raise DamagedCache(f"{path}: no such file, though the manifest lists it; run the stage capture again")
    if path.stat().st_size != shard.bytes or sha256_file(path) != shard.sha256:
        raise DamagedCache(f"{path}: differs from what was captured; run the stage capture again")
    try:
        arrays = _mapped_tensors(path)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedCache(f"{path}: not a shard of the cache ({error})") from error
    keys = arrays.pop("keys", None)
    if keys is None or keys.shape != (shard.entries, KEY_BYTES) or keys.dtype != np.uint8:
        raise DamagedCache(f"{path}: holds no keys for its {shard.entries} entries")
    found = {name: (values.shape, values.dtype) for name, values in arrays.items()}
    expected = {name: ((shard.entries, width), np.dtype(np.float16)) for name, width in widths.items()}
    if found != expected:
        raise DamagedCache(f"{path}: holds {found}, the manifest promises {expected}")
    for name, values in arrays.items():
        if not _all_finite(values):
            raise DamagedCache(f"{path}: holds {name} that are not finite")
    return keys, arrays


def _mapped_tensors(path: Path) -> dict[str, Any]:
    """Arrays of a safetensors file, mapped and not read (layout: u64 header length, JSON header, data)."""
    types: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F16": np.dtype(np.float16)}
    with safe_open(path, framework="numpy"):
        pass  # checks that the header's sizes and offsets fit each other and the file
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: np.memmap(path, types[entry["dtype"]], "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in header.items()
    }


def _all_finite(values: npt.NDArray[np.float16]) -> bool:
    """As np.isfinite(values).all(), by the bits of the exponent, in a fifth of the time."""
    magnitudes = values.view(np.uint16) & 0x7FFF
    return bool(magnitudes.max(initial=0) < 0x7C00)


def folder_of(root: Path, fields: Mapping[str, Any]) -> Path:
    """Where the answers of a teacher stand below the root of a store."""
    return root / fingerprint_digest(fields)[:32]


def concatenate(parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Join the rows of signals computed in several batches."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
