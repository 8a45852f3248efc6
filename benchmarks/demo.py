"""The README's first command on a fresh clone, and what the engines add to the stages.

    python benchmarks/demo.py [--search] [--keep FOLDER] [--json]

Clones this checkout, times `make install` and `make demo`, then what it costs when nothing is to be done (`dvc repro`,
and `stillroom run` without and with a Prefect server beyond it), `stillroom --help`, which stages a changed value runs
again, and one stage under the runner beside the same stage by hand. It takes as long as the demo does and some minutes
more; run it with nothing else at work. With --search it times, after the installation, the same run with `students:
auto` in place of the demo's two, and nothing else.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
STAGE = "select"
REPEATS = 3
SERVER_START_S = 120.0
UNDER_RUNNER = f"""
from pathlib import Path
from stillroom.params_file import load_params
from stillroom.pipeline.runner import StageRunner
from stillroom.pipeline.workspace import open_workspace
with open_workspace(Path.cwd(), load_params(Path("params.yaml")), None) as place:
    outcome = StageRunner(place).run_stage("{STAGE}")
assert outcome.executed
print(outcome.seconds)
"""


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--keep", type=Path, help="clone into this folder and leave it there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = (arguments.keep or Path(folder) / "clone").absolute()
        call = Caller.in_clone(clone, Path(folder))
        figures = search(call) if arguments.search else measure(call)
    for name, value in figures.items():
        print(f"{name:40s} {', '.join(value) or 'none' if isinstance(value, list) else value}")
    if arguments.json:
        print(json.dumps(figures))


def search(call: "Caller") -> dict[str, Any]:
    """How long a search takes from raw data to the gate's verdict, and what it finds."""
    found = call.clone / "found"
    figures: dict[str, Any] = {
        "install_seconds": call.install(),
        "search_seconds": call("stillroom", "run", "--set", "students=auto", "--workspace", str(found)),
    }
    student = json.loads((found / "artifacts/students/auto/student.json").read_text())
    figures["tried"] = [trial["name"] for trial in student["search"]]
    return figures | quality(json.loads((found / "reports/summary.json").read_text()))


def measure(call: "Caller") -> dict[str, Any]:
    """Every other figure."""
    figures: dict[str, Any] = {"install_seconds": call.install(), "demo_seconds": call("make", "demo")}
    figures |= quality(json.loads((call.clone / "reports/summary.json").read_text()))
    before = call.receipts()
    repro = call.best("dvc", "repro")
    run = call.best("stillroom", "run")
    with prefect_server(call) as served:
        run_served = served.best("stillroom", "run")
    figures |= {
        "stages_run_without_change": executed(before, call.receipts()),
        "dvc_repro_without_change_seconds": repro,
        "run_over_dvc_repro_seconds": round(run - repro, 2),
        "run_over_dvc_repro_with_server_seconds": round(run_served - repro, 2),
        "help_seconds": call.best("stillroom", "--help"),
        "stages_run_by_a_students_setting": call.rerun("students.static.epochs=11"),
        "stages_run_by_a_threshold": call.rerun("gate.retention.accuracy=0.96"),
    }
    return figures | stage_cost(call)


def executed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Stages that left a new receipt."""
    return sorted(stage for stage, receipt in after.items() if before.get(stage) != receipt)


class Caller:
    """Runs commands in the clone and times them."""

    def __init__(self, clone: Path, environment: dict[str, str]) -> None:
        self.clone = clone
        self.environment = environment

    @classmethod
    def in_clone(cls, clone: Path, scratch: Path) -> "Caller":
        """In a new clone of this checkout."""
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STILLROOM_", "PREFECT_"))}
        kept |= {"PREFECT_HOME": str(scratch / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        kept["PATH"] = f"{clone / '.venv/bin'}{os.pathsep}{kept['PATH']}"
        return cls(clone, kept)

    def install(self) -> float:
        """Seconds of the installation."""
        return self("make", "install", f"PYTHON={sys.executable}")

    def __call__(self, *command: str) -> float:
        began = time.monotonic()
        self.output(*command)
        return round(time.monotonic() - began, 2)

    def receipts(self) -> dict[str, str]:
        """What each stage's last execution left, by stage."""
        return {path.stem: path.read_text() for path in (self.clone / ".stillroom/receipts").glob("*.json")}

    def rerun(self, override: str) -> list[str]:
        """The stages that a changed value runs again, in the checkout itself; the value is put back afterwards."""
        from ruamel.yaml import YAML

        path, before = self.clone / "params.yaml", self.receipts()
        kept = path.read_text()
        dotted, _, value = override.partition("=")
        params = YAML().load(kept)
        section = params
        *parents, key = dotted.split(".")
        for parent in parents:
            section = section[parent]
        section[key] = YAML().load(value)
        with path.open("w") as stream:
            YAML().dump(params, stream)
        self.output("stillroom", "run")
        path.write_text(kept)
        return executed(before, self.receipts())

    def best(self, *command: str) -> float:
        """The least of a few times: what the command costs when nothing disturbs it."""
        return min(self(*command) for _ in range(REPEATS))

    def output(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.clone, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done.stdout


def quality(summary: dict[str, Any]) -> dict[str, Any]:
    """What the demo reached: the teacher and the selected student."""
    teacher = summary["teacher"]
    student = summary["students"][summary["selected"]]
    return {
        "teacher_accuracy": round(teacher["metrics"]["accuracy"], 4),
        "selected": summary["selected"],
        "retention_lower": round(student["retention"]["accuracy"]["lower"], 4),
        "params_fraction": round(student["params"] / teacher["params"], 4),
        "speedup_vs_torch_fp32": round(student["speedup"]["vs_torch_fp32"], 1),
    }


def stage_cost(call: Caller) -> dict[str, float]:
    """One stage that must run, by hand and under the runner; a changed setting makes it due each time."""
    by_hand, under_runner = [], []
    params = call.clone / "params.yaml"
    shutil.copy(params, call.clone / "params.kept")
    for turn in range(REPEATS):
        by_hand.append(call("python", "-m", "stillroom.stages", STAGE))
        text = (call.clone / "params.kept").read_text()
        params.write_text(text.replace("gate:\n", f"gate:\n  resamples: {9_000 + turn}\n"))
        under_runner.append(float(call.output("python", "-c", UNDER_RUNNER)))
    return {
        "stage_by_hand_seconds": round(min(by_hand), 2),
        "stage_under_runner_seconds": round(min(under_runner), 2),
        "stage_overhead_seconds": round(min(under_runner) - min(by_hand), 2),
    }


@contextmanager
def prefect_server(call: Caller) -> Iterator[Caller]:
    """A server on a free port, and a caller that knows it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: Sequence[str] = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=call.clone, env=call.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + SERVER_START_S
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
                break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the Prefect server did not start")
                time.sleep(0.2)
        yield Caller(call.clone, call.environment | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"})
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
