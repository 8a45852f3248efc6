from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillroom.cache.texts import Listed, Stored, Texts
from stillroom.errors import InputError
from tests.cache.answers import texts


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.cache.texts._PIECE", 7)


def write(path: Path, examples: Sequence[str], column: str = "text") -> Path:
    pq.write_table(pa.table({"row": range(len(examples)), column: pa.array(examples, pa.string())}), path)
    return path


def flat(examples: Texts) -> list[object]:
    pieces = list(examples.pieces())
    assert all(0 < len(piece) <= 7 for piece in pieces)
    return [example for piece in pieces for example in piece]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 30])
def test_listed_texts_come_in_order_as_often_as_they_are_asked_for(count: int) -> None:
    examples = Listed(texts(count))
    assert len(examples) == count
    assert flat(examples) == flat(examples) == texts(count)


def test_pairs_stay_pairs() -> None:
    assert flat(Listed([("a", "b"), "c"])) == [("a", "b"), "c"]


def test_files_follow_one_another(tmp_path: Path) -> None:
    odd = ["", "é\n送料", "the same", "the same"]
    paths = [
        write(tmp_path / "train.parquet", texts(20)),
        write(tmp_path / "none.parquet", []),
        write(tmp_path / "grown.parquet", odd),
    ]
    examples = Stored(*paths)
    assert len(examples) == 24
    assert flat(examples) == flat(examples) == [*texts(20), *odd]
    assert flat(Stored(paths[2], paths[0])) == [*odd, *texts(20)]
    assert flat(Stored()) == []


def test_a_file_that_is_missing_or_no_parquet_is_wrong_input(tmp_path: Path) -> None:
    whole = write(tmp_path / "train.parquet", texts(20))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    (tmp_path / "empty.parquet").touch()
    for name in ("missing", "cut", "empty"):
        path = tmp_path / f"{name}.parquet"
        with pytest.raises(InputError, match=r"not readable as texts .*; run the stage that writes it") as caught:
            Stored(whole, path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:-400] = b"\xff" * (len(content) - 404)
    path.write_bytes(content)


def rename(path: Path) -> None:
    write(path, texts(20), column="words")


@pytest.mark.parametrize("change", [damage, rename, Path.unlink])
def test_a_file_that_is_damaged_within_is_told_when_it_is_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    whole = write(tmp_path / "train.parquet", texts(20))
    other = write(tmp_path / "grown.parquet", texts(20))
    examples = Stored(whole, other)
    change(other)
    with pytest.raises(InputError, match=r"not readable as texts .*; run the stage that writes it") as caught:
        flat(examples)
    assert str(caught.value).startswith(f"{other}: ")
    assert "\n" not in str(caught.value)
