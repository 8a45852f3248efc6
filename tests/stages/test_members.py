"""An ensemble of teachers: each its own, all heard by the students, the first alone the teacher of everything else."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stillroom import layout
from stillroom.cache.identity import entry_keys, folder_name
from stillroom.cache.manifest import FIRST
from stillroom.cache.reader import Reader
from stillroom.cli import main as cli
from stillroom.data.splits import read_split
from stillroom.files import file_digests, read_json, sha256_file
from stillroom.students.material import gather
from tests.cache.answers import shard_files
from tests.conftest import enter, run_stage
from tests.toys import Workspace, write_workspace


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Workspace]:
    """A workspace with a teacher of three members and the students that they taught."""
    made = write_workspace(tmp_path_factory.mktemp("members") / "workspace", tiny_checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        enter(made.path, patch)
        made.override("teacher.members=3", "teacher.epochs=2", "students.static.dissent=1.0")
        for stage in (("grow",), ("teach",), ("capture",), ("distil", "static"), ("distil", "sliced")):
            assert run_stage(patch, *stage) == 0, stage
        yield made


@pytest.fixture
def own(three: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of it, entered."""
    copy = Workspace(Path(shutil.copytree(three.path, tmp_path / "own")))
    enter(copy.path, monkeypatch)
    return copy


def member(room: Path, number: int) -> Path:
    return room / "members" / str(number) if number else room


def answers(number: int) -> np.ndarray:
    reader = Reader.open(member(layout.CACHE, number))
    return reader.read("logits", reader.locate(entry_keys(read_split(layout.SPLIT, "train").text), "texts"))


def test_every_member_is_a_whole_teacher_with_answers_of_its_own(three: Workspace) -> None:
    assert sorted(path.name for path in (layout.TEACHER / "members").iterdir()) == ["1", "2"]
    assert len({sha256_file(member(layout.TEACHER, number) / "model.safetensors") for number in range(3)}) == 3
    for number in (1, 2):
        assert not np.allclose(answers(0), answers(number))


def test_students_hear_the_mean_and_how_far_it_is_from_unanimous(three: Workspace) -> None:
    settings: Any = three.params().students["static"]
    train, validation = (read_split(layout.SPLIT, name) for name in ("train", "validation"))
    material = gather(layout.TEACHER, layout.CACHE, train, (), validation, settings, False, ("logits",))
    every, rows = np.stack([answers(number) for number in range(3)]), torch.arange(len(train))
    np.testing.assert_allclose(material.signals["logits"][rows].numpy(), every.mean(axis=0), atol=1e-5)
    shares = np.exp(every) / np.exp(every).sum(axis=2, keepdims=True)
    told = material.signals["disagreement"][rows].numpy()
    np.testing.assert_allclose(told, shares.var(axis=0).sum(axis=1) / (2 / 3), atol=1e-4)
    assert told.std() > 0


def test_the_first_is_the_same_without_the_others_and_teaches_otherwise(
    own: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, first = layout.STUDENTS / "static" / "student.safetensors", layout.TEACHER / "model.safetensors"
    taught_by_three, teacher = load_file(student), sha256_file(first)
    own.override("teacher.members=1", "students.static.dissent=0")
    for stage in (("teach",), ("capture",), ("distil", "static")):
        assert run_stage(monkeypatch, *stage) == 0, stage
    assert sha256_file(first) == teacher
    assert not (layout.TEACHER / "members").exists()
    assert not (layout.CACHE / "members").exists()
    assert any((value != taught_by_three[name]).any() for name, value in load_file(student).items())


def test_answers_of_another_teacher_than_the_member_are_refused(
    own: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(member(layout.CACHE, 2))
    shutil.copytree(member(layout.CACHE, 1), member(layout.CACHE, 2))
    assert run_stage(monkeypatch, "distil", "static") == 2
    assert "members/2" in caplog.text


def test_growth_in_steps_asks_the_first_alone_and_lineage_names_the_others(
    own: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.override("growth.factor=auto")
    for stage in (("grow",), ("capture",), ("distil", "static")):
        assert run_stage(monkeypatch, *stage) == 0, stage
    lineage = read_json(layout.STUDENTS / "static" / "student.json")["lineage"]
    manifests = [sha256_file(member(layout.CACHE, number) / FIRST) for number in range(3)]
    assert lineage["cache"] == manifests[0]
    assert lineage["members"] == hashlib.sha256("".join(manifests[1:]).encode()).hexdigest()


def test_the_command_line_keeps_checks_and_repairs_the_answers_of_every_member(
    own: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def called(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["stillroom", "cache", *arguments, "--workspace", "."])
        code = cli.run_cli()
        return code, "".join(capsys.readouterr())

    store, before = layout.state() / "cache", file_digests(layout.CACHE)
    names = [folder_name(Reader.open(member(layout.CACHE, number)).manifest.fingerprint) for number in range(3)]
    for name in names:
        assert called("gc", "--teacher", name) == (2, ANY)
        [shard, *_] = shard_files(store / name)
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(member(layout.CACHE, 2) / "shards")
    assert called("verify")[0] == 2
    code, told = called("verify", "--repair")
    assert (code, told.count("entries were computed again")) == (0, 3), told
    assert file_digests(layout.CACHE) == before
    assert called("verify", "--sample", "8")[0] == 0
    told = json.loads(called("explain", "7", "--json")[1])
    assert [bool(answer["shard"]) for answer in told["answers"]] == [True] * 6
    turned = member(layout.CACHE, 1)
    shutil.rmtree(turned)
    shutil.copytree(member(layout.CACHE, 2), turned)
    assert called("explain", "7", "--json")[0] == 0
    assert "weights differs" in called("explain", "7")[1]
