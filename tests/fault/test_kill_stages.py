"""SIGKILL in the middle of teach, capture and distil: the next run, by either engine, resumes and ends whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Checkout, make_checkout, write_csv
from tests.toys import toy_params, write_tiny_checkpoint

pytestmark = [pytest.mark.serial, pytest.mark.slow]

_PATIENCE_S = 120.0


def prepare(folder: Path) -> Checkout:
    """A checkout that runs in place, with settings under which each stage takes long enough to be hit."""
    from stillroom.params import validate, write_yaml

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


def started(stage: str, state: Path) -> int:
    """Wait until a stage is in the middle of its work and return its process id."""
    events = {"teach": "checkpoints", "distil@static": "checkpoints", "capture": "cache"}[stage]
    pattern = "*/last.ckpt" if events == "checkpoints" else "*/shards/*.safetensors"
    receipt = state / "receipts" / f"{stage}.json"
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if receipt.is_file() and len(list((state / events).glob(pattern))) >= (3 if stage == "capture" else 1):
            told = json.loads(receipt.read_text())
            assert told["state"] == "started", f"{stage} ended before it could be killed"
            return int(told["pid"])
        time.sleep(0.01)
    raise AssertionError(f"{stage} was not seen at work within {_PATIENCE_S} s")


@pytest.mark.parametrize(
    ("before", "stage", "next_engine"),
    [("split", "teach", "dvc"), ("teach", "capture", "dvc"), ("capture", "distil@static", "flow")],
)
def test_killed_stage_is_gone_on_from(tmp_path: Path, before: str, stage: str, next_engine: str) -> None:
    checkout = prepare(tmp_path)
    state = checkout.path / ".stillroom"
    checkout.dvc("repro", before)
    environment = {**checkout.environment, "STILLROOM_CHECKPOINT_S": "0"}
    command = [sys.executable, "-m", "dvc", "repro", stage]
    if next_engine == "dvc":
        command = [sys.executable, "-c", "from stillroom.entry import main; main()", "run"]
    engine = subprocess.Popen(
        command, cwd=checkout.path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.kill(started(stage, state), signal.SIGKILL)
    engine.send_signal(signal.SIGKILL)
    engine.wait(60)
    out = {"teach": "teacher", "capture": "cache", "distil@static": "students/static"}[stage]
    assert not (checkout.path / "artifacts" / out).exists()
    shards = len(list((state / "cache").glob("*/shards/*.safetensors")))
    again = Checkout(checkout.path, environment)
    if next_engine == "dvc":
        again.dvc("repro", stage)
    else:
        again.stillroom("run")
    assert (checkout.path / "artifacts" / out).is_dir()
    receipt = json.loads((state / "receipts" / f"{stage}.json").read_text())
    assert receipt["state"] == "finished"
    if stage == "capture":
        assert shards >= 3  # the last of them may have been killed before the manifest listed it
        assert receipt["metrics"]["computed"] <= receipt["metrics"]["entries"] - 50 * (shards - 1)
    else:
        assert not list((state / "checkpoints").glob("*/last.ckpt"))
    if stage == "distil@static":
        assert "up to date" in again.dvc("repro").stdout
