"""s3://: an object, or every object below a prefix; AWS_ENDPOINT_URL chooses another server than Amazon's."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.data.sources.address import S3Object
from stillroom.data.sources.disk import ensure_free, inside
from stillroom.errors import InputError, TryAgain
from stillroom.events import progress


@dataclass(frozen=True)
class _Entry:
    key: str
    size_bytes: int
    etag: str


def version(address: S3Object, what: str) -> str:
    """A digest of names, sizes and ETags: while it stays, there is nothing to download."""
    with _told(address, what):
        entries = _entries(_client(), address, what)
    listing = "".join(f"{name}\0{entry.size_bytes}\0{entry.etag}\n" for name, entry in sorted(entries.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def download(address: S3Object, scratch: Path, what: str) -> Path:
    """Download to `scratch`; returns the file, or the folder for a prefix."""
    where = f"{what}: {address.uri}"
    with _told(address, what):
        client = _client()
        entries = _entries(client, address, what)
        total = sum(entry.size_bytes for entry in entries.values())
        ensure_free(scratch, total, where)
        target = Path(tempfile.mkdtemp(dir=scratch)) / inside(Path(), address.name, where)
        with progress(f"fetch {address.name}", total) as advance:
            for name, entry in entries.items():
                path = inside(target, name, where) if name else target
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(address.bucket, entry.key, str(path), Callback=advance)
    return target


def _client() -> Any:
    import boto3
    from botocore.config import Config

    # Servers other than Amazon's reject the checksums that boto3 adds unasked since 1.36.
    config = Config(
        retries={"mode": "standard"},
        connect_timeout=10,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", config=config)


def _entries(client: Any, address: S3Object, what: str) -> dict[str, _Entry]:
    """Objects by name relative to the prefix; the name is empty if the address is an object itself."""
    from botocore.exceptions import ClientError

    if not address.key.endswith("/"):
        try:
            head = client.head_object(Bucket=address.bucket, Key=address.key)
            return {"": _Entry(address.key, head["ContentLength"], head["ETag"])}
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
    prefix = address.key.rstrip("/") + "/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=prefix)
    found = [entry for page in pages for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
    if not found:
        raise InputError(f"{what}: {address.uri}: no such object, and nothing below it")
    return {entry["Key"].removeprefix(prefix): _Entry(entry["Key"], entry["Size"], entry["ETag"]) for entry in found}


@contextmanager
def _told(address: S3Object, what: str) -> Iterator[None]:
    """Turn boto3's errors into ours: what can pass by itself is TryAgain, the rest InputError."""
    from boto3.exceptions import RetriesExceededError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        PartialCredentialsError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    where = f"{what}: {address.uri}"
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        told = error.response["Error"].get("Message") or error.response["Error"].get("Code")
        if status == 429 or status >= 500:
            raise TryAgain(f"{where}: the server answers {status} ({told}); try again later") from error
        raise InputError(f"{where}: the server answers {status} ({told})") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise InputError(
            f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
        ) from error
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        raise InputError(f"{where}: no network: the S3 endpoint is not reachable; check AWS_ENDPOINT_URL") from error
    except (RetriesExceededError, ReadTimeoutError, ResponseStreamingError) as error:
        raise TryAgain(f"{where}: the transfer broke off ({type(error).__name__}); try again") from error
    except BotoCoreError as error:
        raise InputError(f"{where}: {error}") from error
