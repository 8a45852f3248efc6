"""Fetch: from any address to a local file or folder whose digest is known and was checked."""

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path

from stillroom import layout
from stillroom.data.sources import bucket, hub, web, wheel
from stillroom.data.sources.address import (
    Address,
    HubRepository,
    LocalPath,
    S3Object,
    WebFile,
    WheelMember,
    parse,
    shown,
)
from stillroom.data.sources.listing import Listing, read_listing
from stillroom.data.sources.store import Store
from stillroom.errors import InputError
from stillroom.files import NO_SPACE

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Fetched:
    """A source on this machine: where, its files' digests by name, and the digest of the whole."""

    address: Address
    path: Path
    listing: Listing


def source_store() -> Store:
    """The store in the state folder."""
    return Store(layout.state() / "sources")


def fetch(uri: str, sha256: str | None, what: str) -> Path:
    """Resolve an address to a file or folder; a local path is used in place, all else is stored once.

    `what` names the parameter that holds the address, for messages. No network is needed for what is stored
    and pinned: by `sha256`, by a version (pypi://) or by a commit (hf://). Raises InputError (no such
    source, no network, no disk space, a digest other than `sha256`) and TryAgain (a server that is
    overloaded or broke off).
    """
    store = source_store()
    with store.scratch() as scratch:
        return fetch_into(store, parse(uri, what), sha256, what, scratch).path


def digest_of(uri: str, what: str) -> str:
    """sha256 of what stands at an address: of a file's bytes, or of a folder's tree. As `fetch`."""
    store = source_store()
    with store.scratch() as scratch:
        return fetch_into(store, parse(uri, what), None, what, scratch).listing.digest


def fetch_into(store: Store, address: Address, sha256: str | None, what: str, scratch: Path) -> Fetched:
    """As `fetch`; downloads that share a `scratch` folder share what they can, such as one wheel."""
    if isinstance(address, LocalPath):
        return _local(store, address, sha256, what)
    if isinstance(address, WebFile) and sha256 is None:
        raise InputError(f"{what}: {shown(address.uri)}: an https:// source needs its sha256; give it in params.yaml")
    found = _stored(store, address, sha256)
    if found is not None:
        return found
    with store.fetching(address.uri):
        return _stored(store, address, sha256) or _download(store, address, sha256, what, scratch)


def _local(store: Store, address: LocalPath, sha256: str | None, what: str) -> Fetched:
    path = address.path
    if not path.exists():
        raise InputError(f"{what}: {address.uri}: no such file or folder{_near(path)}")
    try:
        listing = store.listing(path)
    except OSError as error:
        raise InputError(f"{what}: {address.uri}: not readable ({error.strerror})") from error
    _check(listing.digest, sha256, address, what)
    store.locate(path, listing.digest)
    return Fetched(address, path, listing)


def _near(path: Path) -> str:
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _stored(store: Store, address: Address, sha256: str | None) -> Fetched | None:
    digest = sha256 or (store.recall(address.uri).get("digest") if address.pinned else None)
    found = store.find(digest) if digest else None
    return Fetched(address, found.path, found.listing) if found else None


def _download(store: Store, address: Address, sha256: str | None, what: str, scratch: Path) -> Fetched:
    known = store.recall(address.uri)
    version = None if sha256 or address.pinned else _version(address, what)
    if version is not None and version == known.get("version"):
        found = store.find(known["digest"])
        if found is not None:
            return Fetched(address, found.path, found.listing)
    log.info("fetching %s", shown(address.uri))
    path = _transport(address, what, scratch)
    listing = read_listing(path)
    _check(listing.digest, sha256, address, what)
    if address.pinned and known and known["digest"] != listing.digest:
        raise InputError(
            f"{what}: {address.uri}: gives sha256 {listing.digest}, but gave {known['digest']} before, "
            "and a fixed version must not change; find out which is right and pin it with a sha256"
        )
    stored = store.admit(path, listing)
    store.remember(address.uri, listing.digest, version)
    return Fetched(address, stored.path, stored.listing)


def _version(address: Address, what: str) -> str | None:
    match address:
        case S3Object():
            return bucket.version(address, what)
        case HubRepository():
            return hub.version(address, what)
    return None


def _transport(address: Address, what: str, scratch: Path) -> Path:
    try:
        return _download_to(scratch, address, what)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        where = f"{what}: {shown(address.uri)}"
        raise InputError(f"{where}: no space left on the disk of {scratch.parent}; free some and run again") from error


def _download_to(scratch: Path, address: Address, what: str) -> Path:
    match address:
        case S3Object():
            return bucket.download(address, scratch, what)
        case HubRepository():
            return hub.download(address, scratch, what)
        case WebFile():
            return web.download(address, scratch, what)
        case WheelMember():
            return wheel.download(address, scratch, what)
        case LocalPath():
            return address.path


def _check(digest: str, sha256: str | None, address: Address, what: str) -> None:
    if sha256 is not None and digest != sha256:
        raise InputError(
            f"{what}: {shown(address.uri)}: has sha256 {digest}, but params.yaml demands {sha256}; "
            "the source changed, or the digest is of another"
        )
