"""The Ray engine, on a cluster of this machine: what the local engine gives, whatever happens to the workers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pytest

from stillroom import events
from stillroom.cache import ray_engine, units
from stillroom.cache.capture import Captured, capture
from stillroom.cache.codecs import asked_for
from stillroom.cache.live import LiveTeacher, load_live
from stillroom.cache.ray_engine import Workers
from stillroom.cache.store import Store, snapshot
from stillroom.cache.texts import Listed
from stillroom.cache.units import Unit, plan
from stillroom.errors import InputError, TryAgain
from stillroom.files import file_digests
from stillroom.params import CaptureParams, ComputeParams
from tests.cache.answers import texts

pytestmark = [pytest.mark.serial, pytest.mark.timeout(400)]

MACHINE = ComputeParams(threads=1, precision="fp32", device="cpu")
SETTINGS = CaptureParams(batch_tokens=64, spot_check=16, engine="ray", workers=2)
KILLS = 30
TEXTS = 120 * KILLS


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many units of few texts."""
    monkeypatch.setattr(units, "_WINDOW", 100)


@pytest.fixture
def live(teacher: Path) -> LiveTeacher:
    return load_live(teacher, MACHINE, SETTINGS.batch_tokens)


def captured(live: LiveTeacher, root: Path, count: int = 300, **changes: object) -> Captured:
    settings = SETTINGS.model_copy(update=changes)
    return capture(live, Listed(texts(count)), settings, root, 0, MACHINE)


def scratch() -> set[Path]:
    """Folders that workers made for themselves."""
    named = re.compile(r"stillroom-[0-9a-f]{32}")
    return {path for path in Path(tempfile.gettempdir()).iterdir() if named.fullmatch(path.name)}


def snapshot_of(result: Captured, folder: Path) -> dict[str, str]:
    snapshot(result.reader, result.keys, folder, 1000)
    return file_digests(folder)


def test_workers_give_the_local_engines_bytes_and_write_to_the_store_that_they_share(
    live: LiveTeacher, tmp_path: Path
) -> None:
    before = scratch()
    local = captured(live, tmp_path / "local", engine="local")
    far = captured(live, tmp_path / "far")
    shared = captured(live, tmp_path / "shared", store=str(tmp_path / "bucket"))
    assert far.computed == shared.computed == local.computed == 300
    assert far.tokens == local.tokens
    expected = snapshot_of(local, tmp_path / "one")
    assert snapshot_of(far, tmp_path / "two") == expected
    assert snapshot_of(shared, tmp_path / "three") == expected
    assert captured(live, tmp_path / "other machine", store=str(tmp_path / "bucket")).computed == 0
    assert captured(live, tmp_path / "far").computed == 0
    assert scratch() == before


def all_units(live: LiveTeacher, count: int) -> list[Unit]:
    return list(plan(live, Listed(texts(count)), np.ones(count, dtype=bool)))


@pytest.mark.slow
def test_workers_that_are_killed_cost_their_unfinished_units_and_nothing_else(
    live: LiveTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(events.EVENTS_VARIABLE, str(tmp_path / "events"))
    work = all_units(live, TEXTS)
    generator = np.random.default_rng(30)
    signals = asked_for(SETTINGS.signals)
    killed: list[int] = []
    moved = threading.Event()
    before = scratch()

    def kill_now_and_then(done: threading.Event) -> None:
        while len(killed) < KILLS and not done.is_set():
            moved.wait(60)
            moved.clear()
            time.sleep(generator.uniform(0, 0.1))
            told = (tmp_path / "events").read_text().splitlines() if (tmp_path / "events").exists() else []
            newest = json.loads(told[-1])["process"] if told else 0
            if newest and psutil.pid_exists(newest):
                os.kill(newest, signal.SIGKILL)
                killed.append(newest)

    with Workers(live, signals, SETTINGS, tmp_path / "store", MACHINE) as workers:
        done = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=(done,))
        killer.start()
        try:
            workers.run(work, lambda rows: moved.set())
        finally:
            done.set()
            moved.set()
            killer.join()
    told = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    started = [event for event in told if event["kind"] == "unit"]
    assert len(killed) == KILLS
    assert scratch() == before
    assert len({event["process"] for event in started}) > 2
    assert len(work) <= len(started) <= len(work) + 2 * KILLS
    reader = Store(tmp_path / "store", live.fingerprint(signals)).reader()
    assert reader is not None
    assert len(reader) == sum(shard.shard.entries for shard in reader.shards) == TEXTS
    local = captured(live, tmp_path / "local", TEXTS, engine="local")
    positions = reader.locate(local.keys, "texts")
    expected = local.reader.read("logits", local.reader.locate(local.keys, "texts"))
    np.testing.assert_array_equal(reader.read("logits", positions), expected)


class Deadly:
    """In place of a unit: ends the process that it is handed to."""

    tokens = SimpleNamespace(ids=[])

    def __len__(self) -> int:
        return 1

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_unit_that_kills_every_worker_ends_the_pass(
    live: LiveTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_RETRIES", 1)
    signals = asked_for(SETTINGS.signals)
    with (
        Workers(live, signals, SETTINGS, tmp_path, MACHINE) as w,
        pytest.raises(TryAgain, match=r"gave up .*run again"),
    ):
        w.run([cast(Unit, Deadly())], lambda rows: None)


PASS = """
import sys
from pathlib import Path
from stillroom.cache import units
from stillroom.cache.live import load_live
from tests.cache.test_ray_engine import MACHINE, SETTINGS, captured

units._WINDOW = 100
captured(load_live(Path(sys.argv[1]), MACHINE, SETTINGS.batch_tokens), Path(sys.argv[2]), 4000)
"""


@pytest.mark.slow
def test_a_pass_that_is_killed_leaves_no_worker_and_is_gone_on_from(
    live: LiveTeacher, teacher: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    run = subprocess.Popen([sys.executable, "-c", PASS, str(teacher), str(root)], cwd=Path.cwd())
    wait_until(lambda: len(list(root.rglob("*.json"))) > 3, "its first shards")
    below = psutil.Process(run.pid).children(recursive=True)
    workers = [process for process in below if "Worker" in process.name()]
    assert len(workers) == 2
    run.kill()
    run.wait()
    wait_until(lambda: not any(worker.is_running() for worker in workers), "the end of the workers")
    after = captured(live, root, 4000)
    assert 0 < after.computed < 4000
    assert len(after.reader) == 4000


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a cluster of two machines, as Ray sees it; the one that a pass starts from has no room for it."""
    ray_engine._import_ray(own=True)  # on the loopback, with the one token that a process has
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    machines.add_node(num_cpus=1)
    yield machines.address
    machines.shutdown()


def test_workers_on_another_machine_get_the_teacher_and_write_to_the_shared_store(
    live: LiveTeacher, tmp_path: Path, cluster: str
) -> None:
    local = captured(live, tmp_path / "local", engine="local")
    with pytest.raises(InputError, match=r"set capture\.store to a bucket or a folder that all of them see"):
        captured(live, tmp_path / "far", workers=1, ray_address=cluster)
    far = captured(live, tmp_path / "far", workers=1, ray_address=cluster, store=str(tmp_path / "bucket"))
    assert far.computed == 300
    assert snapshot_of(far, tmp_path / "two") == snapshot_of(local, tmp_path / "one")


def wait_until(happens: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if happens():
            return
        time.sleep(0.1)
    pytest.fail(f"waited a minute for {what}")


def test_a_cluster_of_our_own_listens_on_the_loopback_only(live: LiveTeacher, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Workers(live, asked_for(SETTINGS.signals), SETTINGS, tmp_path / "store", MACHINE):
        below = psutil.Process().children(recursive=True)
        listening = [
            connection.laddr.ip
            for process in below
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert signal.getsignal(signal.SIGTERM) is before
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_what_a_worker_refuses_is_told_as_it_is_here(live: LiveTeacher, tmp_path: Path) -> None:
    signals = asked_for(("logits", "hidden.9"))
    with (
        Workers(live, signals, SETTINGS.model_copy(update={"signals": ("logits", "hidden.9")}), tmp_path, MACHINE) as w,
        pytest.raises(InputError, match="names layer 9"),
    ):
        w.run(all_units(live, 10), lambda rows: None)


def test_a_teacher_that_workers_read_otherwise_is_refused(live: LiveTeacher, teacher: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(teacher, tmp_path / "own"))
    settings = SETTINGS.model_copy(update={"workers": 1})
    workers = Workers(load_live(own, MACHINE, 64), asked_for(settings.signals), settings, tmp_path / "store", MACHINE)
    (own / "tokenizer.json").write_text((own / "tokenizer.json").read_text() + "\n")
    with pytest.raises(InputError, match="tokeniser differs"), workers:
        pass


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("127.0.0.1:9", TryAgain, "nobody answers at 127.0.0.1:9"),
        ("ray://127.0.0.1:9", InputError, "write host:port"),
        ("somewhere", InputError, "write host:port"),
        ("127.0.0.1:99999", TryAgain, "nobody answers"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(
    live: LiveTeacher, tmp_path: Path, address: str, error: type[Exception], told: str
) -> None:
    settings = SETTINGS.model_copy(update={"ray_address": address})
    began = time.monotonic()
    with pytest.raises(error, match=told), Workers(live, asked_for(("logits",)), settings, tmp_path, MACHINE):
        pass
    assert time.monotonic() - began < 10
    assert not list(tmp_path.iterdir())


def test_a_missing_ray_is_told(live: LiveTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"install the extra stillroom\[ray\]"):
        ray_engine.fill(live, (), asked_for(("logits",)), SETTINGS, tmp_path, MACHINE, lambda rows: None)
