"""The demo in a shortened form: the real data and the real teacher, fewer rows, one epoch, one student."""

import json
from pathlib import Path

import pytest

from stillroom.data.sources.fetching import fetch
from stillroom.params_file import load_params
from tests.e2e.conftest import ROOT, make_checkout

pytestmark = [pytest.mark.slow]

_HEADER, _TRAIN, _TEST = 3, 1500, 600


def shortened(source: Path, target: Path, rows: int) -> None:
    """Every n-th row below the three header lines, so that every class stays."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    body = lines[_HEADER:]
    target.write_text("".join(lines[:_HEADER] + body[:: max(1, len(body) // rows)]), encoding="utf-8")


def test_the_verdict_on_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(ROOT / "params.yaml")
    monkeypatch.setenv("STILLROOM_STATE", str(tmp_path / "fetched"))
    train, test = tmp_path / "train.tab", tmp_path / "test.tab"
    assert params.data.test is not None
    shortened(fetch(params.data.source, params.data.sha256, "data"), train, _TRAIN)
    shortened(fetch(params.data.test, params.data.test_sha256, "data"), test, _TEST)
    checkout = make_checkout(tmp_path)
    overrides = (
        f"data.source={train}",
        "data.sha256=null",
        f"data.test={test}",
        "data.test_sha256=null",
        "teacher.epochs=1",
        "students={static: {family: static, max_length: 64, max_vocabulary: 3500}}",
        "gate.retention={accuracy: 0.9}",
    )
    sets = [argument for override in overrides for argument in ("--set", override)]
    workspace = tmp_path / "workspace"
    checkout.stillroom("run", "--workspace", str(workspace), *sets)
    summary = json.loads((workspace / "reports" / "summary.json").read_text())
    student = summary["students"]["static"]
    assert summary["selected"] == "static"
    assert student["verdict"] == "PASS"
    assert student["retention"]["accuracy"]["lower"] >= 0.9
    assert summary["teacher"]["metrics"]["accuracy"] >= 0.9
    assert student["params"] <= 0.05 * summary["teacher"]["params"]
    assert student["speedup"]["vs_torch_fp32"] > 10
    package = workspace / "release" / "static"
    told = checkout.stillroom("predict", "--package", str(package), "the board approved a two for one stock split")
    assert told.stdout.startswith("earn\t")
