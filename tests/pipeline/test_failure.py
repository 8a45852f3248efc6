"""Exit codes, receipts and DVC's words become our own errors."""

from pathlib import Path

import pytest

from stillroom.errors import Diverged, GateRefused, InputError, StillroomError, TryAgain
from stillroom.pipeline.failure import StageKilled, stage_error
from stillroom.stages.receipt import Receipt

HERE = Path("/checkout")


def receipt(state: str, code: int | None = None) -> Receipt:
    return Receipt.model_validate(
        {
            "stage": "teach",
            "state": state,
            "pid": 1,
            "started_at": 0.0,
            "exit_code": code,
            "error": "loss is NaN",
        }
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, StillroomError),
        (2, InputError),
        (3, GateRefused),
        (65, Diverged),
        (75, TryAgain),
        (143, StageKilled),
        (7, StillroomError),
    ],
)
def test_the_receipt_decides(code: int, kind: type[StillroomError]) -> None:
    error = stage_error("teach", HERE, 255, receipt("failed", code), ["a", "b"])
    assert type(error) is kind
    assert str(error).startswith("teach: ")
    assert error.__notes__ == ["Last lines of its output:\n  a\n  b"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, InputError), (75, TryAgain), (-9, StageKilled), (137, StageKilled), (127, StillroomError)],
)
def test_without_a_receipt_the_code_is_the_one_that_dvc_prints(code: int, kind: type[StillroomError]) -> None:
    lines = [
        "Running stage 'teach':",
        "> python -m x",
        "12:00:00 ERROR params.yaml: teacher.epochs is -3",
        f"ERROR: failed to reproduce 'teach': failed to run: python -m x, exited with {code}",
    ]
    error = stage_error("teach", HERE, 255, None, lines)
    assert type(error) is kind
    assert ("teacher.epochs is -3" in str(error)) == (kind is not StageKilled)


def test_a_receipt_that_only_says_started_means_killed() -> None:
    error = stage_error("teach", HERE, 255, receipt("started"), [])
    assert isinstance(error, StageKilled)
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("code", [-9, -15])
def test_a_killed_dvc_is_a_killed_stage(code: int) -> None:
    assert isinstance(stage_error("teach", HERE, code, None, []), StageKilled)


def test_a_busy_workspace_is_worth_another_try() -> None:
    lines = [
        "ERROR: failed to reproduce 'teach': '/checkout/x' is busy, it is being blocked by:",
        "  (PID 7): dvc",
    ]
    error = stage_error("teach", HERE, 255, None, lines)
    assert isinstance(error, TryAgain)


def test_a_full_disk_is_worth_another_try() -> None:
    error = stage_error("teach", HERE, 255, receipt("finished", 0), ["ERROR: [Errno 28] No space left on device"])
    assert isinstance(error, TryAgain)


def test_what_dvc_says_last_is_the_message() -> None:
    lines = ["ERROR: failed to reproduce 'teach': output 'artifacts/teacher' does not exist"]
    error = stage_error("teach", HERE, 255, receipt("finished", 0), lines)
    assert type(error) is StillroomError
    assert "output 'artifacts/teacher' does not exist" in str(error)
