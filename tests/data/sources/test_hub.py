from pathlib import Path

import pytest

from stillroom.data.sources.fetching import fetch
from stillroom.errors import InputError, TryAgain

CHECKPOINT = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "README.md": b"# model",
}
ELSE = {
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    ".gitattributes": b"",
}


def test_a_whole_repository_is_its_checkpoint_and_no_more(hub, state: Path) -> None:
    hub.files = CHECKPOINT | ELSE
    folder = fetch("hf://owner/name@main", None, "teacher.source")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == CHECKPOINT


def test_one_file_of_a_data_set(hub, state: Path) -> None:
    hub.files = {"data/train.jsonl": b"{}", "data/test.jsonl": b"[]"}
    path = fetch("hf://datasets/owner/name@main/data/train.jsonl", None, "data.source")
    assert (path.name, path.read_bytes()) == ("train.jsonl", b"{}")
    assert all(asked.startswith(("/api/datasets/", "/datasets/")) for asked in hub.asked)


def test_a_commit_is_fetched_once_and_a_branch_when_it_moved(hub, state: Path) -> None:
    hub.files = {"rows.csv": b"one"}
    pinned = f"hf://datasets/owner/name@{hub.commit}/rows.csv"
    first = fetch(pinned, None, "data.source")
    branch = fetch("hf://datasets/owner/name@main/rows.csv", None, "data.source")
    hub.asked.clear()
    assert fetch(pinned, None, "data.source") == first
    assert hub.asked == []
    assert fetch("hf://datasets/owner/name@main/rows.csv", None, "data.source") == branch
    assert hub.asked == ["/api/datasets/owner/name/revision/main"]
    hub.commit, hub.files = "d" * 40, {"rows.csv": b"two"}
    assert fetch("hf://datasets/owner/name@main/rows.csv", None, "data.source").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("hf://datasets/other/name@main/rows.csv", "no such dataset repository"),
        ("hf://datasets/owner/name@v9/rows.csv", "no revision v9"),
        ("hf://datasets/owner/name@main/none.csv", "has no none.csv at this revision"),
        ("hf://owner/name@main", "has no file of a checkpoint"),
    ],
)
def test_what_is_not_there_is_wrong_input(hub, state: Path, uri: str, told: str) -> None:
    hub.files = {"rows.csv": b"one"}
    with pytest.raises(InputError, match=told) as caught:
        fetch(uri, None, "data.source")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "error"), [(503, TryAgain), (400, InputError)])
def test_overload_may_pass(
    hub, state: Path, status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.status = status
    with pytest.raises(error, match=f"the hub answers {status}"):
        fetch("hf://datasets/owner/name@main/rows.csv", None, "data.source")


def test_no_network_is_wrong_input(hub, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no network: the hub is not reachable"):
        fetch("hf://datasets/owner/name@main/rows.csv", None, "data.source")
