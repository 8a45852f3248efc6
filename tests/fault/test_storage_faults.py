"""A storage over a network and servers that fail: few faults are survived, many are TryAgain, and nothing is torn."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillroom import s3 as s3_module
from stillroom.errors import Absent, InputError, TryAgain
from stillroom.storage import Bucket, Folder
from tests.fault.proxy import ALWAYS, Proxy, Request

SMALL = random.Random(3).randbytes(300_000)
LARGE = random.Random(4).randbytes(17 << 20)
ATTEMPTS = 3
REFUSALS = ("internal error", "slow down", "hang", "refuse to talk", "lose the answer")
BODIES = ("close", "stall", "truncate", "empty", "flip")
Objects = dict[str, bytes]


@pytest.fixture
def bucket(proxy: Proxy, s3: tuple[Any, str], request: pytest.FixtureRequest) -> Bucket:
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return new_bucket(s3, 0.25 if parameters.get("kind") in ("hang", "stall") else 10)


def new_bucket(s3: tuple[Any, str], read_timeout_s: float = 10) -> Bucket:
    return Bucket(s3[1], "p", attempts=ATTEMPTS, connect_timeout_s=2, read_timeout_s=read_timeout_s)


@pytest.fixture
def objects(s3: tuple[Any, str]) -> Callable[[], Objects]:
    """`objects()`: what the bucket holds, past the proxy."""
    client, name = s3

    def stored() -> Objects:
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=name).get("Contents", ())]
        return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}

    return stored


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return file(tmp_path / "source", SMALL)


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(call: Callable[[], object], kind: type[Exception] = TryAgain) -> str:
    """The message of an error that is told in one line with the address."""
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).startswith("s3://")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, Absent)
    return str(caught.value)


def verbs(bucket: Bucket, source: Path, target: Path, kind: str = "") -> dict[str, Callable[[], object]]:
    """A call of each verb; of a hang, which costs time, only of those that differ in kind."""
    calls: dict[str, Callable[[], object]] = {
        "names": lambda: bucket.names(),
        "size": lambda: bucket.size("there"),
        "modified": lambda: bucket.modified("there") > 0,
        "read": lambda: bucket.read("there"),
        "fetch": lambda: bucket.fetch("there", target),
        "write": lambda: bucket.write("written", source),
        "create": lambda: bucket.create("created", b"created"),
        "remove": lambda: bucket.remove("there"),
    }
    return calls if kind != "hang" else {verb: calls[verb] for verb in ("names", "fetch", "create")}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_few_faults_are_survived(
    bucket: Bucket, proxy: Proxy, source: Path, tmp_path: Path, objects: Callable[[], Objects], kind: str
) -> None:
    bucket.write("there", source)
    expected = {"names": ["there"], "size": len(SMALL), "modified": True, "read": SMALL, "create": True}
    for verb, call in verbs(bucket, source, tmp_path / "target", kind).items():
        before = len(proxy.asked)
        proxy.fail(kind, ATTEMPTS - 1)
        assert call() == expected.get(verb)
        assert len(proxy.asked) - before >= ATTEMPTS
    assert (tmp_path / "target").read_bytes() == SMALL
    kept = {"p/there": SMALL} if kind == "hang" else {"p/written": SMALL}
    assert objects() == {"p/created": b"created"} | kept


@pytest.mark.parametrize("kind", REFUSALS)
def test_faults_that_stay_are_a_reason_to_try_again(
    bucket: Bucket, proxy: Proxy, source: Path, tmp_path: Path, objects: Callable[[], Objects], kind: str
) -> None:
    bucket.write("there", source)
    assert bucket.create("probed", b"")
    target = tmp_path / "local" / "target"
    for call in verbs(bucket, source, target, kind).values():
        before = len(proxy.asked)
        proxy.fail(kind, ALWAYS)
        refused(call)
        assert len(proxy.asked) - before == ATTEMPTS
        proxy.heal()
    assert list(target.parent.iterdir()) == []
    arrived = {"p/written": SMALL, "p/created": b"created"} if kind == "lose the answer" else {"p/there": SMALL}
    assert objects() == {"p/probed": b""} | arrived


def test_a_server_that_is_asked_too_often_is_a_reason_to_try_again(bucket: Bucket, proxy: Proxy) -> None:
    """botocore does not repeat a HEAD for its 429, which has no body to name the error."""
    for call in (bucket.names, lambda: bucket.size("there"), lambda: bucket.read("there")):
        proxy.fail("too many requests", ALWAYS)
        assert "the server answers 429" in refused(call)


@pytest.mark.parametrize("kind", ["forbidden", "not implemented", "no such bucket"])
def test_what_does_not_pass_by_itself_is_wrong_input_at_once(
    bucket: Bucket, proxy: Proxy, source: Path, tmp_path: Path, objects: Callable[[], Objects], kind: str
) -> None:
    bucket.write("there", source)
    calls = verbs(bucket, source, tmp_path / "target")
    for verb, call in calls.items():
        before = len(proxy.asked)
        proxy.fail(kind, ALWAYS)
        refused(call, InputError)
        assert len(proxy.asked) - before == (2 if kind == "no such bucket" and verb in ("size", "modified") else 1)
        proxy.heal()
    assert objects() == {"p/there": SMALL}
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", BODIES)
def test_a_broken_body_is_asked_for_again(
    bucket: Bucket, proxy: Proxy, source: Path, tmp_path: Path, kind: str
) -> None:
    bucket.write("there", source)
    proxy.fail(kind, ATTEMPTS - 1, method="GET")
    assert bucket.read("there") == SMALL
    proxy.fail(kind, ATTEMPTS - 1, method="GET")
    bucket.fetch("there", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == SMALL
    assert proxy.count("GET") == 2 * ATTEMPTS


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_stay_broken_are_a_reason_to_try_again(
    bucket: Bucket, proxy: Proxy, source: Path, tmp_path: Path, kind: str
) -> None:
    bucket.write("there", source)
    proxy.fail(kind, ALWAYS, method="GET")
    refused(lambda: bucket.read("there"))
    target = file(tmp_path / "target", b"old")
    refused(lambda: bucket.fetch("there", target))
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    assert proxy.count("GET") == 2 * ATTEMPTS


def test_a_broken_body_is_continued_where_it_broke_off(bucket: Bucket, proxy: Proxy, source: Path) -> None:
    bucket.write("there", source)
    proxy.fail("close", 2, method="GET")
    assert bucket.read("there") == SMALL
    ranges = [request.headers.get("Range") for request in proxy.asked if request.method == "GET"]
    assert ranges == [None, f"bytes={len(SMALL) // 2}-", f"bytes={len(SMALL) * 3 // 4}-"]


@pytest.mark.parametrize("kind", ["close", "truncate"])
def test_an_object_of_another_program_is_compared_in_size(
    bucket: Bucket, proxy: Proxy, s3: tuple[Any, str], kind: str
) -> None:
    client, name = s3
    client.put_object(Bucket=name, Key="p/foreign", Body=SMALL)
    proxy.fail(kind, 1, method="GET")
    assert bucket.read("foreign") == SMALL
    proxy.fail("truncate", ALWAYS, method="GET")
    assert "150000 of 300000 bytes arrived" in refused(lambda: bucket.read("foreign"))


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(
    bucket: Bucket, proxy: Proxy, s3: tuple[Any, str], source: Path
) -> None:
    client, name = s3
    bucket.write("there", source)
    other = SMALL[::-1]

    def replace(request: Request) -> None:
        client.put_object(Bucket=name, Key="p/there", Body=other)

    proxy.fail("close", 1, method="GET")
    proxy.fail("go through", 1, method="GET", before=replace)
    assert bucket.read("there") == other


def test_a_slow_body_is_no_fault(s3: tuple[Any, str], proxy: Proxy, source: Path) -> None:
    proxy.pieces_s = 0.1
    bucket = new_bucket(s3, read_timeout_s=0.5)
    bucket.write("there", source)
    proxy.fail("drip", ALWAYS, method="GET")
    started = time.monotonic()
    assert bucket.read("there") == SMALL
    assert time.monotonic() - started > 0.7
    assert proxy.count("GET") == 1


@pytest.mark.parametrize("kind", ["close", "truncate", "empty"])
def test_a_listing_that_is_cut_off_is_not_believed(bucket: Bucket, proxy: Proxy, source: Path, kind: str) -> None:
    bucket.write("there", source)
    proxy.fail(kind, ATTEMPTS - 1, method="GET")
    assert bucket.names() == ["there"]
    proxy.fail(kind, ALWAYS, method="GET")
    refused(bucket.names)


def test_a_create_whose_answer_was_lost_is_ours(bucket: Bucket, proxy: Proxy, objects: Callable[[], Objects]) -> None:
    assert bucket.create("first", b"")
    proxy.fail("lose the answer", 1, method="PUT")
    assert bucket.create("entry", b"ours")
    assert proxy.count("GET") == 1
    assert not bucket.create("entry", b"ours")
    assert objects() == {"p/first": b"", "p/entry": b"ours"}


def test_a_competing_writer_wins(
    bucket: Bucket, proxy: Proxy, s3: tuple[Any, str], objects: Callable[[], Objects]
) -> None:
    client, name = s3
    assert bucket.create("first", b"")

    def compete(request: Request) -> None:
        client.put_object(Bucket=name, Key="p/entry", Body=b"theirs")

    proxy.fail("go through", 1, method="PUT", before=compete)
    assert not bucket.create("entry", b"ours")
    client.delete_object(Bucket=name, Key="p/entry")
    proxy.fail("internal error", 1, method="PUT", before=compete)
    assert not bucket.create("entry", b"ours")
    assert objects() == {"p/first": b"", "p/entry": b"theirs"}


def test_a_create_that_was_never_answered_is_known_again(
    bucket: Bucket, proxy: Proxy, objects: Callable[[], Objects]
) -> None:
    assert bucket.create("first", b"")
    proxy.fail("lose the answer", ALWAYS, method="PUT")
    refused(lambda: bucket.create("entry", b"ours"))
    proxy.heal()
    assert not bucket.create("entry", b"others")
    assert bucket.create("entry", b"ours")
    assert not bucket.create("entry", b"ours")
    assert objects() == {"p/first": b"", "p/entry": b"ours"}


def test_a_conflict_is_tried_again(bucket: Bucket, proxy: Proxy, objects: Callable[[], Objects]) -> None:
    assert bucket.create("first", b"")
    proxy.fail("conflict", ATTEMPTS - 1, method="PUT")
    assert bucket.create("entry", b"ours")
    proxy.fail("conflict", ALWAYS, method="PUT")
    refused(lambda: bucket.create("other", b"ours"))
    assert objects() == {"p/first": b"", "p/entry": b"ours"}


def test_a_race_through_faults_has_one_winner(bucket: Bucket, proxy: Proxy, objects: Callable[[], Objects]) -> None:
    assert bucket.create("first", b"")
    contents = [f"writer {number}".encode() for number in range(8)]
    for kind in ("lose the answer", "internal error", "conflict", "refuse to talk"):
        proxy.fail(kind, 2, method="PUT", path="race")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda content: attempt(bucket, content), contents))
    assert won.count(True) == 1
    assert objects() == {"p/first": b"", "p/race": contents[won.index(True)]}


def attempt(bucket: Bucket, content: bytes) -> bool:
    while True:
        try:
            return bucket.create("race", content)
        except TryAgain:
            continue


def test_a_server_that_ignores_conditions_is_found_out_before_anything_is_created(
    bucket: Bucket, proxy: Proxy, objects: Callable[[], Objects]
) -> None:
    proxy.fail("ignore the condition", ALWAYS, method="PUT")
    assert "ignores If-None-Match" in refused(lambda: bucket.create("entry", b"ours"), InputError)
    assert objects() == {}
    proxy.heal()
    assert bucket.create("entry", b"ours")
    asked = proxy.count("PUT")
    assert bucket.create("other", b"ours")
    assert proxy.count("PUT") == asked + 1


def test_the_probe_is_not_misled_by_lost_answers(
    s3: tuple[Any, str], proxy: Proxy, objects: Callable[[], Objects]
) -> None:
    for after in (0, 1):
        proxy.fail("lose the answer", 1, method="PUT", after=after)
        new_bucket(s3).probe()
        proxy.fail("lose the answer", 1, method="PUT", after=after)
        proxy.fail("ignore the condition", ALWAYS, method="PUT")
        assert "ignores If-None-Match" in refused(new_bucket(s3).probe, InputError)
        proxy.heal()
    assert objects() == {}


def test_a_probe_that_may_not_be_removed_is_never_listed(bucket: Bucket, proxy: Proxy) -> None:
    proxy.fail("forbidden", ALWAYS, method="DELETE")
    assert bucket.create("entry", b"ours")
    assert bucket.names() == ["entry"]


@pytest.mark.parametrize("kind", ["internal error", "lose the answer", "refuse to talk"])
def test_an_upload_in_parts_survives_a_few_faults(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, kind: str, objects: Callable[[], Objects]
) -> None:
    large = file(tmp_path / "large", LARGE)
    proxy.fail(kind, 1, method="POST", path="uploads")
    proxy.fail(kind, 2, method="PUT", path="partNumber=2")
    proxy.fail(kind, 1, method="POST", path="uploadId")
    bucket.write("large", large)
    assert objects() == {"p/large": LARGE}
    assert bucket.size("large") == len(LARGE)


@pytest.mark.parametrize(
    ("kind", "error"), [("internal error", TryAgain), ("refuse to talk", TryAgain), ("no such bucket", InputError)]
)
@pytest.mark.parametrize("which", [{"method": "PUT", "after": 1}, {"method": "POST", "after": 1}])
def test_an_upload_that_fails_in_the_middle_leaves_nothing(
    bucket: Bucket,
    proxy: Proxy,
    s3: tuple[Any, str],
    tmp_path: Path,
    objects: Callable[[], Objects],
    kind: str,
    error: type[Exception],
    which: dict[str, Any],
) -> None:
    client, name = s3
    large = file(tmp_path / "large", LARGE)
    proxy.fail(kind, ALWAYS, **which)
    refused(lambda: bucket.write("large", large), error)
    assert objects() == {}
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)
    proxy.heal()
    bucket.write("large", large)
    assert objects() == {"p/large": LARGE}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_sweep_survives_a_few_faults(bucket: Bucket, proxy: Proxy, s3: tuple[Any, str], kind: str) -> None:
    client, name = s3
    for number in range(2):
        client.create_multipart_upload(Bucket=name, Key=f"p/{number}")
    for method in ("GET", "DELETE"):
        proxy.fail(kind, 1, method=method)
    bucket.sweep(0)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)
    proxy.fail(kind, ALWAYS)
    refused(lambda: bucket.sweep(0))


def test_a_server_that_lists_no_uploads_has_none_to_sweep(bucket: Bucket, proxy: Proxy, s3: tuple[Any, str]) -> None:
    client, name = s3
    client.create_multipart_upload(Bucket=name, Key="p/0")
    for kind in ("not implemented", "not allowed"):
        proxy.fail(kind, 1)
        bucket.sweep(0)
    proxy.fail("forbidden", 1)
    assert "the server answers 403" in refused(lambda: bucket.sweep(0), InputError)
    assert len(client.list_multipart_uploads(Bucket=name)["Uploads"]) == 1


def test_an_upload_that_is_completed_during_a_sweep_is_no_error(
    bucket: Bucket, proxy: Proxy, s3: tuple[Any, str]
) -> None:
    client, name = s3
    begun = [client.create_multipart_upload(Bucket=name, Key=f"p/{number}")["UploadId"] for number in range(2)]

    def end(request: Request) -> None:
        client.abort_multipart_upload(Bucket=name, Key="p/0", UploadId=begun[0])

    proxy.fail("go through", 1, method="DELETE", path="p/0", before=end)
    bucket.sweep(0)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_a_large_object_is_fetched_through_breaks(bucket: Bucket, proxy: Proxy, tmp_path: Path) -> None:
    bucket.write("large", file(tmp_path / "large", LARGE))
    proxy.fail("close", ATTEMPTS - 1, method="GET")
    bucket.fetch("large", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == LARGE


def test_an_endpoint_that_nobody_answers_at_is_a_reason_to_try_again(
    s3: tuple[Any, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    bucket = new_bucket(s3)
    for call in verbs(bucket, source, tmp_path / "target").values():
        assert "the S3 endpoint is not reachable; check AWS_ENDPOINT_URL" in refused(call)
    assert not (tmp_path / "target").exists()


def test_waits_grow_from_attempt_to_attempt_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    for number in (1, 2, 3, 9):
        s3_module.pause(number)
    assert waits == [1, 2, 4, 20]


WRITER = """
import sys
from pathlib import Path
from stillroom.storage import Folder
storage, source = Folder(Path(sys.argv[1])), Path(sys.argv[2])
for number in range(10_000):
    storage.write(f"files/{number:05d}", source)
    storage.create(f"entries/{number:05d}", b"entry" * 1000)
"""


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    source = file(tmp_path / "source", SMALL * 40)
    storage = Folder(tmp_path / "storage")

    def unfinished() -> set[Path]:
        return set(tmp_path.glob("storage/files/.*.tmp"))

    for _ in range(4):
        before = unfinished()
        with subprocess.Popen([sys.executable, "-c", WRITER, storage.where, str(source)]) as writer:
            deadline = time.monotonic() + 20
            while not (unfinished() - before and storage.names()) and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(writer.pid, signal.SIGKILL)
        for name in storage.names():
            assert storage.size(name) == (len(SMALL) * 40 if name.startswith("files/") else 5000)
    assert unfinished()
    assert storage.names()
