"""`stillroom cost`: what it prints of the last run, and what it refuses."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from stillroom import layout
from stillroom.files import read_json, write_json
from stillroom.params_file import load_params, write_yaml
from tests.cli.conftest import Call
from tests.contract.test_docs import SHOWN
from tests.report.workspaces import PRICES, write_workspace

GIVEN = [part for key, value in PRICES.items() for part in ("--set", f"cost.{key}={value}")]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the students good, which passes, and bad, which fails; leave it unchanged."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_yaml(write_workspace(), folder / layout.PARAMS)
    return folder


def write_receipts(folder: Path, **seconds: float) -> None:
    for stage, took in seconds.items():
        told = {"stage": stage, "state": "finished", "pid": 1, "started_at": 100.0, "ended_at": 100.0 + took}
        write_json(folder / ".stillroom/receipts" / f"{stage.replace('_', '@')}.json", told)


def test_the_selected_student_is_weighed_by_what_was_measured(call: Call, evaluated: Path) -> None:
    code, out, err = call("cost", "--workspace", evaluated, *GIVEN, "--json")
    assert (code, err) == (0, [])
    told = json.loads(out)
    assert (told["student"], told["verdict"], told["break_even_month"]) == ("good", "PASS", 24)
    speeds = {option["name"]: option["calls_per_s"] for option in told["options"]}
    assert speeds == {"API": None, "good": 10_000.0, "teacher (PyTorch)": 50.0, "teacher (ONNX int8)": 200.0}
    assert told["machine"]["cpu"] == "Testium 4"
    assert told["terms"]["training_hours"] is None


def test_a_person_reads_the_month_the_table_and_the_assumptions(
    call: Call, evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call("cost", "--workspace", evaluated, *GIVEN, "--student", "bad")
    assert (code, err) == (0, [])
    shown = " ".join(out.replace("\u00a0", " ").split())
    assert "bad pays for itself by the end of month 24" in shown
    assert "bad did not pass the gate (FAIL)" in shown
    assert "12,000 EUR of setup; the hours of training are not given, and not counted" in shown
    assert "network, storage, people on call" in shown
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines()]
    assert ["API", "12,000", "24,000", "36,000", "1.00"] in rows, "a column is cut off"


def test_training_is_what_the_receipts_tell_until_it_is_given(
    call: Call, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "workspace"
    shutil.copytree(evaluated, folder)

    def hours(*arguments: object) -> float | None:
        told: float | None = json.loads(call("cost", "--workspace", folder, *GIVEN, "--json", *arguments)[1])["terms"][
            "training_hours"
        ]
        return told

    write_receipts(folder, teach=3600.0, distil_good=1800.0, report=900.0)
    assert hours() is None, "capture may have been served from DVC's cache, so the sum tells nothing"
    write_receipts(folder, capture=900.0)
    assert hours() == 2.0
    assert hours("--set", "cost.training_hours=0") == 0.0
    assert hours("--student", "bad") is None
    code, out, _ = call("cost", "--workspace", folder, *GIVEN)
    assert code == 0
    assert "2 hours of training at the machine's price" in out
    assert "set cost.training_hours=2 to have the report count them too" in out
    (folder / ".stillroom/receipts/teach.json").write_text("{")
    assert hours() is None


def test_the_plot_is_a_file_of_its_own(call: Call, evaluated: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "months.png"
    code, _, err = call("cost", "--workspace", evaluated, *GIVEN, "--plot", target)
    assert (code, err) == (0, [])
    assert target.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in target.parent.iterdir()] == ["months.png"]


def test_prices_stand_in_params_yaml_as_well(call: Call, evaluated: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    write_yaml(load_params(evaluated / layout.PARAMS, [one for one in GIVEN if one != "--set"]), own)
    code, out, _ = call("cost", "--workspace", evaluated, "--params", own, "--json")
    assert (code, json.loads(out)["break_even_month"]) == (0, 24)


@pytest.mark.parametrize("command", [command for _, command in SHOWN if command.startswith("stillroom cost")])
def test_what_the_docs_show_runs(
    call: Call, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*shlex.split(command)[1:], "--workspace", evaluated)
    assert (code, err) == (0, [])
    assert "pays for itself by the end of month 10" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            (),
            "cost.api_per_1000_calls, cost.machine_per_hour, cost.calls_per_month, cost.setup, cost.upkeep_per_month:",
        ),
        (GIVEN[:-2], "stillroom: cost.upkeep_per_month: not given; set them in params.yaml, or each with --set"),
        ((*GIVEN, "--set", "cost.setup=-1"), "cost.setup is -1; input should be greater than or equal to 0"),
        ((*GIVEN, "--set", "cost.calls_per_month=0"), "cost.calls_per_month is 0"),
        ((*GIVEN, "--set", "cost.peak=.nan"), "cost.peak is nan; input should be a finite number"),
        ((*GIVEN, "--student", "ugly"), "--student is 'ugly'; the last run had good, bad"),
        ((*GIVEN, "--plot", "months.pdf"), "--plot is 'months.pdf'; give it a name that ends with .png"),
        ((*GIVEN, "--plot", "taken.png"), "--plot: taken.png cannot be written (Is a directory); name another file"),
    ],
)
def test_refused_in_one_line(
    call: Call,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.png").mkdir()
    assert told in call.refused("cost", "--workspace", evaluated, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_without_a_result_there_is_nothing_to_weigh(call: Call, tmp_path: Path) -> None:
    assert "no result yet; run `stillroom run` first" in call.refused("cost", "--workspace", tmp_path, *GIVEN)


def test_a_result_without_its_evaluation_is_refused(call: Call, evaluated: Path, tmp_path: Path) -> None:
    write_json(tmp_path / layout.SUMMARY, read_json(evaluated / layout.SUMMARY))
    params = ("--params", evaluated / layout.PARAMS)
    told = call.refused("cost", "--workspace", tmp_path, *params, *GIVEN)
    assert "artifacts/evaluations/good/evaluation.json: no such file" in told
