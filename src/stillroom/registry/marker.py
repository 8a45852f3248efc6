"""A note in the state folder of what was recorded, so that recording the same result again costs one look.

The note is believed only after the store confirms it: a store that was wiped, a version that was deleted or
an alias that was moved makes it void, and everything is looked up and filled in as at first.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import dataclass

from stillroom import layout
from stillroom.errors import InputError
from stillroom.files import read_json, sha256_file, write_json
from stillroom.params import RegistryParams
from stillroom.registry import ledger, runs, versions
from stillroom.registry.history import digest
from stillroom.registry.tracking import Tracker, connect, sqlite_file, tracking_uri, translated

_LOOK_S = 2.0


@dataclass(frozen=True)
class RecordedRun:
    """Where a run is recorded. versions: student → version of `model`; the aliases as they stood then."""

    tracking_uri: str
    experiment_id: str
    run_id: str
    model: str
    versions: dict[str, int]
    challenger: int | None
    champion: int | None
    change: str | None = None
    """What changed since the champion that was there before, in words."""
    unchanged: bool = False
    """Nothing had to be done: the same result was recorded before."""
    waits: str | None = None
    """What is told of a version that passed and needs a person's approval, if one does."""


class _Note(BaseModel):
    recorded: RecordedRun
    ledger_entries: int


def key(registry: RegistryParams, fingerprints: Sequence[tuple[str, str]], summary: Path) -> str:
    """Identity of a pipeline's result: what went into every stage, and what came out of the last.

    Raises InputError if there is no summary: the pipeline has not come to its end.
    """
    if not summary.is_file():
        raise InputError(f"{summary}: no such file; run the pipeline to its end before recording it")
    stages = [f"{address} {fingerprint}" for address, fingerprint in sorted(fingerprints)]
    return digest([registry.experiment, registry.model, sha256_file(summary), *stages])


def remember(result: str, recorded: RecordedRun) -> None:
    """Note what was recorded for a result in the store in use."""
    note = _Note(recorded=recorded, ledger_entries=_ledger_entries(recorded.model))
    write_json(_path(result), note.model_dump())


def recall(result: str) -> RecordedRun | None:
    """What was recorded for a result, if the store in use still says so."""
    try:
        note = _Note.model_validate(read_json(_path(result)))
    except (InputError, ValidationError):
        return None
    if note.ledger_entries != _ledger_entries(note.recorded.model):
        return None
    database = sqlite_file(tracking_uri())
    confirmed = _in_database(database, note.recorded) if database else _in_store(connect(), note.recorded)
    return replace(note.recorded, unchanged=True) if confirmed else None


def _path(result: str) -> Path:
    return layout.state() / "recorded" / f"{digest([tracking_uri(), result])}.json"


def _ledger_entries(model: str) -> int:
    return len(ledger.default_store().names(model))


def _aliases(recorded: RecordedRun) -> dict[str, int]:
    expected = {versions.CHALLENGER: recorded.challenger, versions.CHAMPION: recorded.champion}
    return {alias: number for alias, number in expected.items() if number is not None}


def _in_database(path: Path, recorded: RecordedRun) -> bool:
    """Ask SQLite itself, in milliseconds; importing MLflow takes a second and opening its store half of one.

    A schema that this does not know is no confirmation, and the long way follows.
    """
    if not path.is_file():
        return False
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_LOOK_S)
        try:
            run = connection.execute(
                "SELECT r.status, r.lifecycle_stage, e.lifecycle_stage, e.experiment_id FROM runs r "
                "JOIN experiments e ON e.experiment_id = r.experiment_id WHERE r.run_uuid = ?",
                (recorded.run_id,),
            ).fetchone()
            numbers = connection.execute(
                "SELECT version FROM model_versions WHERE name = ? AND current_stage != 'Deleted_Internal'",
                (recorded.model,),
            ).fetchall()
            aliases = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ?", (recorded.model,)
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return False
    if run is None or (*run[:3], str(run[3])) != ("FINISHED", "active", "active", recorded.experiment_id):
        return False
    return _agrees(recorded, {int(row[0]) for row in numbers}, {row[0]: int(row[1]) for row in aliases})


def _in_store(tracker: Tracker, recorded: RecordedRun) -> bool:
    registered = versions.model(tracker, recorded.model)
    with translated(tracker.uri):
        listed = tracker.client.search_model_versions(f"name = '{recorded.model}'")
    numbers = {int(version.version) for version in listed}
    return _agrees(recorded, numbers, dict(registered.aliases)) and runs.is_finished(tracker, recorded.run_id)


def _agrees(recorded: RecordedRun, numbers: set[int], aliases: dict[str, int]) -> bool:
    named = {name: aliases[name] for name in (versions.CHALLENGER, versions.CHAMPION) if name in aliases}
    return numbers.issuperset(recorded.versions.values()) and named == _aliases(recorded)
