from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.sources import wheel
from stillroom.data.sources.address import WheelMember, parse
from stillroom.data.sources.fetching import fetch
from stillroom.errors import InputError, TryAgain
from stillroom.files import tree_digest

FILES = {
    "pkg/rows.csv": b"text,label\n",
    "pkg/model/config.json": b"{}",
    "pkg/model/1_Pooling/config.json": b"[]",
}


def member(uri: str) -> WheelMember:
    address = parse(uri, "data.source")
    assert isinstance(address, WheelMember)
    return address


def test_files_and_folders_come_out_of_one_download(make_wheel, tmp_path: Path) -> None:
    made = make_wheel(FILES)
    rows = wheel.download(member("pypi://some-rows==1.0/pkg/rows.csv"), tmp_path, "data.source")
    made.unlink()
    model = wheel.download(member("pypi://some-rows==1.0/pkg/model/"), tmp_path, "teacher.source")
    assert rows.read_bytes() == b"text,label\n"
    assert sorted(path.relative_to(model).as_posix() for path in model.rglob("*.json")) == [
        "1_Pooling/config.json",
        "config.json",
    ]


def test_a_fetched_member_needs_no_index_again(make_wheel, state: Path) -> None:
    made = make_wheel(FILES)
    first = fetch("pypi://some-rows==1.0/pkg/rows.csv", None, "data.source")
    made.unlink()
    assert fetch("pypi://some-rows==1.0/pkg/rows.csv", None, "data.source") == first
    assert first.parent == layout.state() / "sources" / tree_digest(first)


def test_a_version_that_changed_is_refused(make_wheel, state: Path) -> None:
    make_wheel(FILES)
    first = fetch("pypi://some-rows==1.0/pkg/rows.csv", None, "data.source")
    first.unlink()
    make_wheel({"pkg/rows.csv": b"other,rows\n"})
    with pytest.raises(InputError, match="a fixed version must not change"):
        fetch("pypi://some-rows==1.0/pkg/rows.csv", None, "data.source")


def test_another_digest_stops_before_anything_is_stored(make_wheel, state: Path) -> None:
    make_wheel(FILES)
    with pytest.raises(
        InputError, match=rf"data\.source: .* has sha256 [0-9a-f]{{64}}, but params\.yaml demands {'0' * 64}"
    ):
        fetch("pypi://some-rows==1.0/pkg/rows.csv", "0" * 64, "data.source")
    assert [path for path in state.rglob("*") if path.suffix == ".csv"] == []


@pytest.mark.parametrize("name", ["../../escaped.csv", "/escaped.csv", "a/../../../escaped.csv", "a\\escaped.csv"])
def test_members_that_lead_out_are_refused(make_wheel, tmp_path: Path, name: str) -> None:
    make_wheel({"pkg/config.json": b"{}", f"pkg/{name}": b"boo"})
    with pytest.raises(InputError, match="leads out of its folder"):
        wheel.download(member("pypi://some-rows==1.0/pkg"), tmp_path / "scratch", "teacher.source")
    assert not list(tmp_path.rglob("*escaped*"))


def test_links_are_refused(make_wheel, tmp_path: Path) -> None:
    make_wheel({"pkg/rows.csv": b"/etc/passwd"}, links=("pkg/rows.csv",))
    with pytest.raises(InputError, match="a link; do not trust it"):
        wheel.download(member("pypi://some-rows==1.0/pkg/rows.csv"), tmp_path, "data.source")


def test_a_missing_member_names_the_nearest(make_wheel, tmp_path: Path) -> None:
    make_wheel(FILES)
    with pytest.raises(InputError, match=r"the wheel has no pkg/row\.csv; did you mean pkg/rows\.csv\?"):
        wheel.download(member("pypi://some-rows==1.0/pkg/row.csv"), tmp_path, "data.source")


def test_a_missing_package_is_told_in_one_line(make_wheel, tmp_path: Path) -> None:
    make_wheel(FILES)
    with pytest.raises(InputError, match=r"has no wheel of some-rows==2\.0") as caught:
        wheel.download(member("pypi://some-rows==2.0/pkg/rows.csv"), tmp_path, "data.source")
    assert "\n" not in str(caught.value)


def test_no_network_is_wrong_input(make_wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:hunter2@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(InputError, match="no network: pip cannot reach its package index") as caught:
        wheel.download(member("pypi://some-rows==1.0/pkg/rows.csv"), tmp_path, "data.source")
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)


def test_other_failures_of_pip_may_pass(make_wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "no number")
    with pytest.raises(TryAgain, match="pip failed: ") as caught:
        wheel.download(member("pypi://some-rows==1.0/pkg/rows.csv"), tmp_path, "data.source")
    assert "\n" not in str(caught.value)


def test_a_wheel_larger_than_the_disk_is_refused(make_wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(FILES)
    monkeypatch.setattr("stillroom.data.sources.disk.free_bytes", lambda folder: 3)
    with pytest.raises(InputError, match="has 3 B free"):
        wheel.download(member("pypi://some-rows==1.0/pkg/rows.csv"), tmp_path, "data.source")
    assert not list(tmp_path.rglob("rows.csv"))
