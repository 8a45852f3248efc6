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
    assert figures["false_pass_rate"] < 0.3 < figures["permissive"]["false_pass_rate"]
