from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from stillroom.cache.identity import Keys, entry_keys
from stillroom.cache.store import Answers, Store
from stillroom.cache.writer import Writer
from stillroom.errors import TryAgain
from tests.cache.answers import FIELDS, answers_of, encoded, texts

PATIENCE_S = 30


class Held(Store):
    """A store whose disk is as slow as a test wants, and whose disk is full from a shard on."""

    def __init__(self, root: Path, full_from: int = 1000) -> None:
        super().__init__(root, FIELDS)
        self.full_from = full_from
        self.shards = 0
        self.at_once = 0
        self.most_at_once = 0
        self.writing, self.go = Event(), Event()
        self.go.set()

    def add(self, keys: Keys, answers: Answers) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.writing.set()
        assert self.go.wait(PATIENCE_S)
        self.shards += 1
        if self.shards > self.full_from:
            raise TryAgain("the disk is full")
        super().add(keys, answers)
        self.at_once -= 1

    def held(self) -> list[int]:
        """Entries of each shard."""
        reader = self.reader()
        return [] if reader is None else [shard.shard.entries for shard in reader.shards]


def put(writer: Writer, first: int, count: int = 2) -> None:
    keys = entry_keys(texts(count, first))
    writer.put(keys, encoded(answers_of(keys)))


def test_shards_are_written_when_they_are_full_and_the_rest_at_the_end(tmp_path: Path) -> None:
    store = Held(tmp_path)
    with Writer(store, 5) as writer:
        for first in range(0, 14, 2):
            put(writer, first)
    assert store.held() == [6, 6, 2]
    assert store.most_at_once == 1
    reader, keys = store.reader(), entry_keys(texts(14))
    assert reader is not None
    for name, values in answers_of(keys).items():
        np.testing.assert_array_equal(reader.read(name, reader.locate(keys, "texts")), values)


def test_what_was_never_given_is_never_written(tmp_path: Path) -> None:
    with Writer(Held(tmp_path), 5):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bound", "value"), [("_SHARD_BYTES", 1), ("_SHARD_S", -1.0)])
def test_a_shard_is_written_when_its_bytes_are_many_or_its_first_answer_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(f"stillroom.cache.writer.{bound}", value)
    store = Held(tmp_path)
    with Writer(store, 1000) as writer:
        for first in range(0, 6, 2):
            put(writer, first)
    assert store.held() == [2, 2, 2]


def test_the_next_shard_is_gathered_while_one_is_written_and_no_more(tmp_path: Path) -> None:
    store = Held(tmp_path)
    store.go.clear()
    second = Event()
    with Writer(store, 4) as writer:
        put(writer, 0, 4)
        assert store.writing.wait(PATIENCE_S)
        put(writer, 4)
        assert store.shards == 0, "answers are taken while the first shard is being written"

        def fill() -> None:
            put(writer, 6)
            second.set()

        filling = Thread(target=fill)
        filling.start()
        assert not second.wait(0.05), "a second full shard waits for the first"
        store.go.set()
        filling.join(PATIENCE_S)
        assert second.is_set()
    assert store.held() == [4, 4]
    assert store.most_at_once == 1


def test_an_error_of_the_writing_stops_the_pass_at_the_next_shard(tmp_path: Path) -> None:
    store = Held(tmp_path, full_from=1)
    given = []

    def write_all() -> None:
        with Writer(store, 2) as writer:
            for first in range(0, 20, 2):
                put(writer, first)
                given.append(first)

    with pytest.raises(TryAgain, match="the disk is full"):
        write_all()
    assert given == [0, 2]
    assert store.shards == 2
    assert store.held() == [2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_error_of_the_last_shard_is_raised_at_the_end(tmp_path: Path, count: int) -> None:
    with pytest.raises(TryAgain, match="the disk is full"), Writer(Held(tmp_path, full_from=0), 2) as writer:
        put(writer, 0, count)


def broken(writer: Writer, *counts: int) -> None:
    """A pass that breaks after some batches."""
    with writer:
        for number, count in enumerate(counts):
            put(writer, 10 * number, count)
        raise RuntimeError("the power is gone")


def test_a_pass_that_breaks_leaves_its_whole_shards_and_no_half_one(tmp_path: Path) -> None:
    store = Held(tmp_path)
    with pytest.raises(RuntimeError, match="the power is gone"):
        broken(Writer(store, 4), 4, 3)
    assert store.held() == [4]
    assert len(list(store.folder.rglob("*.safetensors"))) == 1


def test_the_error_of_the_pass_itself_comes_before_that_of_the_writing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the power is gone"):
        broken(Writer(Held(tmp_path, full_from=0), 2), 2)
