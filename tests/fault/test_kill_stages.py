"""SIGKILL in the middle of teach, capture and distil: the next run, by the other engine, goes on from there."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Checkout, make_checkout, write_csv
from tests.toys import toy_params, write_tiny_checkpoint

pytestmark = [pytest.mark.serial, pytest.mark.slow]

_PATIENCE_S = 120.0
KILLED = {"teach": "teacher", "capture": "cache", "distil@static": "students/static"}
"""Stages in their order, and what each leaves below artifacts once it is finished."""


def prepare(folder: Path) -> Checkout:
    """A checkout that runs in place, with settings under which each stage takes long enough to be hit."""
    from stillroom.params import validate
    from stillroom.params_file import write_yaml

    checkout = make_checkout(folder)
    checkpoint = write_tiny_checkpoint(folder / "tiny-bert")
    write_csv(folder / "train.csv", 1500, 1)
    write_csv(folder / "test.csv", 120, 2)
    values = toy_params()
    values["data"] = {"source": str(folder / "train.csv"), "test": str(folder / "test.csv")}
    values["teacher"] |= {"source": str(checkpoint), "epochs": 3, "patience": 3}
    values["students"] = {"static": values["students"]["static"] | {"epochs": 12, "patience": 12, "batch_rows": 4}}
    values["capture"] = {"batch_tokens": 64, "shard_entries": 50, "spot_check": 4}
    values["gate"] = {"retention": {"accuracy": 0.5}, "resamples": 200}
    write_yaml(validate(values, "toy"), checkout.path / "params.yaml")
    checkout.stillroom("source")
    return checkout


def kill_in_the_middle(checkout: Checkout, stage: str, engine: str, state: Path) -> None:
    """SIGKILL a stage at work and the engine that runs it, at once."""
    began = time.time()
    command = [sys.executable, "-m", "dvc", "repro", stage]
    if engine == "flow":
        command = [sys.executable, "-c", "from stillroom.entry import main; main()", "run"]
    running = subprocess.Popen(
        command, cwd=checkout.path, env=checkout.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.kill(at_work(stage, state, began), signal.SIGKILL)
    running.send_signal(signal.SIGKILL)
    running.wait(60)
    deadline = time.monotonic() + 15
    while left := [command for _, command in in_folder(checkout.path) if "uvicorn" not in command]:
        assert time.monotonic() < deadline, f"outlived its engine: {left}"
        time.sleep(0.05)
    for server, _ in in_folder(checkout.path):  # Prefect's temporary one, which nothing ends once its flow is killed
        server.kill()


def in_folder(folder: Path) -> list[tuple[psutil.Process, str]]:
    """Living processes whose current folder it is, and their commands."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder:
                found.append((process, " ".join(process.cmdline())))
    return found


def at_work(stage: str, state: Path, since: float) -> int:
    """Wait until a stage that started after `since` has saved something of its own; its process id."""
    pattern, enough = ("cache/*/shards/*.safetensors", 3) if stage == "capture" else ("checkpoints/*/last.ckpt", 1)
    receipt = state / "receipts" / f"{stage}.json"
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        told = json.loads(receipt.read_text()) if receipt.is_file() else {"started_at": 0.0}
        if told["started_at"] > since and len(newer(state, pattern, told["started_at"])) >= enough:
            assert told["state"] == "started", f"{stage} ended before it could be killed"
            return int(told["pid"])
        time.sleep(0.01)
    raise AssertionError(f"{stage} was not seen at work within {_PATIENCE_S} s")


def newer(state: Path, pattern: str, since: float) -> list[Path]:
    found = []
    for path in state.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > since:
                found.append(path)
    return found


@pytest.mark.parametrize("engines", [("flow", "dvc"), ("dvc", "flow")], ids="-".join)
def test_each_stage_killed_under_both_engines_is_gone_on_from_by_the_other(
    tmp_path: Path, engines: tuple[str, str]
) -> None:
    made = prepare(tmp_path)
    checkout = Checkout(made.path, {**made.environment, "STILLROOM_CHECKPOINT_S": "0"})
    state, shards = checkout.path / ".stillroom", 0
    for stage, out in KILLED.items():
        for engine in engines:  # the first finishes the stage that was killed before, too
            kill_in_the_middle(checkout, stage, engine, state)
            assert not (checkout.path / "artifacts" / out).exists()
        if stage == "capture":
            shards = len(list((state / "cache").glob("*/shards/*.safetensors")))
    if engines[0] == "dvc":
        checkout.dvc("repro", stage)
    else:
        checkout.stillroom("run")
        assert "up to date" in checkout.dvc("repro").stdout
    receipts = {stage: json.loads((state / "receipts" / f"{stage}.json").read_text()) for stage in KILLED}
    assert {receipt["state"] for receipt in receipts.values()} == {"finished"}
    assert all((checkout.path / "artifacts" / out).is_dir() for out in KILLED.values())
    assert not list((state / "checkpoints").glob("*/last.ckpt"))
    # Of each run the last shard may have been killed before the manifest listed it; the next run then computes
    # that unit again, and the same bytes take the same name: two runs of three shards leave five files at least.
    assert shards >= 5
    computed, entries = (receipts["capture"]["metrics"][name] for name in ("computed", "entries"))
    assert computed <= entries - 50 * (shards - 2)
