"""Columns that stay in the raw file: each value comes back beside the test row that it stood in."""

import json
from pathlib import Path

import numpy as np
import pytest

from stillroom.data.columns import columns_of_test
from stillroom.data.manifest import DataSource, FileSource, SnapshotManifest
from stillroom.errors import InputError
from stillroom.files import write_json

ASKED = {"gate.slices.german.column": "language", "gate.slices.web.column": "channel"}


def lay(folder: Path, **files: str) -> SnapshotManifest:
    """sources/data, and the manifest of a split of it."""
    folder.mkdir()
    given = {}
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content)
        given[name] = FileSource(uri=f"given/{name}.csv", sha256="a" * 64, file=f"{name}.csv")
    source = DataSource.model_validate(given)
    write_json(folder / "source.json", source.model_dump(mode="json"))
    told = {"labels": ("a", "b"), "rows": {}, "label_counts": {}, "sha256": "b" * 64, "dropped": {}, "findings": ()}
    return SnapshotManifest.model_validate({**told, "source": source.labelled()})


TRAIN = "text,label,language,channel\n" + "".join(f"t{n},a,l{n},c{n % 2}\n" for n in range(6))


def test_rows_that_were_cut_are_found_by_their_ids(tmp_path: Path) -> None:
    snapshot = lay(tmp_path / "data", train=TRAIN, unlabelled="text\nx\n")
    found = columns_of_test(tmp_path / "data", snapshot, np.array([4, 1, 5]), ASKED)
    assert found == {"gate.slices.german.column": ["l4", "l1", "l5"], "gate.slices.web.column": ["c0", "c1", "c1"]}


def test_rows_of_a_given_file_keep_their_order(tmp_path: Path) -> None:
    snapshot = lay(tmp_path / "data", train="text,label\nx,a\n", test=TRAIN)
    found = columns_of_test(tmp_path / "data", snapshot, np.arange(20, 26), ASKED)
    assert found["gate.slices.german.column"] == [f"l{n}" for n in range(6)]


def test_a_missing_column_names_the_parameter_and_the_nearest(tmp_path: Path) -> None:
    snapshot = lay(tmp_path / "data", train=TRAIN)
    with pytest.raises(InputError) as refused:
        columns_of_test(tmp_path / "data", snapshot, np.array([0]), {"gate.slices.german.column": "languag"})
    told = "given/train.csv: has no column 'languag' (gate.slices.german.column); did you mean 'language'?"
    assert str(refused.value) == told


@pytest.mark.parametrize("rows", [[0, 6], [0]])
def test_raw_files_that_were_not_split_are_refused(tmp_path: Path, rows: list[int]) -> None:
    snapshot = lay(tmp_path / "data", train=TRAIN)
    if rows == [0]:
        record = json.loads((tmp_path / "data/source.json").read_text())
        record["train"]["sha256"] = "c" * 64
        write_json(tmp_path / "data/source.json", record)
    with pytest.raises(InputError, match="holds other files than those that were split"):
        columns_of_test(tmp_path / "data", snapshot, np.array(rows), ASKED)


def test_a_given_test_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    snapshot = lay(tmp_path / "data", train="text,label\nx,a\n", test=TRAIN)
    with pytest.raises(InputError, match="holds other files"):
        columns_of_test(tmp_path / "data", snapshot, np.arange(20, 25), ASKED)
