"""benchmarks/gate.py keeps its promise: named figures as one JSON object on the last line."""

import json
import subprocess
import sys
from pathlib import Path

import stillroom

SCRIPT = Path(__file__).parents[2] / "benchmarks/gate.py"


def test_figures_are_the_last_line() -> None:
    source = str(Path(stillroom.__file__).parents[1])
    command = [sys.executable, str(SCRIPT), "--json", "--runs", "3", "--seed", "1"]
    done = subprocess.run(command, env={"PYTHONPATH": source}, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures["true_pass_rate"]) == {"100", "300", "1000", "3000"}
    for rule in (figures, figures["permissive"]):
        assert 0.0 <= rule["false_pass_rate"] <= rule["false_pass_rate_worst"] <= 1.0
    for rate in (*figures["several_labels"], *figures["slices"]):
        for kind in ("false", "true"):
            assert 0.0 <= rate[f"{kind}_pass_gate"] <= rate[f"{kind}_pass_permissive"] <= 1.0
    assert {rate["rows"] for rate in figures["slices"]} == {100, 300, 1000, 3000}
    assert all(rate["false_pass_without"] == 1.0 for rate in figures["slices"][:3]), "3 % of 1,000 of 10,000 rows"
    for rate in figures["class_recall"]:
        assert rate["any_failed_gate"] <= rate["any_failed_uncorrected"] <= rate["any_failed_ratio"]
        assert rate["found_at_0.5_gate"] > 0.5
    assert figures["false_pass_rate"] < 0.3 < figures["permissive"]["false_pass_rate"]
