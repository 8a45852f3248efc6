import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import InputError, TryAgain
from stillroom.files import (
    atomic_file,
    atomic_folder,
    create_file,
    disk_errors,
    file_digests,
    is_temporary,
    listing_digest,
    read_json,
    sha256_file,
    tree_digest,
    write_json,
)

Contents = dict[str, bytes]


def write_tree(folder: Path, contents: Contents) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def everything(folder: Path) -> Contents:
    """All files below a folder, hidden and temporary ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


OLD = {"a": b"old", "sub/b": b"older"}


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    for content in (b"first", b"second"):
        with atomic_file(target) as temporary:
            temporary.write_bytes(content)
            assert target.exists() == (content == b"second")
        assert everything(tmp_path) == {"new/file": content}


def half_file(target: Path) -> None:
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"new, but only hal")
        raise RuntimeError("half way")


def half_folder(target: Path, error: type[BaseException]) -> None:
    with atomic_folder(target) as temporary:
        write_tree(temporary, {"a": b"new"})
        raise error


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": b"old"})
    with pytest.raises(RuntimeError, match="half way"):
        half_file(tmp_path / "file")
    assert everything(tmp_path) == {"file": b"old"}


def test_a_file_that_was_not_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": b"old"})
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        pass
    assert everything(tmp_path) == {"file": b"old"}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = write_tree(tmp_path / "folder", OLD)
    with atomic_folder(target) as temporary:
        write_tree(temporary, {"c": b"new"})
        assert everything(target) == OLD
    assert everything(tmp_path) == {"folder/c": b"new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = write_tree(tmp_path / "folder", OLD)
    with pytest.raises(error):
        half_folder(target, error)
    assert everything(tmp_path) == {f"folder/{name}": content for name, content in OLD.items()}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    target = write_tree(tmp_path / "folder", OLD)
    renames = 0
    rename: Callable[[Path, Path], Path] = Path.rename

    def breaking(self: Path, to: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == failing:
            raise OSError(5, "the disk is gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", breaking)
    with pytest.raises(OSError, match="the disk is gone"), atomic_folder(target) as temporary:
        write_tree(temporary, {"a": b"new"})
    assert everything(tmp_path) == {f"folder/{name}": content for name, content in OLD.items()}


def test_what_takes_its_place_was_synced_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    target = tmp_path / "folder"
    real = os.fsync

    def recording(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append("after" if target.exists() else path.name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with atomic_folder(target) as temporary:
        write_tree(temporary, OLD)
    assert {"a", "sub", "b"} <= set(synced)
    assert synced[-1] == "after"


@pytest.mark.parametrize("value", [float("nan"), {"deep": [1.0, float("inf")]}, {1: object()}])
def test_json_that_is_none_is_refused_and_the_old_one_stays(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", value)
    assert everything(tmp_path) == {"a.json": b'{\n  "old": 1\n}\n'}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(value=json_values)
def test_json_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert json.dumps(read_json(path)) == json.dumps(value), "keys keep their order"


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[1,]"])
def test_json_that_cannot_be_read_is_wrong_input(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: (no such file|not readable as JSON)") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    assert tree_digest(path) == sha256_file(path)


names = st.text("ab.-", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
trees = st.dictionaries(names, st.binary(max_size=3), min_size=1, max_size=5)


@given(contents=trees, other=trees, shuffled=st.randoms())
def test_a_tree_digest_tells_names_and_contents_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, contents: Contents, other: Contents, shuffled: object
) -> None:
    root = tmp_path_factory.mktemp("trees")
    items = list(contents.items())
    shuffled.shuffle(items)  # type: ignore[attr-defined]
    one = tree_digest(write_tree(root / "one", contents))
    assert one == tree_digest(write_tree(root / "reordered", dict(items)))
    assert one == listing_digest(file_digests(root / "one"))
    assert (one == tree_digest(write_tree(root / "other", other))) == (contents == other)


def test_a_tree_digest_does_not_depend_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tree(tmp_path / "tree", {"b": b"1", "a/c": b"2", "a-b": b"3"})
    one = tree_digest(folder)
    real: Callable[[Path, str], Iterator[Path]] = Path.rglob
    for turn in (sorted, lambda paths: sorted(paths, reverse=True)):
        monkeypatch.setattr(Path, "rglob", lambda self, pattern, turn=turn: iter(turn(real(self, pattern))))
        assert tree_digest(folder) == one


def test_a_tree_digest_sees_sub_folders_and_neither_times_nor_modes(tmp_path: Path) -> None:
    flat = tree_digest(write_tree(tmp_path / "flat", {"a": b"1", "b": b"2"}))
    deep = tree_digest(write_tree(tmp_path / "deep", {"a": b"1", "sub/b": b"2"}))
    swapped = tree_digest(write_tree(tmp_path / "swapped", {"a": b"2", "b": b"1"}))
    assert len({flat, deep, swapped}) == 3
    os.utime(tmp_path / "flat" / "a", (1, 1))
    (tmp_path / "flat" / "a").chmod(stat.S_IRUSR)
    (tmp_path / "flat" / "empty").mkdir()
    assert tree_digest(tmp_path / "flat") == flat


def test_a_tree_that_is_not_there_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such file or folder"):
        tree_digest(tmp_path / "absent")


def test_a_file_is_created_once_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "new" / "entry.json"
    assert create_file(target, b"one")
    assert not create_file(target, b"two")
    assert everything(tmp_path) == {"new/entry.json": b"one"}


def test_a_link_whose_answer_was_lost_was_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert create_file(tmp_path / "entry.json", b"one")
    assert everything(tmp_path) == {"entry.json": b"one"}


def test_the_name_of_a_file_being_written_is_known(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.bin") as temporary:
        temporary.touch()
        assert is_temporary(temporary.name)
    assert not any(map(is_temporary, ("a.bin", ".a.bin", "a.bin.tmp", ".a.bin.tmp", "a.bin.0a1b2c3d.tmp")))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, TryAgain), (errno.EDQUOT, TryAgain), (errno.EIO, TryAgain), (errno.EACCES, InputError)],
)
def test_the_errors_of_a_disk_name_the_place(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"^{tmp_path}: {os.strerror(number)}"), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
