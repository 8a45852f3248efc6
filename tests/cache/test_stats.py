from pathlib import Path
from typing import Any

import pytest

from stillroom.cache.identity import folder_name
from stillroom.cache.stats import stats
from stillroom.cache.store import Store
from stillroom.cache.transfer import export
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, newest_manifest, shard_files, write_folder

NAME = folder_name(FIELDS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / NAME, 30, 10)
    return tmp_path


def test_what_a_folder_holds(root: Path) -> None:
    [found] = stats(str(root))
    assert (found.teacher, found.entries, found.shards) == (NAME, 30, 3)
    assert (found.weights, found.precision) == ("w" * 12, "fp32")
    assert found.signals == {"logits": "fp16/1", "embedding": "fp16/1"}
    sizes = [path.stat().st_size for path in (*shard_files(root / NAME), newest_manifest(root / NAME))]
    assert found.bytes_per_entry == sum(sizes) / 30
    assert found.size_bytes == sum(sizes)
    assert (found.passes, found.hit_rate, found.last_pass) == (0, None, None)


def test_hits_of_all_passes_without_a_line_that_was_cut_short(root: Path) -> None:
    store = Store(root, FIELDS)
    store.record_pass(30, 0)
    store.record_pass(30, 15)
    with (root / NAME / "passes.jsonl").open("a") as stream:
        stream.write('{"time": 1, "ask')
    [found] = stats(str(root))
    assert (found.passes, found.hit_rate) == (2, 0.25)
    assert found.last_pass is not None


def test_a_bucket_is_told_from_its_manifest_alone(root: Path, s3: tuple[Any, str], tmp_path: Path) -> None:
    client, bucket = s3
    export(root, f"s3://{bucket}/all")
    for entry in client.list_objects_v2(Bucket=bucket)["Contents"]:
        if "/shards/" in entry["Key"]:
            client.put_object(Bucket=bucket, Key=entry["Key"], Body=b"not read")
    [found] = stats(f"s3://{bucket}/all")
    assert (found.teacher, found.entries, found.shards, found.hit_rate) == (NAME, 30, 3, None)


@pytest.mark.parametrize("made", [True, False])
def test_what_is_no_cache_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="so it is no cache"):
        stats(str(tmp_path / "other"))
