import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.data.sources.fetching import fetch
from stillroom.data.sources.materialise import snapshot
from stillroom.errors import InputError
from stillroom.files import tree_digest
from stillroom.params import Params


def test_a_local_path_is_used_in_place(rows_csv: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(str(rows_csv), tree_digest(rows_csv), "data.source") == rows_csv
    monkeypatch.chdir(rows_csv.parent)
    assert fetch("rows.csv", None, "data.source") == rows_csv


def test_a_local_file_with_another_digest_is_refused(rows_csv: Path, state: Path) -> None:
    with pytest.raises(InputError, match=rf"has sha256 {tree_digest(rows_csv)}, but params\.yaml demands {'0' * 64}"):
        fetch(str(rows_csv), "0" * 64, "data.source")


def test_a_missing_file_names_the_nearest(rows_csv: Path, state: Path) -> None:
    with pytest.raises(
        InputError, match=r"^data\.source: .*row\.csv: no such file or folder; did you mean .*rows\.csv\?$"
    ):
        fetch(str(rows_csv.with_name("row.csv")), None, "data.source")


def test_a_missing_folder_is_told_plainly(state: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.source: /no/such/rows\.csv: no such file or folder$"):
        fetch("/no/such/rows.csv", None, "data.source")


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, InputError), (errno.EIO, OSError)])
def test_a_disk_that_fills_up_in_between_is_told(
    state: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def full(*given: object) -> Path:
        raise OSError(number, "disk")

    monkeypatch.setattr("stillroom.data.sources.wheel.download", full)
    with pytest.raises(error, match="disk"):
        fetch("pypi://some-rows==1.0/pkg/rows.csv", None, "data.source")
    assert not list((state / "sources").glob(".fetch-*"))


def test_a_broken_address_is_told_before_another_is_fetched(
    state: Path, make_params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.data.sources.wheel.download", lambda *given: pytest.fail("fetched"))
    params = make_params("pypi://half", source="pypi://some-rows==1.0/pkg/rows.csv")
    with pytest.raises(InputError, match=r"^teacher\.source: pypi://half: write pypi://"):
        snapshot(params, tmp_path)
