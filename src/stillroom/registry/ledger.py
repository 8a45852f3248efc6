"""The append-only record of promotions: one JSON file per entry, each naming the hash of the one before it.

MLflow moves an alias for whoever writes last; it has no compare-and-swap. An entry is created only if its
number is free, so of several writers exactly one gets it, and the champion alias is merely a projection of
the last entry.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stillroom import layout
from stillroom.errors import InputError
from stillroom.storage import Storage, open_storage

LEDGER_VARIABLE = "STILLROOM_LEDGER"
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

    @property
    def evidence(self) -> tuple[str, str]:
        """What was promoted, whatever its number: package digest and sha256 of the gate report."""
        return self.package_digest, self.gate_report_sha256


def default_store() -> Storage:
    """The ledger of this installation: what STILLROOM_LEDGER names, a folder or s3://bucket/prefix that machines
    share, or else a folder in the state folder."""
    return open_storage(os.environ.get(LEDGER_VARIABLE) or layout.state() / "ledger")


def entry_name(model: str, sequence: int) -> str:
    """Where an entry stands in the store; refuses a model name that could leave its folder."""
    if not _MODEL.fullmatch(model):
        raise InputError(f"{model!r} is no model name; use letters, digits, dots, - and _")
    return f"{model}/{sequence:08d}.json"


def read(model: str, store: Storage) -> list[Entry]:
    """The whole ledger of a model, oldest first.

    Raises InputError naming the entry that is missing, unreadable or does not follow from the one before.
    """
    folder = entry_name(model, 0).partition("/")[0]
    found: list[Entry] = []
    for path in store.names(folder):
        if not _ENTRY.fullmatch(path.removeprefix(f"{folder}/")):
            continue
        content = store.read(path)
        try:
            entry = TypeAdapter(Entry).validate_json(content)
        except ValidationError as error:
            raise InputError(f"ledger {path}: not a ledger entry; restore it from a backup") from error
        told = (entry.sequence, entry.model, entry.from_version, entry.previous)
        before = found[-1].to_version if found else None
        if told != (len(found) + 1, model, before, _link(found)) or content != encoded(entry):
            raise InputError(
                f"ledger {path}: does not follow from entry {len(found)}; an entry was changed or removed, "
                "restore the ledger from a backup"
            )
        found.append(entry)
    return found


def append(
    model: str,
    store: Storage,
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


def reigns(entries: Sequence[Entry]) -> list[Entry]:
    """Champions that one could go back to, the present one last: stepping back takes the one above away.

    They are told apart by what was promoted: a registry that was rebuilt gives the same numbers to others.
    """
    stack: list[Entry] = []
    for entry in entries:
        if len(stack) > 1 and stack[-2].evidence == entry.evidence:
            stack.pop()
        if stack and stack[-1].evidence == entry.evidence:
            stack.pop()
        stack.append(entry)
    return stack


def encoded(entry: Entry) -> bytes:
    """The bytes of an entry's file; the next entry holds their sha256."""
    return (json.dumps(asdict(entry), indent=2, ensure_ascii=False) + "\n").encode()


def digest(entry: Entry) -> str:
    """The sha256 by which the next entry names this one: whoever keeps it can tell that none before was changed."""
    return hashlib.sha256(encoded(entry)).hexdigest()


def _link(entries: Sequence[Entry]) -> str | None:
    return digest(entries[-1]) if entries else None
