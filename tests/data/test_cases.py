"""Cases on disk: what was written comes back, and a file without rows is not a missing one."""

from pathlib import Path

import numpy as np
import pytest

from stillroom.data.cases import NONE, Cases, read_cases, write_cases
from stillroom.data.examples import Label
from stillroom.data.manifest import SnapshotManifest
from stillroom.errors import InputError
from tests.gate.evaluations import labels_of, write_split


@pytest.fixture
def snapshot(tmp_path: Path) -> SnapshotManifest:
    return write_split(tmp_path / "artifacts/split", labels_of(8))


@pytest.mark.parametrize("label", [None, ["card", "bank"], [("bank", "card"), ()]])
def test_what_was_written_comes_back(tmp_path: Path, label: list[Label] | None) -> None:
    cases = Cases(["line 2", "row 9"], ["naïve", "b"], label)
    write_cases(cases, tmp_path / "cases.parquet")
    assert read_cases(tmp_path / "cases.parquet") == cases


def test_none_are_written_too_and_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.parquet"
    with pytest.raises(InputError, match="run the stage ingest again"):
        read_cases(path)
    write_cases(NONE, path)
    assert len(read_cases(path)) == 0
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="run the stage ingest again"):
        read_cases(path)


def test_rows_have_the_ids_of_the_split_s_labels(snapshot: SnapshotManifest) -> None:
    rows = Cases(["line 2", "line 3"], ["x", "y"], ["debt", "auto"]).rows(snapshot)
    assert rows is not None
    np.testing.assert_array_equal(rows.label, [3, 0])
    assert Cases(["line 2"], ["x"], None).rows(snapshot) is None
    with pytest.raises(InputError, match="label 'loan' is not among those of the split"):
        Cases(["line 2"], ["x"], ["loan"]).rows(snapshot)
