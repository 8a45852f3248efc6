"""Copies of a git checkout: a clone that shares its objects, with the working tree as it is laid over it."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from stillroom.errors import InputError

_OWN_IN_COPY = {"params.yaml", "dvc.lock"}
_SOURCES = "sources/"


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; a failure is an InputError with git's own line."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    outside.pop("GIT_INDEX_FILE", None)
    outside.pop("GIT_WORK_TREE", None)
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            env=outside,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise InputError("git is not installed; install it, Stillroom's workspaces are git clones") from error
    if done.returncode != 0:
        told = done.stderr.strip().rsplit("\n", 1)[-1] or f"exit code {done.returncode}"
        raise InputError(f"{folder}: git {arguments[0]} failed: {told}")
    return done.stdout


def require_checkout(root: Path) -> None:
    """Raise InputError unless `root` is the top of a git checkout with at least one commit."""
    try:
        top = git(root, "rev-parse", "--show-toplevel").strip()
    except InputError as error:
        raise InputError(f"{root}: not a git checkout ({error}); clone the repository with git") from error
    if Path(top).resolve() != root.resolve():
        raise InputError(f"{root}: lies inside the checkout {top}; run from {top}")
    try:
        git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except InputError as error:
        raise InputError(f"{root}: has no commit yet; commit it first, a workspace is a clone of it") from error


def working_files(root: Path) -> list[str]:
    """Files of the working tree that git tracks or would track, as POSIX paths; deleted ones are left out."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    names = dict.fromkeys(name for name in listed if name and not name.endswith("/"))
    return [name for name in names if (root / name).is_symlink() or (root / name).is_file()]


def clone(root: Path, copy: Path) -> None:
    """Make `copy` a clone of the checkout that shares its objects, at its commit, with no files yet."""
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(copy))
    git(copy, "reset", "--quiet")


def follow(root: Path, copy: Path) -> None:
    """Move a clone's commit to the checkout's, leaving its files alone."""
    head = git(root, "rev-parse", "HEAD").strip()
    if git(copy, "rev-parse", "HEAD").strip() != head:
        git(copy, "fetch", "--quiet", str(root), "HEAD")
        git(copy, "reset", "--quiet", head)


def lay_over(root: Path, copy: Path, before: Iterable[str] | None) -> list[str]:
    """Bring the working tree's files into the copy and return their names.

    `before` names the files laid the last time, so that those since deleted go; None is a first time. What
    belongs to the copy (dvc.lock, sources) is brought the first time only, and params.yaml never.
    """
    names = [name for name in working_files(root) if name != "params.yaml"]
    for name in names:
        if before is None or not _belongs_to_copy(name):
            _copy(root / name, copy / name)
    for name in set(before or ()) - set(names):
        if not _belongs_to_copy(name):
            (copy / name).unlink(missing_ok=True)
    return names


def hide_from_git(root: Path, folder: Path) -> None:
    """Keep `git status` of the checkout as it is although `folder`, a workspace, lies inside it."""
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return
    if inside == ".":
        raise InputError(f"{folder}: is the checkout itself; give --workspace a folder of its own")
    exclude = root / git(root, "rev-parse", "--git-path", "info/exclude").strip()
    lines = exclude.read_text(encoding="utf-8").splitlines() if exclude.is_file() else []
    ignored = subprocess.run(
        ["git", "-C", str(root), "check-ignore", "--quiet", f"{inside}/"], check=False, capture_output=True
    )
    if ignored.returncode != 0 and f"/{inside}/" not in lines:
        exclude.parent.mkdir(parents=True, exist_ok=True)
        exclude.write_text("\n".join([*lines, f"/{inside}/"]) + "\n", encoding="utf-8")


def _belongs_to_copy(name: str) -> bool:
    return name in _OWN_IN_COPY or name.startswith(_SOURCES)


def _copy(source: Path, target: Path) -> None:
    if not source.is_symlink() and target.is_file() and not target.is_symlink():
        here, there = source.stat(), target.stat()
        if (here.st_size, here.st_mtime_ns, here.st_mode) == (
            there.st_size,
            there.st_mtime_ns,
            there.st_mode,
        ):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.laying")
    temporary.unlink(missing_ok=True)
    shutil.copy2(source, temporary, follow_symlinks=False)
    temporary.replace(target)
