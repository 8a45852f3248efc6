"""A place for immutable files, in a folder or in a bucket: whole or not there, and created once if it matters who."""

from pathlib import Path
from typing import Protocol

from stillroom.errors import Absent
from stillroom.storage.address import parse
from stillroom.storage.bucket import Bucket
from stillroom.storage.folder import Folder

__all__ = ["Absent", "Bucket", "Folder", "Storage", "open_storage"]


class Storage(Protocol):
    """Files by name. A name is a relative POSIX path; any other is a ValueError, since callers make them.

    A name is never also the folder of another one. What can pass by itself is TryAgain, the rest InputError.
    """

    where: str
    """What messages call it."""

    def names(self, below: str = "") -> list[str]:
        """All names below a folder, at any depth, sorted; none if the folder or the place does not exist yet."""

    def read(self, name: str) -> bytes:
        """The content of a small file; raises Absent if there is none."""

    def write(self, name: str, source: Path) -> None:
        """Put a copy of a local file here, whole or not at all; replacing is harmless if names tell the content."""

    def create(self, name: str, content: bytes) -> bool:
        """Write the content whole if the name is free; False if it is taken.

        Of writers that race for a name exactly one gets True, as long as what they write differs.
        """

    def fetch(self, name: str, target: Path) -> None:
        """Put a copy at a local path, whole or not at all; raises Absent if there is no such file here."""

    def remove(self, name: str) -> None:
        """Remove a file; it is no error if there is none."""

    def size(self, name: str) -> int:
        """Bytes of a file; raises Absent if there is none."""

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970 by the storage's clock; raises Absent if there is none."""

    def sweep(self, older_than_s: float) -> None:
        """Remove what writers that were killed have left unfinished, if it is as old as that."""


def open_storage(address: str | Path) -> Storage:
    """The storage at a path or at s3://bucket/prefix; nothing is touched yet. Raises InputError for other addresses."""
    match parse(address):
        case Path() as folder:
            return Folder(folder)
        case bucket, key:
            return Bucket(bucket, key)
