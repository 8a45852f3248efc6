"""promote, rollback, history, why and ledger, from the command line to a real registry."""

import getpass
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.registry import ledger, register, runs, story, tracking, versions
from tests.cli.conftest import Call
from tests.pipeline.project import Project
from tests.registry.conftest import write_release

# MLflow's, not ours
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
EYES = {"required": True, "because": "gate.four_eyes is true", "four_eyes": True}


@pytest.fixture
def model(checkout: Project, empty_registry: Path, tmp_path: Path) -> Callable[..., int]:
    """`model(**release)`: one version more of the model that params.yaml names, run by ada; its number."""
    state = checkout.path / ".stillroom"
    state.mkdir()
    shutil.copyfile(empty_registry, state / "mlflow.db")
    tracker = tracking.connect()
    run = runs.find_or_create(
        tracker, runs.experiment(tracker, "toy"), {"kind": "test"}, name="test", start_ms=1, tags={}
    )

    def add(**asked: Any) -> int:
        folder = tmp_path / "release"
        release = {"bias": 0.1, "verdict": "PASS", "lower": 0.98, **asked}
        write_release(folder, tmp_path / "scratch", **release)
        found = register.read_release(folder, "static")
        return register.register(tracker, "stillroom", found, run, (), {versions.AUTHOR_TAG: "ada"})

    return add


def files(checkout: Project) -> list[Path]:
    return sorted((checkout.path / ".stillroom/ledger").rglob("*.json"))


def test_the_life_of_a_champion(call: Call, checkout: Project, model: Callable[..., int]) -> None:
    assert call("history") == (0, "stillroom: nothing was promoted yet\n", [])
    assert call("ledger", "verify")[1].startswith("stillroom: 0 entries in ")
    assert [model(bias=bias) for bias in (0.1, 0.2)] == [1, 2]
    assert call("promote", 1, "--reason", "first", "--actor", "bob")[:2] == (
        0,
        "stillroom: version 1 is champion (ledger entry 1)\n",
    )
    assert call("promote", 2, "--reason", "better")[0] == 0
    assert call("rollback", "--reason", "slow", "--actor", "bob")[:2] == (
        0,
        "stillroom: version 1 is champion again (ledger entry 3)\n",
    )
    assert call("rollback", "--to", 2, "--reason", "it was the disk", "--actor", "bob")[0] == 0
    code, out, _ = call("history")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 4)
    assert lines[1].endswith(f"version 2 replaced version 1 ({getpass.getuser()}: better)")
    assert lines[3].endswith("version 2 came back in place of version 1 (bob: it was the disk)")
    told = json.loads(call("history", "--json")[1])
    assert (told["model"], [entry["told"] for entry in told["entries"]]) == ("stillroom", lines)
    assert [entry["kind"] for entry in told["entries"]] == ["first", "replaced", "returned", "returned"]
    code, out, _ = call("why")
    assert (code, out.splitlines()) == (0, list(story.why("stillroom").told))
    assert out.splitlines()[0].endswith("(ledger entry 4): it was the disk")
    found = json.loads(call("why", "--version", 1, "--json")[1])
    assert (found["version"], found["live"], found["state"]) == (1, False, "replaced")
    assert found["entry"]["sequence"] == 3
    assert found["gate"]["verdict"] == "PASS"


def test_verify_tells_how_many_and_the_hash_of_the_last(
    call: Call, checkout: Project, model: Callable[..., int]
) -> None:
    for bias in (0.1, 0.2):
        call("promote", model(bias=bias), "--reason", "why")
    last = ledger.digest(ledger.read("stillroom", ledger.default_store())[-1])
    code, out, _ = call("ledger", "verify")
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("stillroom: 2 entries in ")
    assert out.endswith(f", whole; the last has sha256 {last}\n")
    told = json.loads(call("ledger", "verify", "--json")[1])
    assert (told["entries"], told["last_sha256"]) == (2, last)
    first = files(checkout)[0]
    first.write_text(first.read_text().replace('"why"', '"how"'))
    for arguments in ((), ("--json",)):
        assert "ledger stillroom/00000002.json: does not follow from entry 1" in call.refused(
            "ledger", "verify", *arguments
        )
    first.unlink()
    assert "ledger stillroom/00000002.json: does not follow from entry 0" in call.refused("ledger", "verify")


def test_verify_misses_the_last_entry(call: Call, checkout: Project, model: Callable[..., int]) -> None:
    for bias in (0.1, 0.2):
        call("promote", model(bias=bias), "--reason", "why")
    first, last = files(checkout)
    kept = last.read_bytes()
    last.write_bytes(kept.replace(b'"why"', b'"how"'))
    assert "ledger stillroom/00000002.json: changed in " in call.refused("ledger", "verify")
    last.unlink()
    assert "ledger stillroom/00000002.json: missing in " in call.refused("ledger", "verify", "--json")
    first.unlink()
    assert "ledger stillroom/00000002.json: missing in " in call.refused("ledger", "verify")


def test_who_ran_it_may_not_approve_it(call: Call, checkout: Project, model: Callable[..., int]) -> None:
    assert [model(), model(bias=0.2, approval=EYES)] == [1, 2]
    call("promote", 1, "--reason", "first", "--actor", "ada")
    for command in (("promote", 2), ("rollback", "--to", 2)):
        code, out, lines = call(*command, "--reason", "mine", "--actor", "ADA")
        assert (code, out, len(lines)) == (3, "", 1)
        assert "by another than its author ada" in lines[0]
    assert "waits for a person's approval" in call("why", "--version", 2)[1]
    assert len(files(checkout)) == 1
    assert call("promote", 2, "--reason", "looked at it", "--actor", "bob")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", 7, "--reason", "x"), "stillroom: has no version 7"),
        (("promote", 1, "--reason", " "), "reason is ' '"),
        (("promote", 1, "--reason", "x", "--actor", ""), "actor is ''"),
        (("promote", 1, "--reason", "gr\udcfcn"), "reason is 'gr\\udcfcn'; give both as UTF-8"),
        (("promote", 10**20, "--reason", "x"), f"stillroom: has no version {10**20}"),
        (("promote", 0, "--reason", "x"), "stillroom: has no version 0"),
        (("rollback", "--reason", "x"), "its ledger knows no champion before this one"),
        (("rollback", "--reason", "x", "--to", 7), "stillroom: has no version 7"),
        (("why",), "stillroom: has no champion"),
        (("why", "--version", 7), "stillroom: has no version 7"),
        (("why", "--version", 2**31), f"stillroom: has no version {2**31}"),
        (("history", "--registered", "a/b"), "'a/b' is no model name"),
        (("why", "--registered", "a/b"), "'a/b' is no model name"),
        (("promote", 1, "--reason", "x", "--registered", "a:b"), "'a:b' is no model name"),
        (("rollback", "--reason", "x", "--registered", ""), "'' is no model name"),
        (("predict", "--model", "champion", "--registered", "a/b", "a text"), "'a/b' is no model name"),
        (("ledger", "verify", "--registered", "../x"), "'../x' is no model name"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    call: Call, checkout: Project, model: Callable[..., int], arguments: tuple[object, ...], told: str
) -> None:
    assert model() == 1
    assert told in call.refused(*arguments)
    assert files(checkout) == []


def test_a_user_without_a_name_must_give_one(
    call: Call, checkout: Project, model: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert "give --actor" in call.refused("promote", model(), "--reason", "x")


@pytest.mark.parametrize(
    "command",
    [("rollback", "--reason", "x"), ("history",), ("why",), ("ledger", "verify"), ("promote", 1, "--reason", "x")],
)
def test_outside_a_checkout(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no dvc.yaml here or above" in call.refused(*command)
