"""benchmarks/personal_data.py keeps its promise: one JSON object, and what the reference says of it."""

import json
import subprocess
import sys
from pathlib import Path

import stillroom

SCRIPT = Path(__file__).parents[3] / "benchmarks/personal_data.py"


def test_numbers_that_are_written_out_are_found_and_few_others_taken_for_them() -> None:
    command = [sys.executable, str(SCRIPT), "--rows", "200", "--messages", "200"]
    source = str(Path(stillroom.__file__).parents[1])
    done = subprocess.run(command, env={"PYTHONPATH": source}, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    for written in ("+491701234567", "+49 170 1234567", "as in its country"):
        assert figures["found"][written]["share"] == 1.0
    for shares in figures["taken"].values():
        assert shares["day"] == shares["day and time"] == shares["year-7 digits"] == shares["8 digits"] == {}
        assert all(share < 0.2 for form, of in shares.items() if "0 in front" not in form for share in of.values())
    assert all(rows > 0 for rows in figures["rows_per_s"].values())
