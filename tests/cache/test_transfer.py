import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.cache.identity import entry_keys, folder_name
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache
from stillroom.cache.transfer import Moved, export, fetch
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, answers_of, shard_files, texts, write_folder

NAME = folder_name(FIELDS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "store" / NAME, 30, 10)
    return tmp_path / "store"


def moved(root: Path) -> list[Moved]:
    sizes = [path.stat().st_size for path in shard_files(root / NAME)]
    return [Moved(NAME, len(sizes), sum(sizes))]


def check_answers(root: Path) -> None:
    reader = Reader.open(root / NAME)
    keys = entry_keys(texts(30))
    np.testing.assert_array_equal(reader.read("logits", reader.locate(keys, "texts")), answers_of(keys)["logits"])


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_cache_goes_and_comes_back_once(
    root: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    target = str(tmp_path / "elsewhere")
    if kind == "bucket":
        bucket: tuple[Any, str] = request.getfixturevalue("s3")
        target = f"s3://{bucket[1]}/elsewhere"
    assert export(root, target) == moved(root)
    assert export(root, target) == [Moved(NAME, 0, 0)]
    back = tmp_path / "back"
    assert fetch(target, back) == moved(root)
    assert fetch(target, back) == [Moved(NAME, 0, 0)]
    check_answers(back)


def test_only_what_lacks_is_moved(root: Path, tmp_path: Path) -> None:
    export(root, str(tmp_path / "elsewhere"))
    write_folder(tmp_path / "more" / NAME, 40, 10)
    [sent] = export(tmp_path / "more", str(tmp_path / "elsewhere"))
    assert sent.shards == 1
    assert len(Reader.open(tmp_path / "elsewhere" / NAME)) == 40


def test_one_teacher_of_several(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds no folder {'0' * 32}; there are {NAME}"):
        export(root, str(tmp_path / "elsewhere"), "0" * 32)
    assert [one.teacher for one in export(root, str(tmp_path / "elsewhere"), NAME)] == [NAME]


def test_a_damaged_cache_is_not_sent(root: Path, tmp_path: Path) -> None:
    path = shard_files(root / NAME)[1]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DamagedCache, match=path.name):
        export(root, str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_whose_name_is_not_its_teachers_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / NAME, root / ("0" * 32))
    with pytest.raises(DamagedCache, match=f"its manifest is of the teacher {NAME}"):
        fetch(str(root), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_single_teachers_folder_is_no_whole_cache(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder above"):
        fetch(str(root / NAME), tmp_path / "back")
