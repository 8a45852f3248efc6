"""The append-only record of promotions: one JSON file per entry, each naming the hash of the one before it.

MLflow moves an alias for whoever writes last; it has no compare-and-swap. An entry is created only if its
number is free, so of several writers exactly one gets it, and the champion alias is merely a projection of
the last entry.
"""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stillroom import layout
from stillroom.errors import InputError, TryAgain

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ENTRY = re.compile(r"\d{8}\.json")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Entry:
    """One promotion: `to_version` became champion; `previous` is the sha256 of the entry before it."""

    sequence: int
    model: str
    from_version: int | None
    to_version: int
    actor: str
    reason: str
    gate_report_sha256: str
    package_digest: str
    time: str
    previous: str | None


class Store(Protocol):
    """Where entries stand. `create` is the one primitive: it writes a name once and never again."""

    def names(self, folder: str) -> list[str]:
        """Names directly below a folder, in any order; none for a folder that does not exist."""

    def read(self, name: str) -> bytes:
        """The content of a name that exists."""

    def create(self, name: str, content: bytes) -> bool:
        """Write the content whole if the name is free; False if it is taken."""


class FileStore:
    """A folder on a file system with hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        path = self.root / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def create(self, name: str, content: bytes) -> bool:
        """A synced temporary file is linked to the name: a link never replaces, nor shows half a file."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            raise TryAgain(f"{target}: cannot be written now ({error.strerror}); nothing was promoted") from error
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True


def default_store() -> Store:
    """The ledger of this installation: a folder in the state folder."""
    return FileStore(layout.state() / "ledger")


def entry_name(model: str, sequence: int) -> str:
    """Where an entry stands in the store; refuses a model name that could leave its folder."""
    if not _MODEL.fullmatch(model):
        raise InputError(f"{model!r} is no model name; use letters, digits, dots, - and _")
    return f"{model}/{sequence:08d}.json"


def read(model: str, store: Store) -> list[Entry]:
    """The whole ledger of a model, oldest first.

    Raises InputError naming the entry that is missing, unreadable or does not follow from the one before.
    """
    folder = entry_name(model, 0).partition("/")[0]
    found: list[Entry] = []
    for name in sorted(name for name in store.names(folder) if _ENTRY.fullmatch(name)):
        path = f"{folder}/{name}"
        content = store.read(path)
        try:
            entry = TypeAdapter(Entry).validate_json(content)
        except ValidationError as error:
            raise InputError(f"ledger {path}: not a ledger entry; restore it from a backup") from error
        follows = (entry.sequence, entry.model, entry.previous) == (len(found) + 1, model, _link(found))
        if not follows or content != encoded(entry):
            raise InputError(
                f"ledger {path}: does not follow from entry {len(found)}; an entry was changed or removed, "
                "restore the ledger from a backup"
            )
        found.append(entry)
    return found


def append(
    model: str,
    store: Store,
    after: Sequence[Entry],
    *,
    to_version: int,
    actor: str,
    reason: str,
    gate_report_sha256: str,
    package_digest: str,
    time: str,
) -> Entry | None:
    """Write the entry after `after`, the ledger as the caller read it; None if another writer was first.

    time: ISO 8601, UTC.
    """
    last = after[-1] if after else None
    entry = Entry(
        sequence=len(after) + 1,
        model=model,
        from_version=last.to_version if last else None,
        to_version=to_version,
        actor=actor,
        reason=reason,
        gate_report_sha256=gate_report_sha256,
        package_digest=package_digest,
        time=time,
        previous=_link(after),
    )
    return entry if store.create(entry_name(model, entry.sequence), encoded(entry)) else None


def encoded(entry: Entry) -> bytes:
    """The bytes of an entry's file; the next entry holds their sha256."""
    return (json.dumps(asdict(entry), indent=2, ensure_ascii=False) + "\n").encode()


def _link(entries: Sequence[Entry]) -> str | None:
    return hashlib.sha256(encoded(entries[-1])).hexdigest() if entries else None
