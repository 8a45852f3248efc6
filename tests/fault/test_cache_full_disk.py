"""The disk is full in the middle of a shard: one line, exit code 75, and what was visible before is whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.store import Store
from stillroom.errors import TryAgain
from stillroom.files import is_temporary
from tests.cache.answers import FIELDS, answers_of, encoded, texts

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent.parent
DISK_BYTES = 512 << 10
ROOM_BYTES = (0, 1 << 10, 3 << 10, 17 << 10, 18 << 10, 20 << 10, 24 << 10, 40 << 10)
"""What is left for the next shard, its manifest and the line about the pass: from nothing to almost enough."""
PER_SHARD = 500
KEYS = entry_keys(texts(4 * PER_SHARD))


def parts() -> list[Any]:
    return np.array_split(KEYS, len(KEYS) // PER_SHARD)


def add(store: Store, number: int) -> None:
    part = parts()[number]
    store.add(part, encoded(answers_of(part)))


def right(reader: Reader, count: int) -> None:
    """The first shards are there, all of their answers right, and nothing else is."""
    known = KEYS[: count * PER_SHARD]
    assert len(reader) == len(known)
    reader.verify()
    for signal, values in answers_of(known).items():
        np.testing.assert_array_equal(
            reader.read(signal, reader.locate(known, "texts")), values.astype(np.float16).astype(np.float32)
        )


def fill(disk: Path, room: int) -> Path:
    """Leave so much room on a disk, in whole pages."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    with ballast.open("wb") as stream:
        stream.write(bytes(max(state.f_bavail * state.f_frsize - room, 0)))
    return ballast


def fills_up(disk: Path, room: int) -> dict[str, Any]:
    """In a store of two shards the disk fills up while a third is added, and is freed again; what is told."""
    store = Store(disk / "store", FIELDS)
    add(store, 0)
    add(store, 1)
    ballast = fill(disk, room)
    told, code = "", 0
    try:
        add(store, 2)
        store.record_pass(1, 0)
    except TryAgain as error:
        told, code = str(error), error.exit_code
    added = Store(disk / "store", FIELDS).reader()
    assert added is not None
    visible = len(added) // PER_SHARD
    right(Reader.open(store.folder), visible)
    leftovers = [path.name for path in disk.rglob("*") if is_temporary(path.name)]
    ballast.unlink()
    again = Store(disk / "store", FIELDS)
    assert again.reader() is not None
    for number in range(visible, 4):
        add(again, number)
    again.record_pass(4, visible)
    found = Store(disk / "store", FIELDS).reader()
    assert found is not None
    right(found, 4)
    return {"told": told, "code": code, "visible": visible, "leftovers": leftovers}


def on_a_small_disk(disk: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a small file system at a folder, which no other process sees and which ends with it."""
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(DISK_BYTES), str(disk), sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        tried = on_a_small_disk(disk, "-c", "pass")
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) to mount a small disk in a namespace of its own")
    if tried.returncode:
        pytest.skip(f"this user may not mount a small disk ({tried.stderr.strip()})")
    return disk


def test_a_full_disk_is_told_and_spoils_nothing(disk: Path) -> None:
    code = (
        "import json, sys, shutil; from pathlib import Path; from tests.fault.test_cache_full_disk import fills_up\n"
        "disk = Path(sys.argv[1])\n"
        "for room in map(int, sys.argv[2:]):\n"
        "    print(json.dumps(fills_up(disk, room)), flush=True)\n"
        "    shutil.rmtree(disk / 'store')\n"
    )
    ran = on_a_small_disk(disk, "-c", code, str(disk), *map(str, ROOM_BYTES))
    assert ran.returncode == 0, ran.stderr
    ends = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(ends) == len(ROOM_BYTES)
    for end in ends:
        assert end["leftovers"] == []
        assert "\n" not in end["told"]
        if end["told"]:
            assert end["code"] == 75
            assert "No space left on device; free some space and try again" in end["told"]
            assert str(disk / "store") in end["told"]
    assert {end["visible"] for end in ends} == {2, 3}, "some disks are full before the third shard is listed"
    assert sum(bool(end["told"]) for end in ends) >= 5
    assert not list(disk.iterdir()), "the small disk was no other process's"


def test_a_pass_on_a_full_disk_stops_and_goes_on_when_there_is_room(disk: Path, tiny_checkpoint: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from tests.fault.test_cache_full_disk import full_pass\n"
        "print(json.dumps(full_pass(Path(sys.argv[1]), Path(sys.argv[2]))))\n"
    )
    ran = on_a_small_disk(disk, "-c", code, str(disk), str(tiny_checkpoint))
    assert ran.returncode == 0, ran.stderr
    end = json.loads(ran.stdout)
    assert end["code"] == 75
    assert "No space left on device; free some space and try again" in end["told"]
    assert "\n" not in end["told"]
    assert 0 < end["kept"] < 300
    assert end["computed"] == 300 - end["kept"], "what was listed before is not computed again"
    assert end["leftovers"] == []


def full_pass(disk: Path, checkpoint: Path) -> dict[str, Any]:
    """A pass for which the disk has too little room, and the one after it, for which it has enough."""
    from stillroom.batching import load_tokeniser
    from stillroom.cache.capture import capture
    from stillroom.cache.texts import Listed
    from stillroom.params import CaptureParams, ComputeParams
    from stillroom.teacher.model import TOKENISER
    from tests.cache.answers import CountingTeacher, live
    from tests.toys import publish_teacher, toy_rows

    rows = toy_rows(300, seed=6).text
    teacher = publish_teacher(disk.parent / "teacher", checkpoint)
    settings = CaptureParams(batch_tokens=200, shard_entries=20, spot_check=8)
    asked = live(CountingTeacher(), teacher, load_tokeniser(teacher / TOKENISER, 32))
    ballast = fill(disk, 64 << 10)
    told, code = "", 0
    try:
        capture(asked, Listed(rows), settings, disk / "store", 0, ComputeParams())
    except TryAgain as error:
        told, code = str(error), error.exit_code
    [folder] = (disk / "store").iterdir()
    reader = Reader.open(folder)
    reader.verify()
    leftovers = [path.name for path in disk.rglob("*") if is_temporary(path.name)]
    ballast.unlink()
    captured = capture(asked, Listed(rows), settings, disk / "store", 0, ComputeParams())
    assert len(captured.reader) == len(rows)
    return {"told": told, "code": code, "kept": len(reader), "computed": captured.computed, "leftovers": leftovers}
