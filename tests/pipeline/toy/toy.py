"""`python toy.py NAME [ITEM]`: a stage that does next to nothing, but leaves receipts, events and outs.

How it behaves comes from the file toy.json, which is no dep: {"distil@big": {"sleep_s": 3, "exit": 75}}.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from stillroom.events import progress
from stillroom.parent import die_with_parent
from stillroom.stages.receipt import address, write_ended, write_started

OUTS = {
    "split": "artifacts/split",
    "teach": "artifacts/teacher",
    "distil": "artifacts/students/{item}",
    "evaluate": "artifacts/evaluations/{item}",
    "select": "reports/gate",
}


def main(name: str, item: str | None) -> int:
    """Be one stage; what it writes depends on its params and on what it reads, as for a real stage."""
    die_with_parent(signal.SIGKILL)
    stage = address(name, item)
    behaviour = json.loads(Path("toy.json").read_text()).get(stage, {}) if Path("toy.json").is_file() else {}
    if "exit_before_receipt" in behaviour:
        print("toy: no such column", file=sys.stderr, flush=True)
        return int(behaviour["exit_before_receipt"])
    receipt = write_started(stage)
    with Path("executed.log").open("a") as log:
        log.write(f"{stage} {os.getpid()}\n")
    print(f"toy: working on {stage}, key {os.environ.get('AWS_SECRET_ACCESS_KEY', 'none')}", flush=True)
    with progress(stage, 4) as advance:
        for _ in range(4):
            time.sleep(float(behaviour.get("sleep_s", 0)) / 4)
            advance(1)
    if behaviour.get("once_exit"):
        marker = Path(f".stillroom/{stage}.failed-once")
        if not marker.exists():
            marker.touch()
            write_ended(receipt, int(behaviour["once_exit"]), "the first attempt fails", {})
            return int(behaviour["once_exit"])
    if behaviour.get("once_kill"):
        marker = Path(f".stillroom/{stage}.killed-once")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if behaviour.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if code := int(behaviour.get("exit", 0)):
        write_ended(receipt, code, f"told to end with {code}", {})
        return code
    _write(name, item)
    write_ended(receipt, 0, None, {"accuracy": 0.9})
    return 0


def _write(name: str, item: str | None) -> None:
    import yaml  # comes with Prefect and DVC

    params = yaml.safe_load(Path("params.yaml").read_text())
    known = {
        "split": lambda: (_content("sources/data"), params["seed"]),
        "teach": lambda: (_content("artifacts/split"), params["teacher"]),
        "distil": lambda: (_content("artifacts/teacher"), params["students"][item]),
        "evaluate": lambda: (_content(f"artifacts/students/{item}"),),
        "select": lambda: (_content("artifacts/evaluations"), params["gate"]),
    }[name]()
    folder = Path(OUTS[name].format(item=item))
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(repr(known).encode()).hexdigest()
    (folder / "content.txt").write_text(digest + "\n")
    if name == "select":
        students = sorted(path.name for path in Path("artifacts/evaluations").iterdir())
        threshold = params["gate"]["retention"]["accuracy"]
        selected = students[0] if threshold <= 0.95 else None
        told = {
            "verdict": "PASS" if selected else "FAIL",
            "retention": {"accuracy": {"point": 0.96, "lower": 0.95, "upper": 0.97}},
            "metrics": {"accuracy": 0.9},
        }
        summary = {
            "task": "text-classification",
            "students": dict.fromkeys(students, told),
            "selected": selected,
        }
        Path("reports/summary.json").write_text(json.dumps(summary))


def _content(path: str) -> list[tuple[str, str]]:
    return [(item.name, item.read_text()) for item in sorted(Path(path).rglob("*")) if item.is_file()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
