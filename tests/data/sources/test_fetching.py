from pathlib import Path

import pytest

from stillroom.data.sources import fetch
from stillroom.errors import InputError
from stillroom.files import tree_digest


def test_a_local_path_is_used_in_place(rows_csv: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(str(rows_csv), tree_digest(rows_csv), "data.source") == rows_csv
    monkeypatch.chdir(rows_csv.parent)
    assert fetch("rows.csv", None, "data.source") == rows_csv


def test_a_local_file_with_another_digest_is_refused(rows_csv: Path, state: Path) -> None:
    with pytest.raises(
        InputError, match=rf"has sha256 {tree_digest(rows_csv)}, but params\.yaml demands {'0' * 64}"
    ):
        fetch(str(rows_csv), "0" * 64, "data.source")


def test_a_missing_file_names_the_nearest(rows_csv: Path, state: Path) -> None:
    with pytest.raises(
        InputError, match=r"^data\.source: .*row\.csv: no such file or folder; did you mean .*rows\.csv\?$"
    ):
        fetch(str(rows_csv.with_name("row.csv")), None, "data.source")


def test_a_missing_folder_is_told_plainly(state: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.source: /no/such/rows\.csv: no such file or folder$"):
        fetch("/no/such/rows.csv", None, "data.source")
