import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from stillroom.cache.manifest import FIRST, Kept, Manifest, Manifests, decode, encode
from stillroom.cache.shards import DamagedCache, Shard
from stillroom.errors import InputError, TryAgain
from stillroom.storage import Folder
from tests.cache.answers import FIELDS, SIGNALS, WIDTHS, newest_manifest

EMPTY = Manifest(fingerprint=FIELDS)


def shard(number: int) -> Shard:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Shard(sha256=digest, head=digest[::-1], head_bytes=80 + number, entries=2 + number, bytes=100 + number)


FULL = Manifest(
    fingerprint=FIELDS | {"labels": ["Rückgabe", "送料", '"']},
    signals={signal.name: Kept(codec=signal.codec.label, width=WIDTHS[signal.name]) for signal in SIGNALS},
    shards=(shard(0), shard(1)),
)


def add(manifests: Manifests, *numbers: int) -> None:
    """One change for each shard."""
    for number in numbers:
        manifests.change(lambda latest, number=number: latest.with_shards(shard(number)))  # type: ignore[misc]


def listed(manifests: Manifests) -> set[int]:
    return {one.entries - 2 for one in manifests.latest().shards}


def kept(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "manifests").iterdir())


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decode(encode(FULL), "here") == FULL
    assert encode(decode(encode(FULL), "here")) == encode(FULL)
    assert FULL.shards[0].name == f"shards/{FULL.shards[0].sha256}.safetensors"


@pytest.mark.parametrize("signals", [{"logits": "fp16/1"}, {"logits": "int8/1", "embedding": "fp16/1"}])
def test_signals_that_are_not_those_of_the_fingerprint_are_refused(signals: dict[str, str]) -> None:
    kept = {name: Kept(codec=codec, width=WIDTHS[name]) for name, codec in signals.items()}
    with pytest.raises(DamagedCache, match="its signals are not those of its fingerprint"):
        decode(encode(FULL.model_copy(update={"signals": kept})), FIRST)


def refused(content: bytes) -> None:
    with pytest.raises(DamagedCache, match=r"manifests/00000001\.json: ") as caught:
        decode(content, FIRST)
    assert "\n" not in str(caught.value)


def test_every_single_byte_that_changes_is_refused() -> None:
    content = encode(FULL)
    for place in range(len(content)):
        for change in (*(1 << bit for bit in range(8)), 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            refused(bytes(damaged))


def test_bytes_that_are_lost_or_added_are_refused() -> None:
    content = encode(FULL)
    for place in range(len(content)):
        refused(content[:place] + content[place + 1 :])
        refused(content[:place])
        refused(content[:place] + b" " + content[place:])
    refused(content + b"\n")


FIRST_SHARD: dict[str, Any] = shard(0).model_dump()


@pytest.mark.parametrize(
    "hostile",
    [
        FIRST_SHARD | {"sha256": "../../../etc/passwd"},
        FIRST_SHARD | {"sha256": "../" + "0" * 61},
        FIRST_SHARD | {"sha256": "0" * 64 + "\n"},
        FIRST_SHARD | {"sha256": "A" * 64},
        FIRST_SHARD | {"sha256": ""},
        FIRST_SHARD | {"head": "x"},
        FIRST_SHARD | {"head_bytes": -1},
        FIRST_SHARD | {"head_bytes": 2**53},
        FIRST_SHARD | {"entries": 0},
        FIRST_SHARD | {"entries": -1},
        FIRST_SHARD | {"entries": 1.5},
        FIRST_SHARD | {"entries": 2**40},
        FIRST_SHARD | {"bytes": -1},
        FIRST_SHARD | {"more": 1},
        {"sha256": FIRST_SHARD["sha256"]},
        None,
        "shard",
    ],
)
def test_a_hostile_shard_is_refused(hostile: Any) -> None:
    raw = json.loads(encode(FULL))
    raw["shards"][0] = hostile
    with pytest.raises(DamagedCache, match="not a cache manifest"):
        decode(json.dumps(raw).encode(), FIRST)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"1", b'"text"', b"{}", b'{"digest": "x"}', b"[" * 100_000, b"\xff\xfe", b""],
    ids=["list", "null", "number", "text", "empty", "digest alone", "deep", "binary", "nothing"],
)
def test_json_that_is_no_manifest_is_refused(content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["fingerprint"].update(precision="bf16"),
        lambda raw: raw["signals"]["logits"].update(width=4),
        lambda raw: raw["signals"]["logits"].update(codec="int8/1"),
        lambda raw: raw["shards"].reverse(),
        lambda raw: raw["shards"].pop(),
        lambda raw: raw["shards"].append(raw["shards"][0]),
        lambda raw: raw["shards"][0].update(entries=3),
        lambda raw: raw["shards"][0].update(entries="2"),
        lambda raw: raw.update(digest="0" * 64),
        lambda raw: raw.update(digest=None),
    ],
)
def test_a_manifest_that_was_edited_is_refused(change: Callable[[Any], Any]) -> None:
    raw = json.loads(encode(FULL))
    change(raw)
    with pytest.raises(DamagedCache, match="do not match its digest"):
        decode((json.dumps(raw, indent=1, ensure_ascii=False) + "\n").encode(), FIRST)


def test_another_format_or_an_unknown_codec_is_refused() -> None:
    with pytest.raises(DamagedCache, match="not a cache manifest"):
        decode(json.dumps(json.loads(encode(FULL)) | {"format": 3}).encode(), FIRST)
    later = Manifest(
        fingerprint=FIELDS | {"signals": {"logits": "top-k/1"}}, signals={"logits": Kept(codec="top-k/1", width=3)}
    )
    with pytest.raises(InputError, match="the signal logits is stored by the codec 'top-k/1'"):
        decode(encode(later), FIRST).read_signals()


def test_shards_are_listed_once_and_struck_by_name() -> None:
    assert FULL.with_shards(shard(1), shard(2)).shards == (shard(0), shard(1), shard(2))
    assert FULL.with_shards(shard(2), without=frozenset({shard(0).sha256, shard(9).sha256})).shards == (
        shard(1),
        shard(2),
    )


def test_a_folder_without_manifests_is_no_cache_unless_something_is_taken_for_granted(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    for foreign in ("1.json", "notes.txt", "00000001.json.bak", ".00000001.json.0a1b2c3d.tmp"):
        (tmp_path / "manifests" / foreign).write_text("{}")
    with pytest.raises(InputError, match=r"holds no manifests/, so it is no cache of a teacher's answers"):
        Manifests(Folder(tmp_path)).latest()
    assert Manifests(Folder(tmp_path), EMPTY).latest() == EMPTY


def test_a_change_is_the_next_number_and_no_change_is_none(tmp_path: Path) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    assert manifests.change(lambda latest: latest) == EMPTY
    assert not (tmp_path / "manifests").exists()
    add(manifests, 0, 1, 1, 0)
    assert kept(tmp_path) == [1, 2]
    assert (tmp_path / FIRST).exists()
    assert Manifests(Folder(tmp_path)).latest().shards == (shard(0), shard(1))


def test_eight_manifests_are_kept(tmp_path: Path) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    add(manifests, *range(20))
    assert kept(tmp_path) == list(range(13, 21))
    assert listed(manifests) == set(range(20))


def test_no_change_of_writers_that_race_is_lost(tmp_path: Path) -> None:
    writers, changes = 6, 15
    start = Barrier(writers)
    failed: list[BaseException] = []

    def write(first: int) -> None:
        try:
            start.wait(30)
            add(Manifests(Folder(tmp_path), EMPTY), *range(first, first + changes))
        except BaseException as error:
            failed.append(error)

    threads = [Thread(target=write, args=(number * changes,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    manifests = Manifests(Folder(tmp_path))
    assert listed(manifests) == set(range(writers * changes))
    assert kept(tmp_path)[-1] >= writers * changes
    add(manifests, 1000)
    assert len(kept(tmp_path)) <= 8


class Late(Folder):
    """A folder in which others are at work just before this writer's first call of a method."""

    def __init__(self, root: Path, method: str, others: Callable[[], None]) -> None:
        super().__init__(root)
        self._waiting = {method: others}

    def _first(self, method: str) -> None:
        self._waiting.pop(method, lambda: None)()

    def create(self, name: str, content: bytes) -> bool:
        self._first("create")
        return super().create(name, content)

    def size(self, name: str) -> int:
        self._first("size")
        return super().size(name)

    def read(self, name: str) -> bytes:
        self._first("read")
        return super().read(name)


@pytest.mark.parametrize("others", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("method", ["size", "read", "create"])
def test_a_writer_that_slept_while_others_wrote_and_pruned_loses_nothing(
    tmp_path: Path, method: str, others: int
) -> None:
    quick = Manifests(Folder(tmp_path), EMPTY)
    add(quick, 0)
    slow = Manifests(Late(tmp_path, method, lambda: add(quick, *range(1, others + 1))), EMPTY)
    add(slow, 500)
    assert listed(quick) == {*range(others + 1), 500}
    assert kept(tmp_path)[-1] == others + 2, "what counts is a new number, and no old one that was free again"
    add(quick, 501)
    assert listed(quick) == {*range(others + 1), 500, 501}
    assert len(kept(tmp_path)) <= 8


def test_a_reader_whose_manifest_is_pruned_under_it_reads_the_newest(tmp_path: Path) -> None:
    quick = Manifests(Folder(tmp_path), EMPTY)
    add(quick, 0)
    slow = Manifests(Late(tmp_path, "read", lambda: add(quick, *range(1, 12))))
    assert listed(slow) == set(range(12))


def test_writers_that_are_always_second_try_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.cache.manifest._ATTEMPTS", 3)
    create = Folder.create

    def beaten(self: Folder, name: str, content: bytes) -> bool:
        others = EMPTY.with_shards(shard(int(name[-7:-5])))
        return create(self, name, encode(others)) and create(self, name, content)

    monkeypatch.setattr(Folder, "create", beaten)
    with pytest.raises(TryAgain, match="other writers were first 3 times; run again"):
        add(Manifests(Folder(tmp_path), EMPTY), 0)


def test_a_damaged_newest_manifest_is_told_and_no_older_one_counts_instead(tmp_path: Path) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    add(manifests, 0, 1)
    newest = newest_manifest(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-9])
    for use in (manifests.latest, lambda: add(manifests, 2)):
        with pytest.raises(DamagedCache, match=r"manifests/00000002\.json: ") as caught:
            use()
        assert str(tmp_path) in str(caught.value)
    manifests.replace(lambda: EMPTY.with_shards(shard(7)))
    assert listed(manifests) == {7}
    add(manifests, 8)
    assert kept(tmp_path) == [1, 2, 3, 4]


def test_what_takes_a_damaged_manifests_place_gives_way_to_what_another_writer_has_put_there(tmp_path: Path) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    add(manifests, 0)
    newest_manifest(tmp_path).write_bytes(b"{}")

    def made_slowly() -> Manifest:
        Manifests(Folder(tmp_path)).replace(lambda: EMPTY.with_shards(shard(0), shard(1)))
        return EMPTY.with_shards(shard(0))

    manifests.replace(made_slowly)
    assert listed(manifests) == {0, 1}


def test_every_manifest_is_told_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    add(manifests, 0, 1, 2)
    (tmp_path / "manifests/00000002.json").write_bytes(b"{}")
    found = list(manifests.every())
    assert [name for name, _ in found] == [f"manifests/0000000{number}.json" for number in (1, 2, 3)]
    assert [type(one) for _, one in found] == [Manifest, DamagedCache, Manifest]
    assert found[2][1] == manifests.latest()


def test_a_manifest_larger_than_any_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = Manifests(Folder(tmp_path), EMPTY)
    add(manifests, 0)
    monkeypatch.setattr("stillroom.cache.manifest._LARGEST", newest_manifest(tmp_path).stat().st_size - 1)
    with pytest.raises(DamagedCache, match=r"manifests/00000001\.json: larger than any manifest"):
        manifests.latest()
