"""Where a storage is, and what a file in it may be called: the same names in a folder and in a bucket."""

from pathlib import Path

from stillroom import s3
from stillroom.errors import InputError
from stillroom.files import is_temporary


def checked(name: str) -> str:
    """The name itself, a relative POSIX path; ValueError for one that a folder or a bucket could not hold."""
    parts = name.split("/")
    unsafe = any(part in ("", ".", "..") for part in parts) or "\\" in name or min(name) < " "
    if unsafe or is_temporary(parts[-1]):
        raise ValueError(f"{name!r} is no name in a storage; use a relative POSIX path without '.' and '..'")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} is no name in a storage: not UTF-8") from error
    return name


def is_name(name: str) -> bool:
    """Whether a file that was found has a name that a caller could use; others are not ours, or unfinished."""
    try:
        checked(name)
    except ValueError:
        return False
    return True


def folder_prefix(below: str) -> str:
    """What names below a folder start with: `a/` for `a` and `a/`, nothing for the storage itself."""
    return checked(below.removesuffix("/")) + "/" if below else ""


def parse(address: str | Path) -> Path | tuple[str, str]:
    """A folder, or a bucket and a prefix; raises InputError that says how an address is written."""
    text = str(address)
    scheme, found, rest = text.partition("://")
    if not text.strip() or "\0" in text:
        raise InputError("the address of a storage is empty; give a folder or s3://bucket/prefix")
    if found and scheme != "s3":
        raise InputError(f"{text}: {scheme}:// is no storage; give a folder or s3://bucket/prefix")
    if not found and not text.startswith("s3:"):
        return _folder(Path(text))
    bucket, _, key = rest.partition("/")
    key = key.removesuffix("/")
    if not s3.BUCKET.fullmatch(bucket) or (key and not is_name(key)):
        raise InputError(f"{text}: write s3://bucket or s3://bucket/prefix, as a string")
    return bucket, key


def _folder(path: Path) -> Path:
    path = path.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; the address of a storage names a folder")
    return path
