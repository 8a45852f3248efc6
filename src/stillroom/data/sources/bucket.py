"""s3://: an object, or every object below a prefix; AWS_ENDPOINT_URL chooses another server than Amazon's."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom import s3
from stillroom.data.sources.address import S3Object
from stillroom.data.sources.disk import ensure_free, inside
from stillroom.errors import InputError
from stillroom.events import progress


@dataclass(frozen=True)
class _Entry:
    key: str
    size_bytes: int
    etag: str


def version(address: S3Object, what: str) -> str:
    """A digest of names, sizes and ETags: while it stays, there is nothing to download."""
    where = f"{what}: {address.uri}"
    with s3.told(where, unreachable=InputError):
        entries = _entries(s3.client(where), address, where)
    listing = "".join(f"{name}\0{entry.size_bytes}\0{entry.etag}\n" for name, entry in sorted(entries.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def download(address: S3Object, scratch: Path, what: str) -> Path:
    """Download to `scratch`; returns the file, or the folder for a prefix."""
    where = f"{what}: {address.uri}"
    with s3.told(where, unreachable=InputError):
        client = s3.client(where)
        entries = _entries(client, address, where)
        total = sum(entry.size_bytes for entry in entries.values())
        ensure_free(scratch, total, where)
        target = Path(tempfile.mkdtemp(dir=scratch)) / inside(Path(), address.name, where)
        with progress(f"fetch {address.name}", total) as advance:
            for name, entry in entries.items():
                path = inside(target, name, where) if name else target
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(address.bucket, entry.key, str(path), Callback=advance)
    return target


def _entries(client: Any, address: S3Object, where: str) -> dict[str, _Entry]:
    """Objects by name relative to the prefix; the name is empty if the address is an object itself."""
    from botocore.exceptions import ClientError

    if not address.key.endswith("/"):
        try:
            head = client.head_object(Bucket=address.bucket, Key=address.key)
            return {"": _Entry(address.key, head["ContentLength"], head["ETag"])}
        except ClientError as error:
            if s3.status(error) != 404:
                raise
    prefix = address.key.rstrip("/") + "/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=prefix)
    found = [entry for page in pages for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
    if not found:
        raise InputError(f"{where}: no such object, and nothing below it")
    return {entry["Key"].removeprefix(prefix): _Entry(entry["Key"], entry["Size"], entry["ETag"]) for entry in found}
