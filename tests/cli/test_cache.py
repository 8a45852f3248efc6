"""`stillroom cache` on the cache of a small run: what it prints, what it refuses, what it repairs."""

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from stillroom import layout
from stillroom.cache.identity import canonical, entry_keys, folder_name
from stillroom.cache.manifest import Kept, Manifests, encode
from stillroom.cache.reader import Reader
from stillroom.cli import main as cli
from stillroom.data.splits import read_split
from stillroom.files import file_digests, read_json, write_json
from stillroom.storage import Folder
from tests.cache.answers import newest_manifest, shard_files
from tests.toys import LABELS, Workspace


class Called:
    """`called(arguments)`: exit code, stdout and stderr of `stillroom cache` for a workspace."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["stillroom", "cache", *arguments])
        code = cli.run_cli()
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def json(self, *arguments: str) -> Any:
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    def refused(self, *arguments: str) -> str:
        """The one line of a refusal that printed nothing else."""
        code, out, err = self(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("stillroom: ")
        return err


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    return Called(monkeypatch, capsys)


HERE = ("--workspace", ".")


def store_folder() -> Path:
    """The one teacher's folder of the workspace's store."""
    [folder] = (layout.state() / "cache").iterdir()
    return folder


def snapshot_teacher() -> str:
    return folder_name(Manifests(Folder(layout.CACHE)).latest().fingerprint)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_row_is_explained(called: Called, finished: Workspace) -> None:
    rows = read_split(layout.SPLIT, "train")
    told = called.json("explain", "7", *HERE)
    assert told["canonical"] == canonical(rows.text[7]).decode()
    assert told["sha256"] == sha256(canonical(rows.text[7])).hexdigest()
    assert told["key"] == told["sha256"][:32]
    assert told["folder"] == store_folder().name
    assert told["fingerprint"] == Manifests(Folder(layout.CACHE)).latest().fingerprint
    assert told["differences"] == []
    for answer, folder in zip(told["answers"], (layout.CACHE, store_folder()), strict=True):
        assert Path(answer["folder"]).resolve() == folder.resolve()
        reader = Reader.open(folder)
        [number] = [at for at, shard in enumerate(reader.shards) if shard.path.name == answer["shard"]]
        at = int(reader.find(entry_keys([rows.text[7]]))[0])
        assert answer["position"] == at - reader.starts[number]
        best = int(reader.read("logits", reader.find(entry_keys([rows.text[7]])))[0].argmax())
        assert answer["top"][0]["label"] == LABELS[best]
        assert sum(top["probability"] for top in answer["top"]) == pytest.approx(1)
    code, out, _ = called("explain", "7", *HERE)
    assert code == 0
    for shown in (told["key"], told["folder"], told["answers"][0]["shard"], *LABELS):
        assert shown in out


def test_a_text_of_ones_own_is_not_there_and_a_key_is_looked_up(called: Called, finished: Workspace) -> None:
    told = called.json("explain", "--text", "never seen", *HERE)
    assert [answer["shard"] for answer in told["answers"]] == [None, None]
    pair = called.json("explain", "--text", "one", "--text", "other", *HERE)
    assert pair["canonical"] == '["one","other"]'
    key = called.json("explain", "3", *HERE)["key"]
    found = called.json("explain", "--key", key, *HERE)
    assert found["answers"] == called.json("explain", "3", *HERE)["answers"]
    assert "no answer has the key 00000000" in called.refused("explain", "--key", "0" * 32, *HERE)
    assert "'abc' is no key of an entry" in called.refused("explain", "--key", "abc", *HERE)
    assert "has no row 120; its 120 rows are 0 to 119" in called.refused("explain", "120", *HERE)
    assert "give one of" in called.refused("explain", *HERE)
    assert "give one of" in called.refused("explain", "3", "--key", key, *HERE)


def test_another_teacher_than_the_captured_one_is_told_in_words(called: Called, own_finished: Workspace) -> None:
    description = read_json(layout.TEACHER / "teacher.json")
    write_json(layout.TEACHER / "teacher.json", {**description, "max_length": 16})
    told = called.json("explain", "0", *HERE)
    assert told["differences"] == ["max_length differs – the number of tokens read of a text (32 there, 16 here)"]
    assert [answer["shard"] is None for answer in told["answers"]] == [False, True]
    assert "not there" in called("explain", "0", *HERE)[1]
    code, _, err = called("verify", "--sample", "4", *HERE)
    assert code == 2
    assert "the number of tokens read of a text" in err


def test_two_folders_are_compared(called: Called, own_finished: Workspace, tmp_path: Path) -> None:
    snapshot = str(layout.CACHE)
    assert called("explain", "--compare", snapshot, str(store_folder()))[1].splitlines()[-1] == "the same"
    other = Path(shutil.copytree(layout.CACHE, tmp_path / "other"))
    manifest = Manifests(Folder(other)).latest()
    newest_manifest(other).write_bytes(
        encode(manifest.model_copy(update={"fingerprint": {**manifest.fingerprint, "precision": "bf16"}}))
    )
    told = called.json("explain", "--compare", snapshot, str(other))
    assert told["differences"] == ["precision differs – the precision of the forward pass (fp32 there, bf16 here)"]
    assert "so it is no cache" in called.refused("explain", "--compare", snapshot, str(tmp_path))


def test_stats(called: Called, finished: Workspace) -> None:
    [found] = called.json("stats")
    assert (found["teacher"], found["labels"], found["max_length"]) == (store_folder().name, 3, 32)
    assert found["entries"] == 120
    code, out, _ = called("stats")
    assert code == 0
    assert store_folder().name in out
    assert "120 in" in out


def test_a_whole_cache_is_verified(called: Called, finished: Workspace) -> None:
    told = called.json("verify", "--sample", "16", *HERE)
    assert [folder["damaged"] for folder in told["folders"]] == [[], []]
    assert [folder["entries"] for folder in told["folders"]] == [120, 120]
    assert called.json("verify", str(layout.CACHE))["folders"][0]["entries"] == 120
    assert called("verify", *HERE)[0] == 0


def test_every_damaged_file_is_named_and_repaired(called: Called, own_finished: Workspace) -> None:
    before = file_digests(layout.CACHE)
    damaged = [*shard_files(layout.CACHE)[:2], newest_manifest(store_folder())]
    for path in damaged:
        spoil(path)
    code, out, _ = called("verify", *HERE)
    assert code == 2
    assert all(path.name in out for path in damaged)
    code, out, _ = called("verify", "--repair", *HERE)
    assert code == 0, out
    assert "0 entries were computed again" in out
    assert "artifacts/cache: written anew from the store" in out
    assert file_digests(layout.CACHE) == before
    assert called("verify", "--sample", "8", *HERE)[0] == 0


def test_only_what_is_damaged_is_computed_again(called: Called, own_finished: Workspace) -> None:
    snapshot = file_digests(layout.CACHE)
    reader = Reader.open(store_folder())
    lost = reader.manifest.shards[0].entries
    spoil(shard_files(store_folder())[0])
    code, out, _ = called("verify", "--repair", *HERE)
    assert code == 0
    assert f"{lost} entries were computed again" in out
    assert len(Reader.open(store_folder())) == 120
    assert file_digests(layout.CACHE) == snapshot


def test_what_another_teacher_lost_comes_back_at_its_next_capture(called: Called, own_finished: Workspace) -> None:
    spoil(shard_files(store_folder())[0])
    description = read_json(layout.TEACHER / "teacher.json")
    write_json(layout.TEACHER / "teacher.json", {**description, "max_length": 16})
    code, out, _ = called("verify", "--repair", *HERE)
    assert code == 0
    assert "comes back at the next capture with its teacher" in out
    assert len(list((layout.state() / "cache").iterdir())) == 1


def test_a_damaged_bucket_is_repaired(called: Called, own_finished: Workspace, s3: tuple[Any, str]) -> None:
    client, bucket = s3
    address = f"s3://{bucket}/cache"
    assert called("export", address)[0] == 0
    shard = shard_files(store_folder())[0]
    key = f"cache/{store_folder().name}/shards/{shard.name}"
    client.put_object(Bucket=bucket, Key=key, Body=shard.read_bytes()[:-1] + b"\x7f")
    code, out, _ = called("verify", address, *HERE)
    assert code == 2
    assert f"{address}/{store_folder().name}/shards/{shard.name}: differs" in out
    code, out, _ = called("verify", address, "--repair", *HERE)
    assert code == 0, out
    assert "entries were computed again" in out
    [found] = called.json("stats", "--store", address)
    assert found["entries"] == 120


def test_a_bucket_is_looked_into_and_cleared(called: Called, finished: Workspace, s3: tuple[Any, str]) -> None:
    client, bucket = s3
    address = f"s3://{bucket}"
    assert called("export", address)[0] == 0
    told, here = (called.json("explain", "3", *HERE, *store)["answers"][1] for store in (("--store", address), ()))
    assert {**told, "folder": ""} == {**here, "folder": ""}
    key = f"{store_folder().name}/shards/{'0' * 64}.safetensors"
    client.put_object(Bucket=bucket, Key=key, Body=b"12345")
    assert called.json("gc", "--store", address)["removed"] == {}
    assert called.json("gc", "--store", address, "--grace-hours", "0")["removed"] == {key: 5}
    assert [folder["damaged"] for folder in called.json("verify", "--store", address, *HERE)["folders"]] == [[], []]


def test_a_damaged_snapshot_elsewhere_is_not_repaired(called: Called, own_finished: Workspace, tmp_path: Path) -> None:
    other = Path(shutil.copytree(layout.CACHE, tmp_path / "other"))
    spoil(shard_files(other)[0])
    assert "is a snapshot" in called.refused("verify", str(other), "--repair", *HERE)


def test_a_wrong_answer_is_found_by_the_sample(called: Called, own_finished: Workspace) -> None:
    import numpy as np

    from stillroom.cache.store import snapshot

    reader = Reader.open(layout.CACHE)
    keys = np.concatenate([shard.keys for shard in reader.shards])
    changed = Path("changed")
    for shard in reader.shards:
        values = shard.encoded("logits")
        shard._whole["logits"] = {"": np.ascontiguousarray(-values[""])}  # type: ignore[index]
    snapshot(reader, keys, changed, 1000)
    shutil.rmtree(layout.CACHE)
    changed.rename(layout.CACHE)
    assert called("verify", *HERE)[0] == 0
    code, out, _ = called("verify", str(layout.CACHE), "--sample", "4", *HERE)
    assert code == 2
    assert "has cosine -1.0000 to the live teacher's" in out


def test_garbage(called: Called, own_finished: Workspace) -> None:
    stray = store_folder() / "shards" / f"{'0' * 64}.safetensors"
    stray.write_bytes(b"12345")
    name = f"{store_folder().name}/shards/{stray.name}"
    assert called.json("gc")["removed"] == {}
    assert called.json("gc", "--grace-hours", "0", "--dry-run")["removed"] == {name: 5}
    assert stray.exists()
    code, out, _ = called("gc", "--grace-hours", "0")
    assert (code, out.splitlines()) == (0, [f"{name}  5 bytes", "freed 5 bytes"])
    assert not stray.exists()
    assert called("verify", *HERE)[0] == 0


def test_what_a_capture_left_before_its_first_manifest_is_garbage_and_nothing_else(
    called: Called, own_finished: Workspace
) -> None:
    begun = layout.state() / "cache" / ("c" * 32) / "shards" / f"{'0' * 64}.safetensors"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"12345")
    assert [one["teacher"] for one in called.json("stats")] == [snapshot_teacher()]
    assert called("verify", *HERE)[0] == 0
    assert list(called.json("gc", "--grace-hours", "0")["removed"].values()) == [5]
    assert not begun.exists()


def test_a_teacher_is_removed_by_name_and_never_ones_own(called: Called, own_finished: Workspace) -> None:
    own = store_folder()
    other = Path(shutil.copytree(own, own.with_name("a" * 32)))
    assert "it stays" in called.refused("gc", "--teacher", own.name, *HERE)
    assert f"holds no folder {'b' * 32}" in called.refused("gc", "--teacher", "b" * 32, *HERE)
    size = sum(path.stat().st_size for path in other.rglob("*") if path.is_file())
    assert called.json("gc", "--teacher", other.name, "--dry-run", *HERE)["size_bytes"] == size
    assert other.exists()
    assert called.json("gc", "--teacher", other.name, *HERE)["size_bytes"] == size
    assert list(own.parent.iterdir()) == [own]


def test_export_and_import(called: Called, own_finished: Workspace, tmp_path: Path) -> None:
    shards = len(shard_files(store_folder()))
    [sent] = called.json("export", str(tmp_path / "out"))
    assert (sent["teacher"], sent["shards"]) == (store_folder().name, shards)
    shutil.rmtree(layout.state() / "cache")
    code, out, _ = called("import", str(tmp_path / "out"))
    assert code == 0
    assert out.splitlines()[-1].startswith(f"moved {shards} shards, ")
    assert called("import", str(tmp_path / "out"))[1].splitlines()[-1] == "moved 0 shards, 0 bytes"
    assert called.json("verify", *HERE)["folders"][1]["entries"] == 120


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


COMMANDS = (("stats", "--store"), ("verify",), ("gc", "--store"), ("import",), ("explain", "3", *HERE, "--store"))


@pytest.mark.usefixtures("no_credentials")
@pytest.mark.parametrize("command", [*COMMANDS, ("export",)])
def test_a_bucket_without_credentials(called: Called, finished: Workspace, command: tuple[str, ...]) -> None:
    assert "no credentials; set AWS_ACCESS_KEY_ID" in called.refused(*command, "s3://bucket/prefix")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_no_cache(
    called: Called, finished: Workspace, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "empty").mkdir()
    told = called.refused(*command, str(tmp_path / "empty"))
    assert "so it is no cache" in told
    assert str(tmp_path / "empty") in told


def test_export_of_a_folder_that_is_no_cache(called: Called, finished: Workspace, tmp_path: Path) -> None:
    assert "so it is no cache" in called.refused("export", str(tmp_path / "out"), "--store", str(tmp_path / "empty"))
    assert "an export needs a folder" in called.refused("export", str(tmp_path / "out"), "--store", "s3://bucket/x")


def test_an_unknown_codec(called: Called, own_finished: Workspace, tmp_path: Path) -> None:
    manifest = Manifests(Folder(store_folder())).latest()
    kept = {**manifest.signals, "logits": Kept(codec="fp16/9", width=3)}
    newest_manifest(store_folder()).write_bytes(encode(manifest.model_copy(update={"signals": kept})))
    cache = str(layout.state() / "cache")
    for command in (("stats",), ("gc",), ("export", str(tmp_path / "out")), ("explain", "3", *HERE)):
        assert "stored by the codec 'fp16/9'" in called.refused(*command)
    assert "stored by the codec 'fp16/9'" in called.refused("import", cache, "--store", str(tmp_path / "in"))
    assert "stored by the codec 'fp16/9'" in called.refused("verify", "--repair", *HERE)
    assert "stored by the codec 'fp16/9'" in called("verify", *HERE)[1]


def test_a_teacher_of_another_size_than_its_labels(called: Called, own_finished: Workspace) -> None:
    description = read_json(layout.TEACHER / "teacher.json")
    write_json(layout.TEACHER / "teacher.json", {**description, "labels": [*description["labels"], "other"]})
    told = called.refused("verify", "--sample", "4", *HERE)
    assert "the teacher gives 3 outputs, its teacher.json names 4 labels" in told


def test_outside_a_checkout(called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(layout.STATE_VARIABLE, raising=False)
    for command in (("stats",), ("verify",), ("gc",), ("export", "out"), ("explain", "3")):
        assert "no dvc.yaml here or above" in called.refused(*command)
