"""The content-addressed store of sources: <state>/sources/<digest>/<name>, and what each address held."""

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.data.sources.listing import Listing, read_listing
from stillroom.errors import InputError, TryAgain
from stillroom.files import atomic_folder, read_json, write_json

LOCK_WAIT_S = 600.0
_SCRATCH = ".fetch-"
_STALE_S = 24 * 3600.0

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Stored:
    """A file or folder of known content: digests by name, and of the whole."""

    path: Path
    listing: Listing


class Store:
    """Fetched files and folders by digest: what stands under one is whole, and checked when it is used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._memory = root / "seen"
        self._index = root / "index"
        self._located = root / "located"

    def listing(self, path: Path) -> Listing:
        """Digest of a file or folder anywhere, read again only if it changed since the store last saw it."""
        return read_listing(path, self._memory)

    def find(self, digest: str) -> Stored | None:
        """The stored file or folder with this digest; None if it is missing, or was damaged since."""
        folder = self.root / digest
        children = list(folder.iterdir()) if folder.is_dir() else []
        if len(children) == 1:
            listing = self.listing(children[0])
            if listing.digest == digest:
                return Stored(children[0], listing)
        if children:
            log.warning("%s does not hold what its name says; it is fetched again", folder)
        return self._find_located(digest)

    def admit(self, path: Path, listing: Listing) -> Stored:
        """Move a complete download, whose digest the caller has checked, to its place."""
        place = self.root / listing.digest
        found = self.find(listing.digest)
        if found is not None and found.path.parent == place:
            return found
        with atomic_folder(place) as folder:
            path.rename(folder / path.name)
        return Stored(place / path.name, listing)

    def recall(self, uri: str) -> dict[str, Any]:
        """What is known of an address: `digest` and `version`; empty if it was never fetched."""
        try:
            entry = read_json(self._index / f"{_key(uri)}.json")
        except InputError:
            return {}
        return entry if isinstance(entry, dict) and entry.get("uri") == uri else {}

    def remember(self, uri: str, digest: str, version: str | None) -> None:
        """Record what an address held, so that a later run needs no network."""
        write_json(self._index / f"{_key(uri)}.json", {"uri": uri, "digest": digest, "version": version})

    def locate(self, path: Path, digest: str) -> None:
        """Record that a local path, used in place, has this digest."""
        record = self._located / f"{digest}.json"
        entry = {"path": str(path)}
        if not record.is_file() or read_json(record) != entry:
            write_json(record, entry)

    def _find_located(self, digest: str) -> Stored | None:
        try:
            path = Path(read_json(self._located / f"{digest}.json")["path"])
        except (InputError, KeyError, TypeError):
            return None
        listing = self.listing(path) if path.exists() else None
        return Stored(path, listing) if listing and listing.digest == digest else None

    @contextmanager
    def fetching(self, uri: str) -> Iterator[None]:
        """Hold an address for one fetcher at a time; raises TryAgain when another takes too long."""
        from filelock import FileLock, Timeout

        self._index.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._index / f"{_key(uri)}.lock", timeout=LOCK_WAIT_S):
                yield
        except Timeout as error:
            raise TryAgain(
                f"{uri}: another run has been fetching it for {LOCK_WAIT_S:.0f} s; try again later"
            ) from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for downloads on the store's disk, gone afterwards; what killed runs left is swept."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.root}: not writable ({error.strerror}); set STILLROOM_STATE") from error
        for left in self.root.glob(f"{_SCRATCH}*"):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.root, ignore_cleanup_errors=True) as name:
            yield Path(name)


def _key(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:32]
