"""The contract of a storage, kept by a folder and by a bucket alike."""

import errno
import functools
import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InputError, TryAgain
from stillroom.storage import Absent, Bucket, Folder, Storage, open_storage

BAD_NAMES = (
    "",
    ".",
    "..",
    "/a",
    "a/",
    "a//b",
    "a/./b",
    "../a",
    "a/../b",
    "a/..",
    "a\\b",
    "a\0b",
    "a\nb",
    "\udc80",
    ".a.0a1b2c3d.tmp",
)


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "deep" / "storage")
    return open_storage(f"s3://{request.getfixturevalue('s3')[1]}/deep/storage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def is_one_line(caught: pytest.ExceptionInfo[Exception], where: str) -> bool:
    return str(caught.value).startswith(where) and "\n" not in str(caught.value)


def test_a_storage_that_does_not_exist_yet_is_empty(storage: Storage) -> None:
    assert storage.names() == []
    assert storage.names("models/") == []


def test_what_is_written_is_read_and_listed(storage: Storage, tmp_path: Path) -> None:
    source = file(tmp_path / "source", b"some bytes")
    for name in ("shards/b.bin", "shards/a/c.bin", "shards2/d.bin", "manifest é.json", "shards/a-b", "empty"):
        storage.write(name, source if name != "empty" else file(tmp_path / "none", b""))
    assert storage.names("shards") == storage.names("shards/") == ["shards/a-b", "shards/a/c.bin", "shards/b.bin"]
    assert storage.names() == ["empty", "manifest é.json", *storage.names("shards"), "shards2/d.bin"]
    assert storage.names("manifest é.json") == []
    assert (storage.read("manifest é.json"), storage.size("manifest é.json")) == (b"some bytes", 10)
    assert (storage.read("empty"), storage.size("empty")) == (b"", 0)
    assert source.read_bytes() == b"some bytes"
    storage.write("empty", source)
    assert storage.read("empty") == b"some bytes"


def test_a_large_file_comes_back_as_it_was(storage: Storage, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(40 << 20)
    storage.write("large.bin", file(tmp_path / "source", content))
    assert storage.size("large.bin") == len(content)
    target = tmp_path / "new" / "target"
    storage.fetch("large.bin", target)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_what_is_fetched_replaces_what_was_there(storage: Storage, tmp_path: Path) -> None:
    storage.create("a", b"new")
    target = file(tmp_path / "target", b"old and longer")
    storage.fetch("a", target)
    assert target.read_bytes() == b"new"


def test_a_copy_shares_nothing_with_its_source(storage: Storage, tmp_path: Path) -> None:
    source = file(tmp_path / "source", b"one")
    storage.write("a", source)
    storage.fetch("a", tmp_path / "target")
    for path in (source, tmp_path / "target"):
        with path.open("r+b") as stream:
            stream.write(b"two")
    assert storage.read("a") == b"one"


def test_a_name_is_created_once(storage: Storage) -> None:
    assert storage.create("ledger/1.json", b"one")
    assert not storage.create("ledger/1.json", b"two")
    assert not storage.create("ledger/1.json", b"one")
    assert storage.read("ledger/1.json") == b"one"
    assert storage.names() == ["ledger/1.json"]
    storage.remove("ledger/1.json")
    assert storage.create("ledger/1.json", b"two")


@pytest.mark.parametrize("same", [False, True])
def test_a_race_has_one_winner(storage: Storage, same: bool) -> None:
    for turn in range(5):
        start = threading.Barrier(8)
        contents = [b"same" if same else f"writer {number}".encode() for number in range(8)]

        def enter(content: bytes, turn: int = turn, start: threading.Barrier = start) -> bool:
            start.wait()
            return storage.create(f"race/{turn}", content)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(enter, contents))
        assert won.count(True) == 1
        assert storage.read(f"race/{turn}") == contents[won.index(True)]
    assert storage.names() == [f"race/{turn}" for turn in range(5)]


def test_what_is_listed_is_whole(storage: Storage, tmp_path: Path) -> None:
    source = file(tmp_path / "source", bytes(20 << 20))

    def write() -> None:
        for number in range(4):
            storage.write(f"file {number}", source)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            assert {storage.size(name) for name in storage.names()} <= {20 << 20}
        writing.result()
    assert storage.names() == [f"file {number}" for number in range(4)]


def test_what_is_absent_says_so(storage: Storage, tmp_path: Path) -> None:
    storage.create("a/b", b"x")
    for name in ("a/c", "a", "nowhere/c"):
        fetch = functools.partial(storage.fetch, target=tmp_path / "target")
        for get in (storage.read, storage.size, storage.modified, fetch):
            with pytest.raises(Absent) as caught:
                get(name)
            assert is_one_line(caught, f"{storage.where}/{name}: no such ")
    assert not (tmp_path / "target").exists()
    for name in ("a/c", "a", "nowhere/c"):
        storage.remove(name)
    assert storage.names() == ["a/b"]


def test_a_file_tells_when_it_was_written(storage: Storage, tmp_path: Path) -> None:
    began = time.time()
    source = file(tmp_path / "source", b"x")
    os.utime(source, (0, 0))
    storage.write("written", source)
    storage.create("created", b"x")
    for name in ("written", "created"):
        assert began - 2 < storage.modified(name) < time.time() + 2


def test_a_sweep_leaves_files_and_an_empty_place_alone(storage: Storage) -> None:
    storage.sweep(0)
    storage.create("a/b", b"x")
    storage.sweep(-60)
    assert storage.names() == ["a/b"]
    assert storage.read("a/b") == b"x"


def test_what_killed_writers_left_in_a_folder_goes_when_it_is_old(folder: Path, tmp_path: Path) -> None:
    storage = Folder(folder)
    storage.create("a/whole", b"x")
    old, young, outside = folder / "a/.half.0a1b2c3d.tmp", folder / ".half.0a1b2c3e.tmp", tmp_path / ".x.0a1b2c3d.tmp"
    for path in (old, young, outside):
        file(path, b"half")
    for path in (old, outside, folder / "a/whole"):
        os.utime(path, (time.time() - 7200,) * 2)
    (folder / "tree").symlink_to(tmp_path)
    storage.sweep(3600)
    assert not old.exists()
    assert young.exists()
    assert outside.exists()
    assert storage.names() == ["a/whole"]


def test_a_writer_that_finishes_during_a_sweep_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        file(folder / f".half.0a1b2c3{number}.tmp", b"half")
    stat = Path.stat

    def finished(path: Path, **options: bool) -> os.stat_result:
        if path.name == ".half.0a1b2c30.tmp":
            path.unlink()
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", finished)
    Folder(folder).sweep(-60)
    assert list(folder.iterdir()) == []


BEGUN = 1289422113.0
"""When the S3 server of the tests says that an upload in parts was begun, whenever it was."""


def uploads(client: Any, bucket: str) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def test_uploads_that_were_never_completed_go_when_they_are_old(s3: tuple[Any, str]) -> None:
    client, bucket = s3
    storage = Bucket(bucket, "p")
    storage.create("whole", b"x")
    for key in ("p/a", "p/a", "p/b/c", "other/a"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    storage.sweep(time.time() - BEGUN + 3600)
    assert sorted(uploads(client, bucket)) == ["other/a", "p/a", "p/a", "p/b/c"]
    storage.sweep(time.time() - BEGUN - 3600)
    assert uploads(client, bucket) == ["other/a"]
    assert storage.names() == ["whole"]


def test_uploads_are_listed_on_more_than_one_page(s3: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests lists all at once; its answers are cut into pages of two."""
    from moto.s3.responses import S3Response

    client, bucket = s3
    for number in range(5):
        client.create_multipart_upload(Bucket=bucket, Key=f"p/{number}")
    whole = S3Response.list_multipart_uploads

    def page(response: Any) -> Any:
        status, headers, body = whole(response)
        text = body.decode() if isinstance(body, bytes) else body
        entries = re.findall(r"<Upload>.*?</Upload>", text, re.DOTALL)
        after = response.querystring.get("key-marker", [""])[0]
        keys = [re.findall("<Key>(.*?)</Key>", entry)[0] for entry in entries]
        rest = [entry for key, entry in zip(keys, entries, strict=True) if key > after]
        pages.append(after)
        if len(rest) > 2:
            marker = re.findall("<Key>(.*?)</Key>", rest[1])[0]
            more = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{marker}</NextKeyMarker>"
            text = re.sub("<IsTruncated>.*?</IsTruncated>", more, text)
        for entry in {*entries} - {*rest[:2]}:
            text = text.replace(entry, "")
        return status, headers, text

    pages: list[str] = []
    monkeypatch.setattr(S3Response, "list_multipart_uploads", page)
    Bucket(bucket, "p").sweep(0)
    monkeypatch.undo()
    assert pages == ["", "p/1", "p/3"]
    assert uploads(client, bucket) == []


def test_a_source_that_is_missing_is_wrong_input(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        storage.write("a", tmp_path / "none")
    assert is_one_line(caught, f"{tmp_path / 'none'}: ")
    assert storage.names() == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_out_is_a_defect_of_the_caller(storage: Storage, tmp_path: Path, name: str) -> None:
    source = file(tmp_path / "source", b"x")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: storage.read(name),
        lambda: storage.size(name),
        lambda: storage.modified(name),
        lambda: storage.write(name, source),
        lambda: storage.create(name, b"x"),
        lambda: storage.fetch(name, tmp_path / "target"),
        lambda: storage.remove(name),
    )
    for call in calls:
        with pytest.raises(ValueError, match="is no name in a storage"):
            call()
    if name not in ("", "a/"):
        with pytest.raises(ValueError, match="is no name in a storage"):
            storage.names(name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["source"]


def test_a_folder_lists_whole_files_of_its_own(folder: Path, tmp_path: Path) -> None:
    storage = Folder(folder)
    storage.create("a/whole", b"x")
    file(folder / "a" / ".half.0a1b2c3d.tmp", b"")
    file(folder / os.fsdecode(b"\xff"), b"")
    os.mkfifo(folder / "pipe")
    (folder / "linked").symlink_to(file(tmp_path / "outside", b"x"))
    (folder / "tree").symlink_to(tmp_path)
    assert storage.names() == ["a/whole"]
    with pytest.raises(Absent):
        storage.read("pipe")


def test_a_bucket_lists_only_what_a_caller_can_name(s3: tuple[Any, str]) -> None:
    client, bucket = s3
    for key in ("p/whole", "p/", "p/a//b", "p/../b", "p/.probe.0a1b2c3d.tmp", "p2/other"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert Bucket(bucket, "p").names() == ["whole"]
    assert Bucket(bucket, "p").names("whole") == []
    assert Bucket(bucket).names() == ["p/whole", "p2/other"]


def test_a_listing_has_more_than_one_page(s3: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    client, bucket = s3
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(10):
        client.put_object(Bucket=bucket, Key=f"n/{number} é", Body=b"")
    assert len(client.list_objects_v2(Bucket=bucket)["Contents"]) == 3
    assert Bucket(bucket).names("n") == [f"n/{number} é" for number in range(10)]


def test_symbolic_links_are_refused_and_never_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = file(outside / "secret", b"secret")
    (folder / "tree").symlink_to(outside)
    (folder / "linked").symlink_to(secret)
    (folder / "dangling").symlink_to(outside / "new")
    storage = Folder(folder)
    refused: tuple[Callable[[], Any], ...] = (
        lambda: storage.read("linked"),
        lambda: storage.size("linked"),
        lambda: storage.modified("linked"),
        lambda: storage.fetch("linked", tmp_path / "target"),
        lambda: storage.names("tree"),
        lambda: storage.names("tree/deep"),
        lambda: storage.read("tree/secret"),
        lambda: storage.write("tree/new", secret),
        lambda: storage.create("tree/new", b"x"),
        lambda: storage.remove("tree/secret"),
    )
    for call in refused:
        with pytest.raises(InputError, match="is a symbolic link; "):
            call()
    assert storage.names() == []
    assert not storage.create("dangling", b"x")
    storage.write("linked", file(tmp_path / "source", b"mine"))
    storage.remove("dangling")
    assert storage.read("linked") == b"mine"
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("secret", b"secret")]


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    storage = open_storage(str(tmp_path / "link"))
    storage.create("a/b", b"x")
    assert Folder(folder).names() == storage.names() == ["a/b"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_full_disk_leaves_nothing_half_visible(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, failing: str
) -> None:
    """Errors at the first write and at the sync of the last: some file systems find out only then."""
    source = file(tmp_path / "source", b"x" * (3 << 20))
    storage.write("there", source)
    local = isinstance(storage, Folder)

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def expect(call: Callable[[], object], named: str) -> None:
        with monkeypatch.context() as patch:
            if failing == "fsync":
                patch.setattr(os, "fsync", full)
            else:
                patch.setattr("shutil.copyfileobj", full)
                patch.setattr(Path, "write_bytes", full)
                patch.setattr(Bucket, "_receive", full)
            with pytest.raises(TryAgain) as caught:
                call()
        assert is_one_line(caught, f"{named}: {os.strerror(number)}; free some space")

    expect(lambda: storage.fetch("there", tmp_path / "local" / "target"), str(tmp_path / "local"))
    assert list((tmp_path / "local").iterdir()) == []
    if local:
        expect(lambda: storage.write("new/file", source), f"{storage.where}/new")
        expect(lambda: storage.create("new/entry", b"x"), f"{storage.where}/new")
        assert list((Path(storage.where) / "new").iterdir()) == []
    assert storage.names() == ["there"]


def test_a_file_system_without_links_cannot_create(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    with pytest.raises(InputError, match=r"makes no hard links \(Operation not permitted\)"):
        Folder(folder).create("a", b"x")
    assert list(folder.iterdir()) == []


def test_a_name_below_a_file_is_wrong_input(folder: Path, tmp_path: Path) -> None:
    storage = Folder(folder)
    storage.create("a", b"x")
    for call in (lambda: storage.write("a/b", folder / "a"), lambda: storage.create("a/b", b"x")):
        with pytest.raises(InputError) as caught:
            call()
        assert is_one_line(caught, f"{folder / 'a'}: ")
    storage.create("c/d", b"x")
    with pytest.raises(InputError):
        storage.write("c", folder / "a")
    assert storage.names() == ["a", "c/d"]


def test_an_address_is_a_path_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("some/folder").where == open_storage(Path("some/folder")).where == f"{tmp_path}/some/folder"
    for address in ("s3://bucket/some/prefix", "s3://bucket/some/prefix/"):
        storage = open_storage(address)
        assert (type(storage), storage.where) == (Bucket, "s3://bucket/some/prefix")
    assert open_storage("s3://bucket").where == open_storage("s3://bucket/").where == "s3://bucket"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        " ",
        "a\0b",
        "https://host/x",
        "gs://bucket",
        "s3:/bucket/x",
        "s3://",
        "s3:///x",
        "s3://a b/x",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        Path("s3://bucket/x"),
    ],
)
def test_other_addresses_are_wrong_input(address: str | Path) -> None:
    with pytest.raises(InputError, match=re.escape("s3://bucket")):
        open_storage(address)


def test_a_file_is_no_storage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a file; "):
        open_storage(file(tmp_path / "x", b""))


@pytest.mark.parametrize("read", ["names", "size", "modified", "read", "create", "fetch", "write", "remove", "sweep"])
def test_a_bucket_that_does_not_exist_is_wrong_input(s3: tuple[Any, str], tmp_path: Path, read: str) -> None:
    storage = Bucket("no-such-bucket", "p")
    source = file(tmp_path / "source", b"x")
    calls: dict[str, Callable[[], object]] = {
        "names": lambda: storage.names(),
        "size": lambda: storage.size("a"),
        "modified": lambda: storage.modified("a"),
        "sweep": lambda: storage.sweep(0),
        "read": lambda: storage.read("a"),
        "create": lambda: storage.create("a", b"x"),
        "fetch": lambda: storage.fetch("a", tmp_path / "target"),
        "write": lambda: storage.write("a", source),
        "remove": lambda: storage.remove("a"),
    }
    with pytest.raises(InputError, match=r"the server answers 404 \(The specified bucket does not exist\)") as caught:
        calls[read]()
    assert not isinstance(caught.value, Absent)
    assert is_one_line(caught, "s3://no-such-bucket/p")


def test_missing_credentials_say_what_to_set(
    s3: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(InputError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        Bucket(s3[1]).names()


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "127.0.0.1:9000"])
def test_a_malformed_endpoint_is_wrong_input(
    monkeypatch: pytest.MonkeyPatch, s3: tuple[Any, str], endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InputError) as caught:
        Bucket("bucket").names()
    assert is_one_line(caught, "s3://bucket: ")


def test_a_profile_that_does_not_exist_is_wrong_input(monkeypatch: pytest.MonkeyPatch, s3: tuple[Any, str]) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError) as caught:
        Bucket("bucket").names()
    assert is_one_line(caught, "s3://bucket: ")
