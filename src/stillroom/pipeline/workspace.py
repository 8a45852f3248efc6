"""Where a run works: the checkout itself, or a clone of it with params of its own over the same DVC cache."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stillroom import layout
from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.params import Params, in_long_form, validate
from stillroom.params_file import as_mapping, read_yaml, write_yaml
from stillroom.pipeline.checkout import clone, follow, hide_from_git, lay_over, require_checkout
from stillroom.pipeline.command import call_dvc
from stillroom.pipeline.local_config import movable, set_local
from stillroom.pipeline.ownership import OWNER_VARIABLE, Ownership
from stillroom.section import GIVEN_NAME
from stillroom.stages.receipt import RECEIPTS_VARIABLE, read_receipt

_MARK = Path(".stillroom/workspace.json")
_SITE_CACHE = Path(".dvc/tmp/site")
_PER_STUDENT = (layout.STUDENTS, layout.PACKAGES, layout.EVALUATIONS)


@dataclass(frozen=True)
class Workspace:
    """A place that this process owns until `close`."""

    root: Path
    """The checkout."""
    path: Path
    """Where stages run."""
    state: Path
    params: Params
    created: bool
    """Whether this opening made the folder."""
    ownership: Ownership

    @property
    def own(self) -> bool:
        """Whether this is a folder of its own, not the checkout."""
        return self.path != self.root

    @property
    def receipts(self) -> Path:
        """Folder of the receipts that the stages of this workspace leave, under either engine."""
        return self.path / ".stillroom" / "receipts"

    @property
    def variables(self) -> dict[str, str]:
        """What the stages must be told about the place they run in."""
        return {
            layout.STATE_VARIABLE: str(self.state),
            RECEIPTS_VARIABLE: str(self.receipts),
            OWNER_VARIABLE: self.ownership.token,
        }

    def events(self, address: str) -> Path:
        """Where a stage tells its progress."""
        return self.path / ".stillroom" / "events" / f"{address}.jsonl"

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """Let this process, too, see the state folder of the checkout."""
        before = os.environ.get(layout.STATE_VARIABLE)
        os.environ[layout.STATE_VARIABLE] = str(self.state)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(layout.STATE_VARIABLE, None)
            else:
                os.environ[layout.STATE_VARIABLE] = before

    def close(self) -> None:
        """Let the next run have the place."""
        self.ownership.release()

    def discard(self) -> None:
        """Close, and leave no trace of an opening whose input was wrong.

        The folder is removed if this opening made it and no stage has finished in it.
        """
        self.close()
        if self.created and self.own and not self._finished_any():
            shutil.rmtree(self.path, ignore_errors=True)

    def _finished_any(self) -> bool:
        receipts = (read_receipt(path.stem, self.receipts) for path in self.receipts.glob("*.json"))
        return any(receipt is not None and receipt.state == "finished" for receipt in receipts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, InputError):
            self.discard()
        else:
            self.close()


def open_workspace(root: Path, params: Params, workspace: Path | None) -> Workspace:
    """Take the place where `params` are to run.

    Without a folder given it is the checkout where `params` are those of its params.yaml, else a folder
    named by their hash below the state folder. Raises InputError for a folder that is no workspace of this
    checkout, and TryAgain while another process works there.
    """
    root = root.resolve()
    state = Path(os.environ.get(layout.STATE_VARIABLE) or root / ".stillroom").absolute()
    if workspace is not None and workspace.resolve() == root:
        workspace = None
    if workspace is None and _are_of_checkout(root, params):
        return _in_place(root, state, params)
    path = (workspace or state / "workspaces" / params_hash(params)).absolute()
    require_checkout(root)
    created = _ensure(root, path, params)
    ownership = Ownership(path)
    ownership.take()
    try:
        if not created:
            _refresh(root, path, params)
        remove_leftover_students(path, params)
    except BaseException:
        ownership.release()
        raise
    return Workspace(root, path, state, params, created, ownership)


def params_hash(params: Params) -> str:
    """16 hex digits that name a set of params, defaults included."""
    canonical = json.dumps(params.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def remove_leftover_students(path: Path, params: Params) -> list[Path]:
    """Remove the folders of students that params no longer have: select and report would see them."""
    removed = []
    for folder in _PER_STUDENT:
        for item in sorted((path / folder).glob("*")):
            stray = GIVEN_NAME.fullmatch(item.name) and item.name not in params.students
            if stray and item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
                removed.append(item)
    return removed


def _are_of_checkout(root: Path, params: Params) -> bool:
    """Whether the checkout's own params.yaml says the same, in a form that DVC reads: whole, in its long form."""
    try:
        raw = read_yaml(root / layout.PARAMS)
        return in_long_form(raw) and validate(raw, str(layout.PARAMS)) == params
    except InputError:
        return False


def _in_place(root: Path, state: Path, params: Params) -> Workspace:
    for needed, remedy in ((".git", "clone the repository with git"), (".dvc", "run `dvc init`")):
        if not (root / needed).exists():
            raise InputError(f"{root}: has no {needed}, which DVC needs; {remedy}, or run from the checkout")
    ownership = Ownership(root)
    ownership.take()
    try:
        set_local(root, {"core": _private_site_cache(root)})
        remove_leftover_students(root, params)
    except BaseException:
        ownership.release()
        raise
    return Workspace(root, root, state, params, False, ownership)


def _ensure(root: Path, path: Path, params: Params) -> bool:
    """Make the workspace if there is none, beside its place, and move it there whole; True if it was made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give --workspace a folder")
    if path.exists() and any(path.iterdir()):
        _check_ours(root, path)
        return False
    hide_from_git(root, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        clone(root, temporary)
        names = lay_over(root, temporary, None)
        write_yaml(params, temporary / layout.PARAMS, defaults=False)
        cache = call_dvc(root, "cache", "dir").strip()
        settings: Mapping[str, Mapping[str, str]] = {
            "core": {"site_cache_dir": str(path / _SITE_CACHE)},
            "cache": {"dir": cache, "type": "reflink,copy"},
        }
        set_local(temporary, settings, movable(root))
        _mark(temporary, root, names)
        try:
            temporary.rename(path)
        except OSError:
            _check_ours(root, path)  # another process was faster
            return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _private_site_cache(path)
    return True


def _refresh(root: Path, path: Path, params: Params) -> None:
    before = _check_ours(root, path)
    follow(root, path)
    names = lay_over(root, path, before)
    target = path / layout.PARAMS
    if _raw(target) != as_mapping(params, defaults=False):
        write_yaml(params, target, defaults=False)
    set_local(path, {"core": _private_site_cache(path)})
    _mark(path, root, names)


def _raw(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except InputError:
        return {}


def _check_ours(root: Path, path: Path) -> list[str]:
    """The names laid over the last time; InputError if the folder is no workspace of this checkout."""
    try:
        mark = read_json(path / _MARK)
        owner, names = Path(mark["root"]), [str(name) for name in mark["files"]]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not empty and no workspace of Stillroom; give --workspace another folder"
        ) from error
    if owner != root:
        raise InputError(f"{path}: is a workspace of the checkout {owner}; give --workspace another folder")
    return names


def _mark(path: Path, root: Path, names: list[str]) -> None:
    write_json(path / _MARK, {"format": 1, "root": str(root), "files": names})


def _private_site_cache(path: Path) -> dict[str, str]:
    """DVC's own default is a folder that other users may write, and it unpickles what it finds there."""
    folder = path / _SITE_CACHE
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {"site_cache_dir": str(folder)}
