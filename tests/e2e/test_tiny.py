"""The whole pipeline on toy data with a tiny teacher, through the command line, DVC and MLflow."""

import csv
import getpass
import json
import re
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.grown import read_grown
from tests.e2e.conftest import TINY, TinyRun
from tests.toys import toy_rows

pytestmark = [TINY, pytest.mark.slow]


def test_the_summary_has_the_promised_shape(tiny_run: TinyRun) -> None:
    summary = tiny_run.summary
    assert {"task", "data", "teacher", "students", "selected"} <= summary.keys()
    assert summary["data"]["rows"]["test"] == 300
    assert set(summary["students"]) == {"static", "sliced"}
    for student in summary["students"].values():
        assert student["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE")
        assert student["reasons"]
        assert set(student["retention"]["accuracy"]) == {"point", "lower", "upper"}
        assert student["speedup"].keys() == {"vs_torch_fp32", "vs_onnx_int8", "vs_tokenise"}
    assert summary["selected"] in summary["students"]


def test_the_checkout_stays_clean(tiny_run: TinyRun) -> None:
    assert tiny_run.checkout.git_status() == tiny_run.status_before == ""


def test_a_second_run_executes_nothing_and_dvc_agrees(tiny_run: TinyRun) -> None:
    before = tiny_run.receipts()
    tiny_run.run()
    assert tiny_run.receipts() == before
    told = tiny_run.checkout.dvc("repro", cwd=tiny_run.workspace).stdout
    assert "up to date" in told
    assert tiny_run.receipts() == before


def test_a_new_threshold_trains_nothing_and_refuses_with_3(tiny_run: TinyRun) -> None:
    before = tiny_run.receipts()
    impossible = "gate.max_package_bytes=10"
    refused = tiny_run.run("--set", impossible, code=3)
    assert "No student passes" in refused.stdout
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert executed == {"select", "report"}


def test_prices_run_the_report_alone_and_tell_a_month(tiny_run: TinyRun) -> None:
    before = tiny_run.receipts()
    prices = {
        "api_per_1000_calls": 1,
        "machine_per_hour": 0.5,
        "calls_per_month": 10**7,
        "setup": 9,
        "upkeep_per_month": 0,
    }
    given = [part for key, value in prices.items() for part in ("--set", f"cost.{key}={value}")]
    tiny_run.run(*given)
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert executed == {"report"}
    assert (tiny_run.workspace / layout.REPORT / "break-even.png").is_file()
    told = json.loads(tiny_run.checkout.stillroom("cost", "--workspace", str(tiny_run.workspace), "--json").stdout)
    assert (told["student"], told["break_even_month"]) == (tiny_run.summary["selected"], 1)
    assert told["terms"]["training_hours"] > 0


def test_one_student_changed_runs_that_student_select_and_report(tiny_run: TinyRun) -> None:
    before = tiny_run.receipts()
    tiny_run.run("--set", "students.static.learning_rate=0.003")
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert {"distil@static", "select"} <= executed
    assert executed <= {"distil@static", "quantise@static", "evaluate@static", "select", "report"}


def test_unlabelled_rows_reach_the_students_and_train_no_teacher(tiny_run: TinyRun, tmp_path: Path) -> None:
    texts = toy_rows(80, seed=5, first_row=5000).text
    (tmp_path / "own.csv").write_text("\n".join(["text", *texts]) + "\n", encoding="utf-8")
    before = tiny_run.receipts()
    tiny_run.run("--set", f"data.unlabelled={tmp_path / 'own.csv'}")
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert {"ingest", "grow", "capture", "distil@static", "distil@sliced", "select"} <= executed
    assert not {"teach", "reference"} & executed
    assert read_grown(tiny_run.workspace / layout.GROWN) == texts
    assert "up to date" in tiny_run.checkout.dvc("repro", cwd=tiny_run.workspace).stdout


def test_cases_and_a_slice_of_a_column_are_judged_and_train_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    known, names = toy_rows(5, seed=1), ("cooking", "sailing", "weather")
    wrong = [f"{text},{names[label - 1]}" for text, label in zip(known.text, known.label, strict=True)]
    (tmp_path / "cases.csv").write_text("\n".join(["text,label", *wrong]), encoding="utf-8")
    before = tiny_run.receipts()
    part = "gate.slices={sea: {column: label, values: [sailing], retention: 0.1}}"
    tiny_run.run("--set", f"data.cases={tmp_path / 'cases.csv'}", "--set", part, code=3)
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert {"ingest", "reference", "evaluate@static", "evaluate@sliced", "select"} <= executed
    assert not {"teach", "capture", "distil@static", "quantise@static"} & executed
    told = json.loads((tiny_run.workspace / layout.GATE_REPORTS / "static.json").read_text())
    assert (told["cases"]["rows"], told["cases"]["demanded"], told["slices"]["sea"]["rows"]) == (5, "labels", 100)
    assert (told["verdict"], told["cases"]["verdict"]) == ("FAIL", "FAIL")


def predicted(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("where", ["package", "champion"])
def test_predict_keeps_order_and_columns(tiny_run: TinyRun, tmp_path: Path, where: str) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    texts = ["boil the soup", "", 'a "quoted", text', "wind\nand rain", "hoist the sail"]
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "text"], *([str(place), text] for place, text in enumerate(texts))])
    chosen = ["--package", str(tiny_run.workspace / "release" / tiny_run.summary["selected"])]
    if where == "champion":
        chosen = ["--model", "champion", "--registered", "tiny"]
    tiny_run.checkout.stillroom("predict", *chosen, "--input", str(source), "--output", str(target))
    rows = predicted(target)
    assert list(rows[0]) == ["text", "label", "probability"]
    assert [row["text"] for row in rows] == texts
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_report_prints_the_summary(tiny_run: TinyRun) -> None:
    told = tiny_run.checkout.stillroom("report", "--workspace", str(tiny_run.workspace), "--json").stdout
    assert json.loads(told) == tiny_run.summary


def test_plan_says_why(tiny_run: TinyRun) -> None:
    arguments = ("plan", "--params", str(tiny_run.params), "--workspace", str(tiny_run.workspace), "--json")
    stages = json.loads(tiny_run.checkout.stillroom(*arguments, "--set", "capture.spot_check=5").stdout)["stages"]
    status = {stage["stage"]: stage["status"] for stage in stages}
    assert status["capture"] == "changed"
    assert status["teach"] == "up to date"
    assert status["distil@static"] == "downstream"
    assert any("spot_check" in reason for stage in stages for reason in stage["reasons"])


def test_a_high_risk_student_waits_for_a_second_person(tiny_run: TinyRun) -> None:
    def ask(*arguments: str, code: int = 0) -> str:
        return tiny_run.checkout.stillroom(*arguments, "--registered", "tiny", code=code).stdout

    before, champion = tiny_run.receipts(), json.loads(ask("why", "--json"))["version"]
    told = tiny_run.run("--set", "governance.ai_act=high", "--set", "gate.four_eyes=true").stdout
    executed = {name for name, started in tiny_run.receipts().items() if started != before[name]}
    assert executed == {"ingest", "select", "report"}, "ingest asks the rules about a scan"
    asked = re.search(r"waits for a person's approval \(governance.ai_act is high\): stillroom promote (\d+)", told)
    assert asked is not None, told
    assert json.loads(ask("why", "--version", asked[1], "--json"))["state"] == "waits for approval"
    ask("promote", asked[1], "--reason", "mine", "--actor", getpass.getuser().upper(), code=3)
    assert json.loads(ask("why", "--json"))["version"] == champion
    ask("promote", asked[1], "--reason", "looked at it", "--actor", "a second person")
    assert f"version {asked[1]} is live because a second person made it champion" in ask("why")
    ask("rollback", "--reason", "it was a test")
    assert f"version {champion} came back in place of version {asked[1]}" in ask("history").splitlines()[-1]
    assert json.loads(ask("ledger", "verify", "--json"))["entries"] == len(ask("history").splitlines())
    tiny_run.run()
    assert json.loads(ask("why", "--json"))["version"] == champion
