"""A stage whose deps are not there ends with one line and exit code 2, and changes none of its outs."""

import logging
import shutil
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.files import file_digests
from stillroom.stages.receipt import read_receipt
from tests.conftest import run_stage
from tests.toys import Workspace

OUTS = {
    "grow": layout.GROWN,
    "teach": layout.TEACHER,
    "capture": layout.CACHE,
    "reference": layout.REFERENCE,
    "distil": layout.STUDENTS / "static",
    "quantise": layout.PACKAGES / "static",
    "evaluate": layout.EVALUATIONS / "static",
}
DEPS = [
    ("teach", layout.SPLIT),
    ("teach", layout.SPLIT / "snapshot.json"),
    ("teach", layout.SPLIT / "train.parquet"),
    ("teach", layout.SPLIT / "validation.parquet"),
    ("teach", layout.SOURCE_TEACHER),
    ("teach", Path("checkpoint")),
    ("grow", layout.SPLIT / "test.parquet"),
    ("capture", layout.SPLIT),
    ("capture", layout.GROWN),
    ("capture", layout.TEACHER),
    ("capture", layout.TEACHER / "model.safetensors"),
    ("capture", layout.TEACHER / "tokenizer.json"),
    ("reference", layout.SPLIT),
    ("reference", layout.TEACHER),
    ("reference", layout.TEACHER / "config.json"),
    ("distil", layout.SPLIT),
    ("distil", layout.GROWN / "texts.parquet"),
    ("distil", layout.TEACHER),
    ("distil", layout.TEACHER / "tokenizer.json"),
    ("distil", layout.CACHE),
    ("distil", layout.CACHE / "manifests"),
    ("distil", layout.CACHE / "shards"),
    ("quantise", layout.SPLIT),
    ("quantise", layout.STUDENTS),
    ("quantise", layout.STUDENTS / "static" / "student.safetensors"),
    ("quantise", layout.STUDENTS / "static" / "baseline.safetensors"),
    ("quantise", layout.STUDENTS / "static" / "tokenizer.json"),
    ("quantise", layout.LOCK),
    ("evaluate", layout.SPLIT),
    ("evaluate", layout.TEACHER),
    ("evaluate", layout.REFERENCE),
    ("evaluate", layout.REFERENCE / "reference.json"),
    ("evaluate", layout.REFERENCE / "onnx_int8"),
    ("evaluate", layout.PACKAGES),
    ("evaluate", layout.PACKAGES / "static" / "baseline"),
]


@pytest.mark.parametrize(("stage", "dep"), DEPS, ids=lambda value: str(value))
def test_a_stage_without_a_dep_says_so(
    own_finished: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    dep: Path,
) -> None:
    before = file_digests(OUTS[stage])
    shutil.rmtree(layout.state() / "sources", ignore_errors=True)
    if dep.is_dir():
        shutil.rmtree(dep)
    else:
        dep.unlink()
    argv = [stage, "static"] if stage in ("distil", "quantise", "evaluate") else [stage]
    assert run_stage(monkeypatch, *argv) == 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "\n" not in line
    assert file_digests(OUTS[stage]) == before
    receipt = read_receipt("@".join(argv))
    assert receipt is not None
    assert (receipt.state, receipt.exit_code, receipt.error) == ("failed", 2, line)
