import json
from pathlib import Path

import numpy as np
import pytest

from stillroom.data.examples import Examples, Splits
from stillroom.data.manifest import DataSource, FileSource
from stillroom.data.splits import read_snapshot, read_split, write_splits
from stillroom.errors import InputError

SOURCE = DataSource(train=FileSource(uri="rows.csv", sha256="0" * 64, file="train.csv"))


def splits(first: int = 0, text: str = "zwei") -> Splits:
    examples = {
        "train": Examples([first, first + 2], ["eins", text], ["b", "a"]),
        "validation": Examples([first + 1], ["drei"], ["b"]),
        "test": Examples([first + 3], ["vier"], ["a"]),
    }
    return Splits(examples, {"exact_duplicates": 1}, ["second"])


def test_splits_are_read_back_with_class_ids(tmp_path: Path) -> None:
    write_splits(splits(), SOURCE, ["first"], tmp_path / "split")
    rows = read_split(tmp_path / "split", "train")
    assert (rows.row.tolist(), rows.text, rows.label.tolist()) == ([0, 2], ["eins", "zwei"], [1, 0])
    assert rows.row.dtype == rows.label.dtype == np.int64
    manifest = read_snapshot(tmp_path / "split")
    assert manifest.labels == ("a", "b")
    assert manifest.rows == {"train": 2, "validation": 1, "test": 1}
    assert manifest.label_counts["train"] == {"a": 1, "b": 1}
    assert manifest.findings == ("first", "second")
    assert manifest.source == SOURCE


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_splits(splits(), SOURCE, [], tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_digest_is_of_content_and_order_not_of_row_ids(tmp_path: Path) -> None:
    digests = [
        write_splits(changed, SOURCE, [], tmp_path / "split").sha256
        for changed in (splits(), splits(first=100), splits(text="zwo"))
    ]
    swapped = splits()
    train = swapped.examples["train"]
    swapped.examples["train"] = Examples(train.row, train.text[::-1], train.label[::-1])
    digests.append(write_splits(swapped, SOURCE, [], tmp_path / "split").sha256)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_missing_and_damaged_splits_say_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "split"
    with pytest.raises(InputError, match="no such file"):
        read_split(folder, "train")
    write_splits(splits(), SOURCE, [], folder)
    with pytest.raises(InputError, match="has no split 'dev'"):
        read_split(folder, "dev")
    (folder / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not readable as rows"):
        read_split(folder, "test")
    manifest = json.loads((folder / "snapshot.json").read_text())
    (folder / "snapshot.json").write_text(json.dumps({**manifest, "labels": ["a"]}))
    with pytest.raises(InputError, match="label 'b' is not in"):
        read_split(folder, "train")
    (folder / "snapshot.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(InputError, match="not a snapshot manifest of this version"):
        read_snapshot(folder)
