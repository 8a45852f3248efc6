import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom import layout
from stillroom.errors import Diverged, GateRefused, InputError, ParamsError, StillroomError, TryAgain
from stillroom.params import validate
from stillroom.params_file import write_yaml
from stillroom.stages import __main__ as stages
from stillroom.stages.receipt import Receipt, read_receipt
from tests.conftest import SOURCE_ROOT, enter, run_stage
from tests.toys import toy_params


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml alone, entered."""
    write_yaml(validate(toy_params(), "toy"), tmp_path / layout.PARAMS)
    enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def stage(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`stage(run)`: put `run` in the place of the stage split, or of distil for an item, and run it."""

    def execute(run: Callable[..., Any], *item: str) -> int:
        name = "distil" if item else "split"
        module = types.ModuleType(f"stillroom.stages.{name}")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return run_stage(monkeypatch, name, *item)

    return execute


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: Any) -> Any:
        raise error

    return run


def receipt(name: str = "split") -> Receipt:
    found = read_receipt(name)
    assert found is not None
    return found


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "no name; give one of ingest, split, grow, teach"),
        (("teahc",), "stages: teahc; give one of"),
        (("__main__",), "give one of"),
        (("receipt",), "give one of"),
        (("teach", "static"), "teach takes no student"),
        (("distil",), "distil needs a student's name"),
        (("distil", "static", "more"), "give one of"),
        (("distil", "absent"), "students has no 'absent'; it has static, sliced"),
        (("distil", "../static"), "students has no '../static'"),
        (("distil", "Static"), "students has no 'Static'"),
        (("distil", ""), "students has no ''"),
    ],
)
def test_what_dvc_yaml_does_not_have_is_wrong_input_and_leaves_nothing(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    argv: tuple[str, ...],
    said: str,
) -> None:
    assert run_stage(monkeypatch, *argv) == 2
    (line,) = told(caplog)
    assert said in line
    assert "\n" not in line
    assert [path.name for path in place.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("content", [None, "students: [", "seed: 1\n", "sede: 1\n"])
def test_params_that_describe_no_run_are_wrong_input_and_leave_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    layout.PARAMS.unlink()
    if content is not None:
        layout.PARAMS.write_text(content)
    assert run_stage(monkeypatch, "split") == 2
    (line,) = told(caplog)
    assert line.startswith("params.yaml: ")
    assert len(list(place.iterdir())) == (content is not None)


def test_every_stage_of_the_list_is_a_module_with_a_run() -> None:
    folder = Path(stages.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "receipt"}
    assert modules == set(stages.STAGES)
    for name in stages.STAGES:
        arguments = "params: Params, item: str" if name in stages.MATRIX else "params: Params"
        assert f"def run({arguments})" in (folder / f"{name}.py").read_text(encoding="utf-8")


def test_a_stage_gets_the_params_and_its_student(stage: Callable[..., int]) -> None:
    seen: list[Any] = []
    assert stage(lambda params, item: seen.append((params.seed, item)) or {}, "static") == 0
    assert seen == [(0, "static")]
    assert receipt("distil@static").state == "finished"


def test_a_stage_that_ends_well_leaves_its_metrics(stage: Callable[..., int]) -> None:
    before = time.time()

    def run(params: Any) -> dict[str, float]:
        assert receipt().state == "started"
        assert receipt().exit_code is None
        return {"accuracy": 0.5}

    assert stage(run) == 0
    found = receipt()
    assert (found.stage, found.state, found.exit_code, found.error) == ("split", "finished", 0, None)
    assert found.metrics == {"accuracy": 0.5}
    assert found.pid == os.getpid()
    assert found.ended_at is not None
    assert before <= found.started_at <= found.ended_at <= time.time()
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes > 10e6


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (InputError("rows.csv: has no column text"), 2),
        (ParamsError("params.yaml: seed is -1"), 2),
        (GateRefused("no student passed"), 3),
        (Diverged("the loss is nan"), 65),
        (TryAgain("the lock is held"), 75),
        (StillroomError("anything else that was foreseen"), 1),
    ],
)
def test_a_foreseen_error_is_one_line_and_its_exit_code(
    stage: Callable[..., int], caplog: pytest.LogCaptureFixture, error: StillroomError, exit_code: int
) -> None:
    assert stage(raising(error)) == exit_code
    assert told(caplog) == [str(error)]
    found = receipt()
    assert (found.state, found.exit_code, found.error) == ("failed", exit_code, str(error))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("Disk quota exceeded (os error 122)"),
    ],
)
def test_a_full_disk_is_tried_again_later(
    stage: Callable[..., int], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    assert stage(raising(error)) == 75
    (line,) = told(caplog)
    assert "no space left on the disk of" in line
    assert "free some and run again" in line
    assert (receipt().state, receipt().exit_code) == ("failed", 75)


def test_what_safetensors_says_of_a_full_disk_is_understood(stage: Callable[..., int]) -> None:
    from safetensors import SafetensorError

    told = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert stage(raising(SafetensorError(told))) == 75


def test_a_full_disk_that_has_no_room_for_a_receipt_is_still_told(
    stage: Callable[..., int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_ended", raising(full))
        assert stage(raising(full)) == 75
    assert receipt().state == "started"
    assert "the receipt of split cannot be written" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_started", raising(full))
        assert stage(lambda params: pytest.fail("the stage ran")) == 75


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
        (PermissionError(errno.EACCES, "Denied"), "PermissionError: [Errno 13] Denied"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_a_defect_is_raised_with_its_trace_and_told_in_the_receipt(
    stage: Callable[..., int], error: BaseException, said: str
) -> None:
    with pytest.raises(type(error)):
        stage(raising(error))
    found = receipt()
    assert (found.state, found.exit_code, found.error) == ("failed", 1, said)


def test_a_terminated_stage_says_so(stage: Callable[..., int]) -> None:
    def run(params: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("the signal was not heard")

    with pytest.raises(SystemExit) as caught:
        stage(run)
    assert caught.value.code == 128 + signal.SIGTERM
    assert (receipt().state, receipt().exit_code, receipt().error) == ("failed", 143, "terminated")


def test_metrics_that_are_no_numbers_are_not_written(stage: Callable[..., int]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        stage(lambda params: {"accuracy": float("nan")})
    assert receipt().state == "started"


def test_the_command_ends_with_one_line_and_no_trace(place: Path) -> None:
    for argv, exit_code, said in ((["nothing"], 2, "give one of"), (["split"], 2, "report.json: no such file")):
        done = subprocess.run(
            [sys.executable, "-m", "stillroom.stages", *argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert said in line
    assert not layout.SPLIT.exists()


SLEEPING = """
import sys, time, types
from stillroom.stages import __main__ as stages
module = types.ModuleType("stillroom.stages.split")
module.run = lambda params: time.sleep(60)
sys.modules[module.__name__] = module
sys.exit(stages.main(["split"]))
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def state() -> str | None:
    found = read_receipt("split")
    return found.state if found else None


@pytest.mark.serial
def test_a_stage_dies_with_the_dvc_that_started_it(place: Path) -> None:
    environment = {**os.environ, "DVC_STAGE": "split"}
    command = [sys.executable, "-c", PARENT, SLEEPING]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: state() == "started", "the stage did not start")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not alive(child), "the stage outlived its parent")
    assert state() == "started"


@pytest.mark.serial
def test_a_stage_that_is_told_to_end_says_so(place: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEPING])
    wait_for(lambda: state() == "started", "the stage did not start")
    child.terminate()
    assert child.wait() == 143
    assert (receipt().state, receipt().exit_code, receipt().error) == ("failed", 143, "terminated")


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" not in status.read_text()


@pytest.mark.serial
def test_a_killed_stage_leaves_a_receipt_that_only_started(place: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEPING])
    wait_for(lambda: state() == "started", "the stage did not start")
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert state() == "started"


def test_the_workspaces_own_code_runs_in_place_of_what_was_imported(place: Path) -> None:
    shutil.copytree(
        SOURCE_ROOT / "stillroom", place / "src" / "stillroom", ignore=shutil.ignore_patterns("__pycache__")
    )
    params = place / "src" / "stillroom" / "params_file.py"
    params.write_text(params.read_text().replace("no such file", "no such file, says the copy"))
    layout.PARAMS.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "stillroom.stages", "split"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "params.yaml: no such file, says the copy" in done.stderr


def test_code_that_cannot_be_imported_in_place_is_told(place: Path) -> None:
    other = place / "src" / "stillroom"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    environment = os.environ | {"STILLROOM_REEXECUTED": str(place / "src")}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from stillroom.stages.__main__ import main; sys.exit(main(['split']))"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert "check PYTHONPATH" in done.stderr
