from pathlib import Path

import pytest

from stillroom.data.grown import TEXTS, read_grown, write_grown
from stillroom.errors import InputError


@pytest.mark.parametrize("texts", [[], ["one", "", "naïve\n数", "x" * 100_000]])
def test_what_is_written_is_read_back(tmp_path: Path, texts: list[str]) -> None:
    write_grown(texts, tmp_path / "grown")
    assert read_grown(tmp_path / "grown") == texts


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not whole"])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, content: bytes | None) -> None:
    write_grown(["one"], tmp_path)
    path = tmp_path / TEXTS
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="run the stage grow again") as caught:
        read_grown(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
