"""Immutable files in an S3 bucket; the one conditional request is If-None-Match: * on a PutObject.

If-Match and conditional multipart uploads differ between servers, or are ignored by them.
"""

import hashlib
import io
import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from stillroom import s3
from stillroom.errors import Absent, InputError, Spoiled, TryAgain
from stillroom.files import atomic_file, disk_errors, sha256_file
from stillroom.storage.address import checked, folder_prefix, is_name

_Stream = io.BytesIO | io.BufferedRandom
_PIECE = 1 << 20
_PART = 16 << 20
_NO_SUCH_REQUEST = (405, 501)
"""What a server answers to a request that it does not have."""
_DIGEST = "sha256"
"""The metadata field that holds the sha256 of what was sent: servers compare no checksums, and some drop the field."""


class Bucket:
    """A storage below a prefix of a bucket. May be used by many threads.

    attempts: how often botocore sends a request in all, and how often a body that broke off is asked for.
    """

    def __init__(
        self,
        name: str,
        prefix: str = "",
        *,
        attempts: int = 5,
        connect_timeout_s: float = 5,
        read_timeout_s: float = 30,
    ) -> None:
        self.where = f"s3://{name}/{prefix}".rstrip("/")
        self._bucket = name
        self._root = folder_prefix(prefix)
        self._attempts = attempts
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._connecting = threading.Lock()
        self._client: Any = None
        self._probing = threading.Lock()
        self._probed = False
        self._unanswered: set[str] = set()

    def names(self, below: str = "") -> list[str]:
        start = self._root + folder_prefix(below)
        found: list[str] = []
        following: dict[str, str] | None = {}
        with self._server(below) as client:
            while following is not None:
                page = self._page(client, start, following)
                found += (entry["Key"].removeprefix(self._root) for entry in page.get("Contents", ()))
                token = page.get("NextContinuationToken")
                following = {"ContinuationToken": token} if token else None
        return sorted(name for name in found if is_name(name))

    def read(self, name: str) -> bytes:
        key = self._key(name)
        stream = io.BytesIO()
        with self._server(name) as client:
            self._receive(client, key, stream)
        return stream.getvalue()

    def write(self, name: str, source: Path) -> None:
        from boto3.exceptions import S3UploadFailedError
        from boto3.s3.transfer import TransferConfig

        key = self._key(name)
        digest = sha256_file(source)
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
        given = {"Metadata": {_DIGEST: digest}}
        with disk_errors(source), self._server(name) as client:
            try:
                client.upload_file(str(source), self._bucket, key, ExtraArgs=given, Config=config)
            except S3UploadFailedError as error:
                # The answer to the last request of a multipart upload was lost: asked again, the server knows none.
                completed = s3.code(error.__context__) == "NoSuchUpload" and self._holds(client, key, digest)
                if not completed:
                    raise

    def create(self, name: str, content: bytes) -> bool:
        """Beside Folder's: True also if an earlier try of ours had arrived and its answer was lost."""
        key = self._key(name)
        with self._probing:
            if not self._probed:
                self.probe()
                self._probed = True
        try:
            with self._server(name) as client:
                created = self._create(client, key, content, repeated=name in self._unanswered)
        except TryAgain:
            self._unanswered.add(name)
            raise
        if created:
            self._unanswered.discard(name)
        return created

    def fetch(self, name: str, target: Path) -> None:
        key = self._key(name)
        with (
            disk_errors(target.parent),
            atomic_file(target) as temporary,
            temporary.open("w+b") as stream,
            self._server(name) as client,
        ):
            self._receive(client, key, stream)

    def remove(self, name: str) -> None:
        key = self._key(name)
        with suppress(Absent), self._server(name) as client:
            client.delete_object(Bucket=self._bucket, Key=key)

    def size(self, name: str) -> int:
        key = self._key(name)
        with self._server(name) as client:
            return int(self._head(client, key)["ContentLength"])

    def modified(self, name: str) -> float:
        key = self._key(name)
        with self._server(name) as client:
            return float(self._head(client, key)["LastModified"].timestamp())

    def sweep(self, older_than_s: float) -> None:
        """Multipart uploads that were never completed, which are no objects; nothing if the server lists none."""
        from botocore.exceptions import ClientError

        with self._server() as client:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._root)
            try:
                uploads = [upload for page in pages for upload in page.get("Uploads", ())]
            except ClientError as error:
                if s3.status(error) not in _NO_SUCH_REQUEST:
                    raise
                return
            for upload in uploads:
                if time.time() - upload["Initiated"].timestamp() > older_than_s:
                    with suppress(client.exceptions.NoSuchUpload):  # its writer has completed it meanwhile
                        client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

    def probe(self) -> None:
        """Raise InputError if the server ignores If-None-Match, which some do in silence: it writes a name twice."""
        name = f".probe.{uuid.uuid4().hex[:8]}.tmp"
        with self._server() as client:
            self._create(client, self._root + name, b"first")
            ignored = self._create(client, self._root + name, b"second")
            with suppress(InputError), s3.told(self.where):
                client.delete_object(Bucket=self._bucket, Key=self._root + name)
        if ignored:
            raise InputError(
                f"{self.where}: the server ignores If-None-Match, so two writers could both win; use one that "
                "refuses a conditional PutObject, or a folder"
            )

    def _key(self, name: str) -> str:
        return self._root + checked(name)

    @contextmanager
    def _server(self, name: str = "") -> Iterator[Any]:
        """The client, made when it is first needed; errors of what is done with it are told with the address."""
        where = f"{self.where}/{name}".rstrip("/")
        with s3.told(where):
            with self._connecting:
                if self._client is None:
                    self._client = s3.client(
                        where,
                        attempts=self._attempts,
                        connect_timeout_s=self._connect_timeout_s,
                        read_timeout_s=self._read_timeout_s,
                    )
            yield self._client

    def _head(self, client: Any, key: str) -> Any:
        from botocore.exceptions import ClientError

        try:
            return client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if s3.status(error) != 404:
                raise
            # An answer to HEAD has no body that says whether the object or the bucket is missing.
            client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
            raise Absent(f"{self._address(key)}: no such object") from error

    def _holds(self, client: Any, key: str, digest: str) -> bool:
        try:
            return bool(self._head(client, key)["Metadata"].get(_DIGEST) == digest)
        except Absent:
            return False

    def _page(self, client: Any, start: str, following: dict[str, str]) -> Any:
        """A page of a listing, asked for again if it arrives empty, which botocore takes for one without names."""
        for attempt in range(1, self._attempts + 1):
            page = client.list_objects_v2(Bucket=self._bucket, Prefix=start, **following)
            if "Name" in page or "IsTruncated" in page:
                return page
            if attempt < self._attempts:
                s3.pause(attempt)
        raise TryAgain(f"{self._address(start)}: the server answers with an empty page; try again")

    def _create(self, client: Any, key: str, content: bytes, repeated: bool = False) -> bool:
        """PutObject if the key is free. `repeated`: an earlier try may have arrived without our knowing."""
        from botocore.exceptions import ClientError

        given = {"Body": content, "Metadata": {_DIGEST: hashlib.sha256(content).hexdigest()}, "IfNoneMatch": "*"}
        attempt = 0
        while True:
            attempt += 1
            try:
                client.put_object(Bucket=self._bucket, Key=key, **given)
                return True
            except ClientError as error:
                repeated = repeated or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                if s3.status(error) == 412:
                    return repeated and self._contains(client, key, content)
                if s3.code(error) != "ConditionalRequestConflict" or attempt >= self._attempts:
                    raise
            s3.pause(attempt)

    def _contains(self, client: Any, key: str, content: bytes) -> bool:
        stream = io.BytesIO()
        with suppress(Absent), s3.told(self._address(key)):
            self._receive(client, key, stream)
            return stream.getvalue() == content
        return False

    def _receive(self, client: Any, key: str, stream: _Stream) -> None:
        """Write an object to a stream, and see that it is all there and is what was sent.

        botocore repeats a request until its answer begins; a body that breaks off is continued here.
        """
        answer = whole = client.get_object(Bucket=self._bucket, Key=key)
        for attempt in itertools.count(1):
            try:
                with s3.told(self._address(key)), closing(answer["Body"]) as body:
                    for piece in body.iter_chunks(_PIECE):
                        stream.write(piece)
                self._verify(client, key, whole, stream)
                return
            except TryAgain:
                if attempt >= self._attempts:
                    raise
            s3.pause(attempt)
            answer = self._rest(client, key, whole, stream)
            whole = whole if stream.tell() else answer

    def _rest(self, client: Any, key: str, whole: Any, stream: _Stream) -> Any:
        """What is still to come of the answer `whole`; if nothing, or no part is to be had, the stream starts anew."""
        if 0 < stream.tell() < whole["ContentLength"]:
            rest = client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={stream.tell()}-")
            if rest["ResponseMetadata"]["HTTPStatusCode"] == 206 and rest["ETag"] == whole["ETag"]:
                return rest
            rest["Body"].close()
        stream.seek(0)
        stream.truncate()
        return client.get_object(Bucket=self._bucket, Key=key)

    def _verify(self, client: Any, key: str, whole: Any, stream: _Stream) -> None:
        """Compare with the sha256 that was stored with the object or, where there is none, with its size."""
        arrived = stream.tell()
        digest = whole["Metadata"].get(_DIGEST)
        size = whole["ContentLength"] if digest else self._head(client, key)["ContentLength"]
        if arrived != size:
            raise TryAgain(f"{self._address(key)}: {arrived} of {size} bytes arrived; try again")
        stream.seek(0)
        if digest and hashlib.file_digest(stream, "sha256").hexdigest() != digest:
            raise Spoiled(
                f"{self._address(key)}: what arrived is not what was stored (its sha256 differs); try again, and "
                "remove the object if that stays"
            )

    def _address(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"
