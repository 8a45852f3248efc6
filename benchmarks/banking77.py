"""Banking77 with a 109 M parameter teacher: what a static student keeps of it.

    python benchmarks/banking77.py --data FOLDER --teacher FOLDER [--workspace FOLDER] [--json]

FOLDER of data holds train.csv and test.csv with the columns text and category, that of the teacher a checkpoint of
all-mpnet-base-v2. Runs `stillroom run --params examples/banking77.yaml` on them, half an hour on two cores, and prints
the command and what the gate found; `reports/summary.json` of the workspace is what benchmarks/results/banking77.json
keeps.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from students import run_command

ROOT = Path(__file__).resolve().parents[1]
PARAMS = "examples/banking77.yaml"
PASSED, REFUSED = 0, 3


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, help="default, a folder that is removed afterwards")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = (arguments.workspace or Path(scratch) / "workspace").absolute()
        command = run_command(PARAMS, arguments.data.absolute(), arguments.teacher.absolute(), workspace)
        print(shlex.join(["stillroom", *command[1:]]), flush=True)
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode not in (PASSED, REFUSED):
            sys.exit(done.returncode)
        figures = read_figures(json.loads((workspace / "reports/summary.json").read_text()))
    for name, value in figures.items():
        print(f"{name:28s} {value}")
    if arguments.json:
        print(json.dumps(figures))


def read_figures(summary: dict[str, Any]) -> dict[str, Any]:
    """Teacher, student and what is between them; goals of the project in docs/adr/0008-growth.md."""
    teacher, student = summary["teacher"], summary["students"]["static"]
    retention = student["retention"]["accuracy"]
    return {
        "teacher_accuracy": round(teacher["metrics"]["accuracy"], 4),
        "student_accuracy": round(student["metrics"]["accuracy"], 4),
        "baseline_accuracy": round(student["baseline_metrics"]["accuracy"], 4),
        "retention": round(retention["point"], 4),
        "retention_lower": round(retention["lower"], 4),
        "retention_upper": round(retention["upper"], 4),
        "params_fraction": round(student["params"] / teacher["params"], 5),
        "speedup_vs_torch_fp32": round(student["speedup"]["vs_torch_fp32"], 1),
        "speedup_vs_onnx_int8": round(student["speedup"]["vs_onnx_int8"], 1),
        "verdict": student["verdict"],
    }


if __name__ == "__main__":
    main()
