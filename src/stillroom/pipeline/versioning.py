"""The step before any stage: fetch what the run reads, put it under DVC, and keep a copy in the remote."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stillroom import layout
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.events import emit
from stillroom.files import read_json, sha256_file, write_json
from stillroom.params import Params
from stillroom.pipeline.command import call_dvc
from stillroom.pipeline.local_config import COMMITTED, LOCAL, read_config, remote_section, set_local
from stillroom.pipeline.workspace import Workspace

REMOTE = "stillroom"
Snapshot = Callable[[Params, Path], object]
_POINTER = Path("sources/data.dvc")
_NOTE = Path(".stillroom/versioned.json")
_OURS = re.compile(
    r"NoSuchBucket|Bucket .* does not exist|AccessDenied|Access Denied|Forbidden|InvalidAccessKeyId|"
    r"SignatureDoesNotMatch|Unable to (locate|find) (AWS )?credentials|Permission denied",
    re.I,
)


@dataclass(frozen=True)
class DataVersion:
    """The raw data as DVC knows it."""

    md5: str
    """Digest in sources/data.dvc."""
    remote: str
    """Where the copy is."""
    changed: bool
    """Whether anything had to be added or pushed."""
    seconds: float


class _Note(BaseModel):
    """What was versioned and pushed the last time, so that nothing is asked twice."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, tuple[int, int]]
    record_sha256: str
    pointer_sha256: str
    remote: str


def version_data(workspace: Workspace, snapshot: Snapshot | None = None) -> DataVersion:
    """Make sources/data and sources/teacher.json what params say, `dvc add` the data, push it to the remote.

    Without a change it compares sizes, times and two small digests and calls nothing. Raises InputError as
    the sources do and where the disk has no room for the run, and TryAgain where the remote does not answer: a run
    whose data cannot be had again is no result.
    """
    started = time.monotonic()
    if snapshot is None:
        from stillroom.data.sources.materialise import snapshot as fetched

        snapshot = fetched
    snapshot(workspace.params, workspace.path)
    url = configure_remote(workspace)
    note = _note(workspace.path, url)
    if note is not None and note == _last(workspace.path):
        return DataVersion(_md5(workspace.path), url, False, time.monotonic() - started)
    call_dvc(workspace.path, "--wait-for-lock", "add", str(layout.SOURCE_DATA))
    push(workspace, url, str(_POINTER))
    note = _note(workspace.path, url)
    if note is None:
        raise StillroomError(f"{workspace.path / _POINTER}: `dvc add` did not leave it")
    write_json(workspace.path / _NOTE, note.model_dump())
    emit("versioned", path=str(layout.SOURCE_DATA), remote=url)
    return DataVersion(_md5(workspace.path), url, True, time.monotonic() - started)


def push(workspace: Workspace, url: str, *targets: str, run_cache: bool = False) -> None:
    """Push to the remote; raises TryAgain where it is down, InputError where it refuses us."""
    options = ["--run-cache"] if run_cache else []
    try:
        call_dvc(workspace.path, "--wait-for-lock", "push", "-r", REMOTE, *options, *targets)
    except TryAgain:
        raise
    except StillroomError as error:
        emit("remote_failed", remote=url, error=str(error))
        told = str(error).partition(" failed: ")[2] or str(error)
        if _OURS.search(told):
            raise InputError(f"registry.remote: {url} refuses the data ({told}); check address and rights") from error
        raise TryAgain(f"registry.remote: {url} cannot be reached ({told}); run again when it is up") from error


def push_results(workspace: Workspace) -> bool:
    """Push every stage's outs and the run-cache to the remote that params name, if they name one."""
    if workspace.params.registry.remote is None:
        return False
    push(workspace, configure_remote(workspace), run_cache=True)
    return True


def configure_remote(workspace: Workspace) -> str:
    """Name the remote in .dvc/config.local and return its address; the default where no other is set."""
    given = workspace.params.registry.remote
    if given is None:
        url = str(workspace.state / "remote")
    elif "://" in given:
        url = given
    else:
        url = str((workspace.root / Path(given).expanduser()).resolve())
    if "://" not in url:
        Path(url).mkdir(parents=True, exist_ok=True)
    settings = {remote_section(REMOTE): {"url": url}}
    configs = [read_config(workspace.path / name) for name in (COMMITTED, LOCAL)]
    if not any(config.has_option("core", "remote") for config in configs):
        settings["core"] = {"remote": REMOTE}
    set_local(workspace.path, settings)
    return url


def _note(path: Path, url: str) -> _Note | None:
    data, pointer = path / layout.SOURCE_DATA, path / _POINTER
    if not pointer.is_file():
        return None
    stats = {item.relative_to(data).as_posix(): item.stat() for item in sorted(data.rglob("*")) if item.is_file()}
    return _Note(
        files={name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()},
        record_sha256=sha256_file(data / "source.json") if "source.json" in stats else "",
        pointer_sha256=sha256_file(pointer),
        remote=url,
    )


def _last(path: Path) -> _Note | None:
    try:
        return _Note.model_validate(read_json(path / _NOTE))
    except (InputError, ValueError):
        return None


def _md5(path: Path) -> str:
    found = re.search(r"^- md5: (?P<md5>[0-9a-f.dir]+)$", (path / _POINTER).read_text(encoding="utf-8"), re.M)
    return found["md5"] if found else ""
