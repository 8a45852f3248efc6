"""Machines that share a bucket or a folder share the teacher's work, whatever network, server and writers do to it."""

import contextlib
import functools
import hashlib
import itertools
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom import s3 as s3_module
from stillroom.batching import load_tokeniser
from stillroom.cache.capture import Captured, capture
from stillroom.cache.identity import StaleCache, entry_keys, folder_name
from stillroom.cache.manifest import Manifest, Manifests, encode
from stillroom.cache.reader import Reader, unique_keys
from stillroom.cache.store import Store, absent
from stillroom.cache.texts import Listed
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.params import CaptureParams, ComputeParams
from stillroom.storage import Bucket, open_storage
from stillroom.teacher.model import TOKENISER
from tests.cache.answers import FIELDS, CountingTeacher, answers_of, encoded, live, shard_files, texts
from tests.fault.proxy import ALWAYS, Proxy
from tests.toys import toy_rows

TEXTS = toy_rows(60, seed=2).text
ATTEMPTS = 2
PER_SHARD = 10
PASSING = ("internal error", "slow down", "refuse to talk", "lose the answer", "drip", "close", "truncate", "empty")
"""Faults that the client survives, if they happen once."""
SLOW = ("hang", "stall")
LASTING = ("forbidden", "not implemented", "no such bucket", "no such key")
"""What does not pass by itself is wrong input, or means that something is not there."""
NUMBER = {key.tobytes(): number for number, key in enumerate(entry_keys(texts(1000)))}


@pytest.fixture(params=["folder", "bucket"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty storage."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    return f"s3://{request.getfixturevalue('s3')[1]}/shared"


class Machine:
    """A folder of its own, and a live teacher that is asked through the stage's own pass."""

    def __init__(self, root: Path, teacher: Path, shared: str | None) -> None:
        self.root = root
        self.shared = shared
        self._teacher = teacher
        self._tokeniser = load_tokeniser(teacher / TOKENISER, 32)

    def __call__(self, examples: list[str], shard_entries: int = 20) -> int:
        """How many texts the teacher computes, beside the spot check; all are answered then."""
        model = CountingTeacher()
        settings = CaptureParams(batch_tokens=200, shard_entries=shard_entries, spot_check=4, store=self.shared)
        asked = live(model, self._teacher, self._tokeniser, budget=settings.batch_tokens)
        done: Captured = capture(asked, Listed(examples), settings, self.root, 0, ComputeParams())
        assert not absent(done.reader, entry_keys(examples)).any()
        assert model.rows - min(4, len(examples)) == done.computed
        return done.computed

    @property
    def folder(self) -> Path:
        (folder,) = self.root.iterdir()
        return folder


@pytest.fixture
def machine(teacher: Path, tmp_path: Path) -> Callable[[str | None], Machine]:
    """`machine(shared)`: another machine each time."""
    numbers = itertools.count()
    return lambda shared: Machine(tmp_path / f"machine{next(numbers)}", teacher, shared)


def test_what_one_machine_captured_no_other_computes(shared: str, machine: Callable[[str | None], Machine]) -> None:
    one, other, third = machine(shared), machine(shared), machine(shared)
    assert one(TEXTS[:40]) == 40
    assert other(TEXTS[20:]) == 20
    assert (one(TEXTS), third(TEXTS), other(TEXTS)) == (0, 0, 0)
    assert len(Reader.open(third.folder)) == 60


def test_what_was_captured_before_there_was_a_shared_store_is_sent_there(
    shared: str, machine: Callable[[str | None], Machine]
) -> None:
    one = machine(None)
    assert one(TEXTS) == 60
    one.shared = f"{shared}/"
    assert one(TEXTS) == 0
    assert machine(shared)(TEXTS) == 0


def test_many_small_shards_are_merged_for_all_machines(shared: str, machine: Callable[[str | None], Machine]) -> None:
    one, other = machine(shared), machine(shared)
    for start in range(0, 40, 10):
        assert one(TEXTS[start : start + 10], shard_entries=1000) == 10
    assert other(TEXTS[:40], shard_entries=1000) == 0
    assert len(shard_files(other.folder)) == 4
    assert one(TEXTS[:50], shard_entries=1000) == 10
    assert other(TEXTS[:50], shard_entries=1000) == 0
    assert len(shard_files(one.folder)) == len(shard_files(other.folder)) == 1
    assert len(Manifests(open_storage(f"{shared}/{other.folder.name}")).latest().shards) == 1


def test_a_shard_that_is_damaged_on_this_machine_is_fetched_again(
    shared: str, machine: Callable[[str | None], Machine], caplog: pytest.LogCaptureFixture
) -> None:
    one = machine(shared)
    assert one(TEXTS) == 60
    damaged = shard_files(one.folder)[0]
    flip(damaged)
    with caplog.at_level(logging.WARNING, "stillroom"):
        assert one(TEXTS) == 0
    assert damaged.name in caplog.text
    Reader.open(one.folder).verify()


WRITER = """
import sys, time
from pathlib import Path
from stillroom.cache.identity import entry_keys
from stillroom.cache.store import Store
from tests.cache.answers import FIELDS, answers_of, encoded, texts

root, shared, first, merges = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = Store(root, FIELDS, shared)
store.reader()
root.mkdir(exist_ok=True)
(root / "ready").touch()
while len(list(root.parent.glob("machine*/ready"))) < 2:
    time.sleep(0.01)
for number, start in enumerate(range(first, first + 60, 3)):
    keys = entry_keys(texts(3, start))
    store.add(keys, encoded(answers_of(keys)))
    if merges and number % 3 == 2:
        store.reader()
        store.compact(1000)
"""


@pytest.mark.parametrize("merges", [(0, 0), (1, 0), (1, 1)])
def test_two_machines_at_once_lose_nothing_and_spoil_nothing(
    shared: str, tmp_path: Path, merges: tuple[int, int]
) -> None:
    roots = [tmp_path / "machine0", tmp_path / "machine1"]
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, str(root), shared, str(first), str(merging)], cwd=Path.cwd()
        )
        for root, first, merging in zip(roots, (0, 31), merges, strict=True)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    for root in roots:
        assert Store(root, FIELDS, shared).reader() is not None
        assert answered(root / folder_name(FIELDS)) == set(range(91))
    assert Store(tmp_path / "third", FIELDS, shared).reader() is not None
    assert answered(tmp_path / "third" / folder_name(FIELDS)) == set(range(91))


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def answered(folder: Path) -> set[int]:
    """The numbers of the texts that a folder answers: its manifest and every shard are whole, every answer is right."""
    if not (folder / "manifests").exists():
        return set()
    reader = Reader.open(folder)
    reader.verify()
    keys = unique_keys(np.concatenate([shard.keys for shard in reader.shards]))[0]
    positions = reader.locate(keys, "texts")
    for name, values in answers_of(keys).items():
        np.testing.assert_array_equal(reader.read(name, positions), values)
    return {NUMBER[key.tobytes()] for key in keys}


class Bench:
    """A bucket behind the proxy, which a machine and a rival share; each case has a prefix and folders of its own.

    Of texts 0 to 39 the machine has none, the bucket the first 20 in two shards.
    """

    def __init__(self, client: Any, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
        self.client = client
        self.bucket = bucket
        self.proxy = proxy
        self._numbers = itertools.count()
        self.case = tmp_path / "origin"
        self.run("origin", 20)

    def prepare(self) -> None:
        """A case of its own."""
        origin = self._objects("origin/")
        self.case = self.case.with_name(f"case{next(self._numbers)}")
        for name, content in origin.items():
            noted = {"sha256": hashlib.sha256(content).hexdigest()}
            self.client.put_object(Bucket=self.bucket, Key=self._start + name, Body=content, Metadata=noted)
        self.proxy.asked.clear()

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.case.name}"

    def store(self, name: str) -> Store:
        return Store(self.case / name, FIELDS, self.address)

    def run(self, name: str, count: int, first: int = 0) -> int:
        """A pass of a machine over texts: how many of them had no answer."""
        store = self.store(name)
        keys = entry_keys(texts(count, first))
        missing = keys[absent(store.reader(), keys)]
        for start in range(0, len(missing), PER_SHARD):
            part = missing[start : start + PER_SHARD]
            store.add(part, encoded(answers_of(part)))
        store.push()
        return len(missing)

    def folder(self, name: str) -> Path:
        return self.case / name / folder_name(FIELDS)

    @property
    def _start(self) -> str:
        return f"{self.case.name}/{folder_name(FIELDS)}/"

    def objects(self) -> dict[str, bytes]:
        """What the case has in the bucket, past the proxy."""
        return self._objects(f"{self.case.name}/")

    def _objects(self, case: str) -> dict[str, bytes]:
        start = f"{case}{folder_name(FIELDS)}/"
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=start).get("Contents", ())
        keys = [entry["Key"] for entry in found if not entry["Key"].endswith(".tmp")]
        return {
            key.removeprefix(start): self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys
        }

    def key(self, name: str) -> str:
        return self._start + name

    def put(self, name: str, content: bytes, noted: bool) -> None:
        """Put something else in the place of an object; `noted`: with the digest that was stored with it."""
        told = self.client.head_object(Bucket=self.bucket, Key=self.key(name))["Metadata"] if noted else {}
        self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=content, Metadata=told)

    def empty(self) -> None:
        for name in self.objects():
            self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def rival(self) -> Callable[[object], None]:
        """What another machine does, which speaks to the server past the proxy: it adds texts 35 to 44."""
        store, keys = self.store("rival"), entry_keys(texts(10, 35))
        store._storage._client = self.client  # type: ignore[union-attr]
        assert store.reader() is not None
        return lambda request: store.add(keys, encoded(answers_of(keys)))

    def stopped_by(self, kind: type[StillroomError]) -> str | None:
        """What a pass says that is stopped by an error of that kind, or by none."""
        try:
            self.run("here", 40)
        except kind as error:
            return str(error)
        return None

    def shared(self) -> set[int]:
        """The texts that the bucket answers, all of it whole."""
        copy = self.case / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for name, content in self.objects().items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        return answered(copy)

    def heals(self) -> None:
        """What is visible is whole, and the next pass completes it: it computes what is missing, nothing else."""
        self.proxy.heal()
        there = self.shared() | answered(self.folder("here"))
        assert self.run("here", 40) == len(set(range(40)) - there)
        assert self.shared() >= set(range(40))
        assert answered(self.folder("here")) >= self.shared() & set(range(40))


@pytest.fixture
def bench(proxy: Proxy, s3: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    def wait() -> float:
        """Short only where an answer is to be missed: a busy server takes its time."""
        return 0.25 if any(fault.times and fault.kind in SLOW for fault in proxy.faults) else 10

    def quick(address: str) -> Bucket:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        return Bucket(bucket, prefix, attempts=ATTEMPTS)

    made = functools.cache(lambda wait: new_client("", attempts=ATTEMPTS, connect_timeout_s=2, read_timeout_s=wait))
    new_client = s3_module.client
    monkeypatch.setattr(s3_module, "client", lambda *_, **__: made(wait()))  # a client takes longer than a pass
    monkeypatch.setattr("stillroom.cache.store.open_storage", quick)
    return Bench(*s3, proxy, tmp_path)


def requests_of_a_pass(bench: Bench) -> int:
    bench.prepare()
    assert bench.run("here", 40) == 20
    assert bench.shared() == answered(bench.folder("here")) == set(range(40))
    return len(bench.proxy.asked)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_at_any_request_is_survived(bench: Bench, kind: str) -> None:
    for number in range(requests_of_a_pass(bench)):
        bench.prepare()
        bench.proxy.fail(kind, 1, after=number)
        assert bench.run("here", 40) == 20
        assert bench.shared() == answered(bench.folder("here")) == set(range(40))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["internal error", "lose the answer", "truncate", "flip", *SLOW, *LASTING])
def test_a_request_that_fails_each_time_stops_the_pass_and_tears_nothing(bench: Bench, kind: str) -> None:
    stopped = 0
    for number in range(requests_of_a_pass(bench)):
        bench.prepare()
        bench.proxy.fail(kind, ATTEMPTS, after=number)
        told = bench.stopped_by(InputError if kind in LASTING else TryAgain)
        stopped += told is not None
        assert told is None or (told.startswith(bench.address) and "\n" not in told)
        bench.heals()
    assert stopped


@pytest.mark.slow
def test_a_rival_at_any_request_loses_nothing_and_stops_nobody(bench: Bench) -> None:
    for number in range(requests_of_a_pass(bench)):
        bench.prepare()
        bench.proxy.fail("go through", after=number, before=bench.rival())
        assert bench.run("here", 40) in (15, 20)
        bench.heals()
        assert bench.shared() == set(range(45))


def test_a_bucket_that_is_gone_at_any_request_stops_the_pass_and_takes_nothing_from_this_machine(bench: Bench) -> None:
    for number in range(requests_of_a_pass(bench)):
        bench.prepare()
        bench.proxy.fail("no such bucket", ALWAYS, after=number)
        with pytest.raises(InputError, match=r"the server answers 404 \(no such bucket\)"):
            bench.run("here", 40)
        bench.proxy.heal()
        bench.empty()
        here = answered(bench.folder("here"))
        assert bench.run("here", 40) == 40 - len(here)
        assert bench.shared() == answered(bench.folder("here")) == set(range(40))


def test_a_bucket_that_is_deleted_is_no_damage(bench: Bench) -> None:
    bench.prepare()
    assert bench.run("here", 40) == 20
    store = bench.store("here")
    assert store.reader() is not None
    bench.bucket = "b-deleted"
    with pytest.raises(InputError, match=r"the server answers 404 \(The specified bucket does not exist\)"):
        bench.run("here", 50)
    assert answered(bench.folder("here")) == set(range(40))


@pytest.mark.parametrize("kind", ["lose the answer", "no such key"])
def test_a_fault_in_a_merge_loses_nothing(bench: Bench, kind: str) -> None:
    def merge(name: str) -> None:
        store = bench.store(name)
        assert store.reader() is not None
        store.compact(1000)

    for number in itertools.count():
        bench.prepare()
        assert bench.run("here", 50) == 30
        before = len(bench.proxy.asked)
        bench.proxy.fail(kind, ATTEMPTS, after=number)
        with contextlib.suppress(StillroomError):
            merge("here")
        done = len(bench.proxy.asked) - before <= number
        bench.heals()
        assert answered(bench.folder("here")) == bench.shared() == set(range(50))
        if done:
            break


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("damaged", ["shard", "manifest", "lost shard"])
def test_damage_in_the_bucket_is_told_and_healed_by_the_next_pass(
    bench: Bench, caplog: pytest.LogCaptureFixture, damaged: str, noted: bool
) -> None:
    """Found whether the server gives back the digest that was noted with an object or not."""
    bench.prepare()
    objects = bench.objects()
    name = max(objects) if damaged != "manifest" else max(name for name in objects if name.startswith("manifests/"))
    if damaged == "lost shard":
        bench.client.delete_object(Bucket=bench.bucket, Key=bench.key(name))
    else:
        bench.put(name, objects[name][:-2] + b"x" + objects[name][-1:], noted)
    with caplog.at_level(logging.WARNING, "stillroom"):
        assert bench.run("here", 40) == (20 if damaged == "manifest" else 30)
    assert name in caplog.text
    assert bench.shared() == answered(bench.folder("here")) == set(range(40))
    assert bench.run("third", 40) == 0


def test_damage_in_the_bucket_takes_nothing_from_a_machine_that_has_the_answers(bench: Bench) -> None:
    bench.prepare()
    assert bench.run("here", 20) == 0
    for name, content in bench.objects().items():
        bench.put(name, content[:-2] + b"x" + content[-1:], noted=False)
    assert bench.run("here", 20) == 0
    assert answered(bench.folder("here")) == set(range(20))
    assert bench.run("third", 0) == 0  # finds the shards damaged
    assert bench.run("here", 20) == 0  # sends its own
    assert bench.shared() == set(range(20))


def test_the_answers_of_another_teacher_are_refused_and_nothing_is_written(bench: Bench) -> None:
    bench.prepare()
    name = max(name for name in bench.objects() if name.startswith("manifests/"))
    bench.put(name, encode(Manifest(fingerprint={**FIELDS, "precision": "bf16"})), noted=False)
    before = bench.objects()
    with pytest.raises(StaleCache, match=r"of another teacher: precision differs .*bf16 there, fp32 here") as caught:
        bench.run("here", 20)
    assert str(caught.value).startswith(bench.address)
    assert bench.objects() == before
    assert not bench.folder("here").exists()


def test_a_bucket_that_takes_nothing_is_told_after_the_work_is_safe(bench: Bench) -> None:
    bench.prepare()
    bench.proxy.fail("forbidden", ALWAYS, method="PUT")
    with pytest.raises(InputError, match=r"/shards/[0-9a-f]{64}\.safetensors: the server answers 403") as caught:
        bench.run("here", 40)
    assert "\n" not in str(caught.value)
    assert answered(bench.folder("here")) == set(range(30))
    assert bench.run("reads", 20) == 0, "what is there is read all the same"
    assert bench.shared() == set(range(20))
    bench.heals()


def test_old_manifests_that_may_not_be_removed_stop_nobody(bench: Bench) -> None:
    bench.prepare()
    bench.proxy.fail("forbidden", ALWAYS, method="DELETE")
    assert bench.run("here", 140) == 120
    assert bench.shared() == set(range(140))


def test_an_added_shard_costs_six_requests(bench: Bench) -> None:
    """List, size and content of the manifest, the shard, the next manifest, and a list to see that it counts."""
    bench.prepare()
    store = bench.store("here")
    store.reader()
    for number in range(2):
        bench.proxy.asked.clear()
        keys = entry_keys(texts(10, 20 + 10 * number))
        store.add(keys, encoded(answers_of(keys)))
    assert [request.method for request in bench.proxy.asked] == ["GET", "HEAD", "GET", "PUT", "PUT", "GET"]
    bench.proxy.asked.clear()
    assert bench.run("here", 40) == 0
    assert [request.method for request in bench.proxy.asked] == ["GET", "HEAD", "GET"] * 2
