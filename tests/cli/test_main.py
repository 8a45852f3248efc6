"""The command line itself: what it prints, what it refuses, and the exit code that it ends with."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from stillroom import doctor
from stillroom.cli import main as cli
from stillroom.doctor import Finding
from stillroom.files import tree_digest
from stillroom.params import json_schema
from tests.cli.conftest import Call
from tests.pipeline.project import Project

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


FINDINGS = [Finding("python", "ok", "3.11.9"), Finding("disk", "warn", "3 GiB free", "free some space")]
BROKEN = Finding("git", "fail", "not found", "install git")


@pytest.mark.parametrize(("found", "code"), [(FINDINGS, 0), ([*FINDINGS, BROKEN], 2)])
def test_doctor_tells_every_finding_and_fails_where_one_does(
    call: Call, monkeypatch: pytest.MonkeyPatch, found: list[Finding], code: int
) -> None:
    monkeypatch.setattr(doctor, "check", lambda: found)
    monkeypatch.setenv("COLUMNS", "150")
    ended, out, _ = call("doctor")
    assert ended == code
    for finding in found:
        assert any({finding.status, finding.name} <= set(line.split()) for line in out.splitlines())
        assert finding.detail in out
        assert finding.remedy in out
    ended, out, _ = call("doctor", "--json")
    assert ended == code
    assert json.loads(out) == [vars(finding) for finding in found]


def test_doctor_looks_at_this_machine(call: Call, checkout: Project) -> None:
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == (2 if any(finding["status"] == "fail" for finding in found) else 0)
    assert {"python", "state folder", "mlflow", "cpu"} <= {finding["name"] for finding in found}
    assert not (checkout.path / ".stillroom").exists()


def test_schema_is_that_of_the_code(call: Call) -> None:
    code, out, lines = call("schema")
    assert (code, lines) == (0, [])
    assert json.loads(out) == json_schema()


def test_report_before_any_run(call: Call, checkout: Project, tmp_path: Path) -> None:
    for arguments in ((), ("--json",), ("--workspace", str(tmp_path))):
        assert "no result yet; run `stillroom run` first" in call.refused("report", *arguments)


@pytest.mark.parametrize(
    "command", [("run",), ("plan",), ("source",), ("report",), ("cost",), ("promote", "1", "--reason", "x")]
)
def test_outside_a_checkout(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no dvc.yaml here or above" in call.refused(*command)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give either --package FOLDER or --model champion"),
        (("a text",), "give either --package FOLDER or --model champion"),
        (("--package", "a", "--model", "1", "a text"), "give either --package FOLDER or --model champion"),
        (("--package", "a"), "give either texts or --input FILE.csv"),
        (("--package", "a", "--input", "in.csv", "a text"), "give either texts or --input FILE.csv"),
        (("--package", "a", "--output", "out.csv", "a text"), "--output goes with --input"),
        (("--package", "a", "good", "h\udcf6her"), "the text 'h\\udcf6her' is not UTF-8"),
        (("--package", "a", "a text"), "a: not a package"),
    ],
)
def test_predict_used_wrongly(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in call.refused("predict", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_does_not_exist(call: Call, command: str) -> None:
    code, out, lines = call(command, "--wrong")
    assert (code, out) == (2, "")
    assert lines[-1].startswith("Error: No such option: --wrong")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("destil",), "No such command 'destil'"),
        (("promote", "one", "--reason", "x"), "valid integer"),
        (("promote", "1"), "Missing option '--reason'"),
        (("ui", "--mlflow-port", "web"), "valid integer"),
    ],
)
def test_a_command_used_wrongly(call: Call, arguments: tuple[str, ...], told: str) -> None:
    code, out, lines = call(*arguments)
    assert (code, out) == (2, "")
    assert told in lines[-1]


def test_source_with_wrong_input_leaves_no_workspace(call: Call, checkout: Project) -> None:
    assert "nowhere.csv" in call.refused("source", "--set", "data.source=nowhere.csv")
    assert not list((checkout.path / ".stillroom").glob("workspaces/*"))
    assert checkout.git("status", "--porcelain") == ""


def test_an_interrupt_ends_with_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "check", interrupted)
    assert call("doctor") == (130, "", [])


def test_a_defect_is_not_dressed_up(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def defective() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(doctor, "check", defective)
    with pytest.raises(OSError, match="Input/output error"):
        call("doctor")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_in_one_line(call: Call, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full() -> None:
        raise OSError(number, "no room", "some/file")

    monkeypatch.setattr(doctor, "check", full)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", sys.stdout)  # is given up, here for this call alone
        assert call("doctor") == (75, "", ["stillroom: some/file: no room; free some space and run again"])
        sys.stdout.close()


DOCTOR = (
    "import sys; from stillroom import doctor, entry; told = 'x' * int(sys.argv.pop()); "
    "doctor.check = lambda: [doctor.Finding(told, 'ok', '')]; entry.main()"
)


@pytest.mark.parametrize("size", ["10", "1000000"])
@pytest.mark.parametrize(("out", "code"), [("full", 75), ("gone", 0)])
def test_output_that_nobody_takes(size: str, out: str, code: int) -> None:
    command = [sys.executable, "-c", DOCTOR, "doctor", "--json", size]
    with open("/dev/full" if out == "full" else "/dev/null", "w") as taken:
        process = subprocess.Popen(
            command, stdout=taken if out == "full" else subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if process.stdout:
            process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            lines = process.stderr.read().splitlines()
        assert process.wait(timeout=60) == code
    assert len(lines) == (1 if code else 0)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow's, not ours
def test_promote_and_predict_want_a_version_that_exists(call: Call, checkout: Project, empty_registry: Path) -> None:
    state = checkout.path / ".stillroom"
    state.mkdir()
    shutil.copyfile(empty_registry, state / "mlflow.db")
    assert "has no version 7 in sqlite" in call.refused("promote", "7", "--reason", "better")
    assert "absent: has no version 1" in call.refused("promote", "1", "--reason", "x", "--registered", "absent")
    assert "reason is ' '" in call.refused("promote", "1", "--reason", " ")
    assert "a/b" in call.refused("promote", "1", "--reason", "x", "--registered", "a/b")
    assert "has no alias 'champion'" in call.refused("predict", "--model", "champion", "a text")
    assert "has no version '7'" in call.refused("predict", "--model", "7", "a text")
    assert not list(state.glob("ledger*/**/*.json"))


def test_source_prints_the_digest_of_any_address_and_writes_no_workspace(call: Call, checkout: Project) -> None:
    own = checkout.path / "own"
    own.mkdir()
    (own / "model.bin").write_bytes(b"weights")
    code, out, _ = call("source", "--of", str(own))
    assert (code, out) == (0, f"{tree_digest(own)}\n")
    assert not list((checkout.path / ".stillroom").glob("workspaces/*"))
    assert "no such file or folder" in call.refused("source", "--of", str(own / "nowhere"))
