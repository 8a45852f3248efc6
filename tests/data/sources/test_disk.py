from pathlib import Path

import pytest

from stillroom.data.sources import disk
from stillroom.errors import InputError


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\\b", "", "a\0b", "C:/x", ".."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of its folder"):
        disk.inside(tmp_path, name, "wheel")


@pytest.mark.parametrize("name", ["a", "a/b.c", "..a/b", "a..b", "a b/ü"])
def test_ordinary_names_stay_inside(tmp_path: Path, name: str) -> None:
    assert disk.inside(tmp_path, name, "wheel") == tmp_path / name


def test_no_space_is_told_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MAX_SOURCE_BYTES", 1 << 60)
    free = disk.free_bytes(tmp_path / "not" / "there")
    disk.ensure_free(tmp_path / "not" / "there", 1, "data.source")
    with pytest.raises(InputError, match=r"data\.source: needs .* but the disk of .* has .* free"):
        disk.ensure_free(tmp_path, free + (1 << 30), "data.source")
    assert list(tmp_path.iterdir()) == []


def test_no_source_is_endless(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"68\.7 GB of a source"):
        disk.ensure_free(tmp_path, disk.MAX_SOURCE_BYTES + 1, "data.source")


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (90_868_376, "90.9 MB"), (5e12, "5.0 TB")],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert disk.in_words(int(size)) == words
