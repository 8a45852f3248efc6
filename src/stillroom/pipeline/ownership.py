"""One owner at a time: a lock on the workspace, and the clearing of what a killed owner left behind."""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from stillroom.errors import InputError, TryAgain
from stillroom.files import read_json, write_json

OWNER_VARIABLE = "STILLROOM_OWNER"
_FOLDER = Path(".stillroom")
_PATIENCE_S = 15.0


class Ownership:
    """Holds a workspace from `take` to `release`; the kernel releases it when the process dies."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._note = workspace / _FOLDER / "owner.json"
        self._lock = FileLock(workspace / _FOLDER / "owner.lock", timeout=0, thread_local=False)
        self.token = uuid.uuid4().hex

    def take(self) -> None:
        """Take the workspace, or raise TryAgain with the owner's process id."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            owner = _read(self._note).get("pid", "unknown")
            raise TryAgain(
                f"{self._workspace}: another run (process {owner}) is at work here; "
                "wait for it, or give --workspace another folder"
            ) from error
        try:
            if token := _read(self._note).get("token"):
                _end_leftovers(str(token))
            reset_stale_rwlock(self._workspace)
            write_json(self._note, {"pid": os.getpid(), "token": self.token, "taken_at": time.time()})
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the workspace back."""
        if self._lock.is_locked:
            self._note.unlink(missing_ok=True)
            self._lock.release()


def reset_stale_rwlock(workspace: Path) -> None:
    """Empty DVC's list of paths in use; raises TryAgain while a living DVC process uses one.

    DVC keeps entries of killed readers for ever, and takes a zombie, or a stranger with the same process
    id, for alive.
    """
    path = workspace / ".dvc" / "tmp" / "rwlock"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    if text.strip() in ("", "{}"):
        return
    try:
        holders = set(_holders(read_json(path)))
    except (InputError, AttributeError, TypeError, KeyError):
        holders = set()
    for holder in sorted(holders):
        if _is_dvc(holder):
            raise TryAgain(f"{workspace}: DVC (process {holder}) is at work here; wait for it to end")
    path.write_text("{}", encoding="utf-8")


def _holders(rwlock: Any) -> list[int]:
    found = [entry["pid"] for entry in rwlock.get("write", {}).values()]
    for entries in rwlock.get("read", {}).values():
        found.extend(entry["pid"] for entry in entries)
    return found


def _is_dvc(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("dvc" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _end_leftovers(token: str) -> None:
    """Wait for what a killed owner started; it was told to end with its parent, and is killed if it stays."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == token and process.pid != os.getpid():
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=_PATIENCE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
    psutil.wait_procs(alive, timeout=1.0)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}
