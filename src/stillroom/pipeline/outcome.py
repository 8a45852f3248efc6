"""What became of a stage in one run, and what dvc.lock knows of it."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import InputError, ParamsError
from stillroom.params_file import read_yaml
from stillroom.stages.receipt import Receipt

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class StageOutcome:
    """A stage that is done: executed now, or served from what an earlier run left."""

    address: str
    executed: bool
    fingerprint: str
    seconds: float
    receipt: Receipt | None


def fingerprint(entry: Mapping[str, Any]) -> str:
    """sha256 of a stage's key in dvc.lock: command, content of deps, params; outs play no part."""
    deps = sorted((dep["path"], dep.get("md5") or dep.get("etag") or "") for dep in entry.get("deps", ()))
    key = {"cmd": entry.get("cmd"), "deps": deps, "params": entry.get("params", {})}
    return hashlib.sha256(json.dumps(key, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def read_lock(workspace: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock by address; empty where nothing has run yet.

    DVC rewrites the file in place, so a reader beside a running sibling may see half of it and reads again.
    """
    path = workspace / LOCK
    attempts = 5
    for attempt in range(1, attempts + 1):
        if not path.is_file():
            return {}
        try:
            stages = read_yaml(path).get("stages", {})
            if isinstance(stages, dict):
                return stages
        except ParamsError as error:
            if attempt == attempts:
                raise InputError(f"{error}; restore it from git, or delete it: the run-cache rebuilds it") from error
        time.sleep(0.1 * attempt)
    raise InputError(f"{path}: stages is no mapping; restore it from git, or delete it: the run-cache rebuilds it")


def fingerprints(workspace: Path) -> dict[str, str]:
    """The fingerprint of every stage that dvc.lock has."""
    return {address: fingerprint(entry) for address, entry in read_lock(workspace).items()}


def fingerprint_of(workspace: Path, address: str) -> str:
    """The fingerprint of a stage that has just run; an empty string where dvc.lock does not have it."""
    for attempt in range(3):
        entry = read_lock(workspace).get(address)
        if entry is not None:
            return fingerprint(entry)
        time.sleep(0.1 * attempt)
    return ""
