"""Stillroom's students beside what a user would pick instead: the same rows, machine and run, three seeds.

    python benchmarks/students.py --banking77 FOLDER --sst2 FOLDER --teacher FOLDER [--teacher FOLDER]
                                  [--compact FOLDER] --results FOLDER [--peers FOLDER] [--only PATTERN] [--json]

A folder of data holds train.csv, test.csv and, where the data have one, validation.csv, with the columns text and
category; that of a teacher a checkpoint of an encoder. The peers' packages live in an environment of their own, made in
--peers from benchmarks/peers-requirements.txt where it is missing; it needs Python 3.11.

The work falls into parts, DATA/TEACHER/SYSTEM-SEED, each a JSON file below --results. A part that is there is not done
again, so the benchmark can be stopped, and run in pieces: --only 'banking77/*/tfidf-*'. The student of seed 0 comes
from `stillroom run`; those of later seeds have its settings, found by a search or not, and learn from the same teacher,
split and cache, so that seeds differ in how a student is trained and in nothing else. --compact is a smaller pretrained
encoder, from which searches beside other teachers may start, within a fifth of all-mpnet-base-v2's weights. Every
figure is of the same test rows. Intervals over seeds are the widest of theirs: the least lower bound and the greatest
upper bound.

Each pair of data and teacher has a state folder of its own, so that the checkout's warm store plays no part in how long
something takes. Where DVC still had a stage in its cache, the time to train is null. No GPU is used.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean, median
from typing import Any

from stillroom.export.measure import machine

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {"banking77": "examples/banking77.yaml", "sst2": "examples/sentences.yaml"}
LEARNING_RATES = {"all-mpnet-base-v2": "5.0e-5"}
"""Of teachers for which the rate of an example, which is that of its own teacher, may be too high."""
COMPACT = {
    "families": "[static, cnn, bilstm]",
    "max_package_bytes": 30_000_000,
    "max_vocabulary": 26_000,
    "unseen_pieces": "true",
    "trials": 1,
}
"""What is asked of a search that may start from --compact: a fifth of all-mpnet-base-v2's weights at most, which
all-MiniLM-L6-v2 has with so many pieces and no slice of the teacher, and room for a few of them in fp32. Another recipe
of such an encoder would take half an hour."""
SEEDS = (0, 1, 2)
OURS = ("student", "teacher_int8")
PEERS = ("tfidf", "model2vec", "setfit", "layer_cut")
SEEDLESS = ("teacher_int8", "tfidf")
"""Nothing in them is left to chance; one seed is all."""
YARDSTICKS = ("onnx_int8", "tokenise", "student")
PASSED, REFUSED = 0, 3
CONFIDENCE, RESAMPLES = 0.95, 10_000
TRAINING = {
    "student": ("split", "grow", "teach", "capture", "distil@{}", "quantise@{}"),
    "teacher_int8": ("split", "teach"),
}
"""Stages whose time a user waits for; evaluation is left out, as it is for the peers."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One system, trained once with one seed on one data set beside one teacher."""

    data: str
    teacher: str
    system: str
    seed: int

    @property
    def name(self) -> str:
        """As --only sees it."""
        return f"{self.data}/{self.teacher}/{self.system}-{self.seed}"


def main() -> None:
    """Do the parts that are missing, then print what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in EXAMPLES:
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    parser.add_argument("--teacher", type=Path, action="append", required=True, metavar="FOLDER")
    parser.add_argument("--compact", type=Path, metavar="FOLDER")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="default, the folder environment of the results")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="parts to be done")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = {name: folder.absolute() for name in EXAMPLES if (folder := getattr(arguments, name))}
    if not data:
        parser.error(f"no data; give {' or '.join(f'--{name} FOLDER' for name in EXAMPLES)}")
    teachers = {folder.name: folder.absolute() for folder in arguments.teacher}
    results = arguments.results.absolute()
    compact = arguments.compact and arguments.compact.absolute()
    workshop = Workshop(results, (arguments.peers or results / "environment").absolute(), data, teachers, compact)
    parts = all_parts(list(data), list(teachers))
    for part in missing(parts, results, arguments.only):
        print(f"{part.name} …", flush=True)
        keep(results, part, workshop.perform(part))
    figures = summarise_all(parts, results)
    print_table(figures)
    if arguments.json:
        print(json.dumps(figures))


def all_parts(data: Sequence[str], teachers: Sequence[str]) -> list[Part]:
    """Every part; a student of a seed comes before whatever is measured beside it."""
    return [
        Part(name, teacher, system, seed)
        for name in data
        for teacher in teachers
        for system in (*OURS, *PEERS)
        for seed in (SEEDS[:1] if system in SEEDLESS else SEEDS)
    ]


def missing(parts: Sequence[Part], results: Path, only: str = "*") -> list[Part]:
    """The parts that match and have no result yet."""
    return [part for part in parts if fnmatchcase(part.name, only) and not _path(results, part).exists()]


def keep(results: Path, part: Part, found: Found) -> None:
    """Write a part's result, whole or not at all."""
    path = _path(results, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.rename(path)


def _path(results: Path, part: Part) -> Path:
    return results / f"{part.name}.json"


@dataclass(frozen=True)
class Workshop:
    """Where parts are done: folders of data and teachers by name, results, and the peers' environment."""

    results: Path
    peers: Path
    data: Mapping[str, Path]
    teachers: Mapping[str, Path]
    compact: Path | None = None

    def perform(self, part: Part) -> Found:
        """Do one part; ends the program where a command fails."""
        place = self.results / part.data / part.teacher
        first = workspace = place / f"workspace-{SEEDS[0]}"
        kept = place / f"student-{SEEDS[0]}.json"
        if part.system == "student" and part.seed == SEEDS[0]:
            teacher = self.teachers[part.teacher]
            compact = None if self.compact == teacher else self.compact
            command = run_command(EXAMPLES[part.data], self.data[part.data], teacher, workspace, compact)
            _call(command, ROOT, environment(place), good=(PASSED, REFUSED))
            student = choose(json.loads((workspace / "reports/summary.json").read_text()))
        elif kept.exists():
            student = json.loads(kept.read_text())["student"]
        else:
            sys.exit(f"{part.name}: needs student-{SEEDS[0]} of the same data and teacher; do that part first")
        if part.system == "student" and part.seed != SEEDS[0]:
            workspace = place / f"workspace-{part.seed}"
            train_again(first, workspace, student, part.seed, environment(place))
        found = self.ask(part, workspace, student) | {"commit": commit(), "machine": machine()}
        if part.system == "student":
            found |= beside(workspace, student)
        if part.system in OURS:
            found["train_seconds"] = stage_seconds(TRAINING[part.system], student, [workspace, first])
        return found

    def ask(self, part: Part, workspace: Path, student: str) -> Found:
        """What benchmarks/peers.py finds of a system, in the environment that it needs."""
        python = Path(sys.executable) if part.system in OURS else peers_python(self.peers)
        out = _path(self.results, part).with_suffix(".answer")
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [str(python), str(ROOT / "benchmarks/peers.py"), part.system, "--workspace", str(workspace)]
        command += ["--student", student, "--encoder", str(self.teachers[part.teacher])]
        command += ["--seed", str(part.seed), "--out", str(out)]
        alone = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
        idly = {"OMP_WAIT_POLICY": "passive"}  # as Stillroom's stages: torch's threads must not spin beside the others'
        _call(command, ROOT, environment(out.parent) | alone | idly)
        found: Found = json.loads(out.read_text())
        out.unlink()
        return found


def environment(place: Path) -> dict[str, str]:
    """Variables for whatever is called: a state folder below the place, and no GPU."""
    return {**os.environ, "STILLROOM_STATE": str(place / "state"), "CUDA_VISIBLE_DEVICES": ""}


def commit() -> str | None:
    """The commit that is checked out, where this is a checkout."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def run_command(params: str, data: Path, teacher: Path, workspace: Path, compact: Path | None = None) -> list[str]:
    """The run, as a user with local files would call it. compact: an encoder that its searches may start from."""
    from stillroom.files import tree_digest
    from stillroom.params_file import load_params

    own = data / "validation.csv"
    overrides = {
        "data.source": data / "train.csv",
        "data.validation": own if own.exists() else "null",
        "data.test": data / "test.csv",
        "data.label": "category",
        "teacher.source": teacher,
        "teacher.name": teacher.name,
    }
    if teacher.name in LEARNING_RATES:
        overrides["teacher.learning_rate"] = LEARNING_RATES[teacher.name]
    if compact is not None:
        checkpoint = f"{{source: '{compact}', sha256: {tree_digest(compact)}}}"
        students = load_params(ROOT / params).students
        searches = [name for name, one in students.items() if one.family == "auto"]
        asked = {"checkpoint": checkpoint, **COMPACT}
        overrides |= {f"students.{name}.{key}": value for name in searches for key, value in asked.items()}
    program = str(Path(sys.executable).with_name("stillroom"))
    command = [program, "run", "--params", params, "--workspace", str(workspace)]
    return [*command, *(word for key, value in overrides.items() for word in ("--set", f"{key}={value}"))]


def choose(summary: Found) -> str:
    """The selected student, or the one that surely keeps most where none passed."""
    students: Mapping[str, Found] = summary["students"]
    best = max(students, key=lambda name: students[name]["retention"].get("accuracy", {"lower": 0.0})["lower"])
    return str(summary["selected"] or best)


def train_again(first: Path, workspace: Path, student: str, seed: int, variables: Mapping[str, str]) -> None:
    """The same student with another seed; what a search has found is not searched again."""
    from stillroom.files import read_json

    found = read_json(first / "artifacts/students" / student / "student.json").get("settings")
    train_beside(first, workspace, student, found, seed, variables)


def train_beside(
    first: Path, workspace: Path, student: str, settings: Found | None, seed: int, variables: Mapping[str, str]
) -> None:
    """A student from all that stands before it in the first workspace. settings: its own; None, as given there.

    The stages are called by hand: a seed in params.yaml would teach another teacher on another split.
    """
    from stillroom.params_file import load_params, write_yaml

    rooms = [f"artifacts/{room}" for room in ("ingested", "split", "grown", "teacher", "cache", "reference")]
    (workspace / "artifacts").mkdir(parents=True, exist_ok=True)
    own = [] if settings is None else [f"students={json.dumps({student: settings})}"]
    write_yaml(load_params(first / "params.yaml", [f"seed={seed}", *own]), workspace / "params.yaml")
    for name in ("requirements.lock", *rooms):
        (workspace / name).unlink(missing_ok=True)
        (workspace / name).symlink_to(first / name)
    for stage in ("distil", "quantise", "evaluate"):
        _call([sys.executable, "-m", "stillroom.stages", stage, student], workspace, variables)


def beside(workspace: Path, student: str) -> Found:
    """What every system of this seed is compared with: labels, teacher and baseline on the test rows, and figures."""
    from stillroom.data.splits import read_split
    from stillroom.files import read_json

    evaluation = read_json(workspace / "artifacts/evaluations" / student / "evaluation.json")
    return {
        "student": student,
        "labels": read_split(workspace / "artifacts/split", "test").label.tolist(),
        **{name: answers(workspace, student, name) for name in ("teacher", "baseline")},
        "teacher_params": evaluation["teacher"]["params"],
        "teacher_size_bytes": evaluation["teacher"]["size_bytes"],
        "torch_over_int8": evaluation["speedup"]["vs_torch_fp32"] / evaluation["speedup"]["vs_onnx_int8"],
    }


def answers(workspace: Path, student: str, model: str) -> list[int]:
    """Class ids that a model gives the test rows, as a student's evaluation keeps them."""
    from stillroom.data.splits import read_split
    from stillroom.export.predictions import read_probabilities

    test = read_split(workspace / "artifacts/split", "test")
    kept = workspace / "artifacts/evaluations" / student / "predictions.parquet"
    chosen: list[int] = read_probabilities(kept, model, test).argmax(axis=1).tolist()
    return chosen


def stage_seconds(stages: Sequence[str], student: str, workspaces: Sequence[Path]) -> float | None:
    """How long these stages took, each by its receipt in the first workspace that has one; None where one lacks."""
    from stillroom.stages.receipt import read_receipt

    total = 0.0
    for stage in stages:
        found = (read_receipt(stage.format(student), folder / ".stillroom/receipts") for folder in workspaces)
        receipt = next((one for one in found if one is not None), None)
        if receipt is None or receipt.state != "finished" or receipt.ended_at is None:
            return None
        total += receipt.ended_at - receipt.started_at
    return total


def peers_python(folder: Path) -> Path:
    """The peers' Python; packages are installed where their environment is missing or its requirements have changed."""
    requirements, python = ROOT / "benchmarks/peers-requirements.txt", folder / "bin/python"
    installed = folder / "installed.txt"
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(folder)], ROOT)
    if not installed.exists() or installed.read_text() != requirements.read_text():
        _call([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)], ROOT)
        installed.write_text(requirements.read_text())
    return python


def _call(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    good: Sequence[int] = (PASSED,),
) -> None:
    print(shlex.join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr)
    if done.returncode not in good:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}")


def summarise_all(parts: Sequence[Part], results: Path) -> Found:
    """Figures by data, teacher and system, of the parts that are done and whose student is."""
    figures: Found = {}
    found = {part: json.loads(_path(results, part).read_text()) for part in parts if _path(results, part).exists()}
    groups: dict[tuple[str, str, str], list[tuple[Found, Found]]] = {}
    for part, result in found.items():
        student = found.get(Part(part.data, part.teacher, "student", part.seed))
        if student is not None:
            groups.setdefault((part.data, part.teacher, part.system), []).append((result, student))
    for data, teacher in {key[:2] for key in groups}:
        of_table = [pair for key, pairs in groups.items() if key[:2] == (data, teacher) for pair in pairs]
        _check_alike(f"{data}/{teacher}", [result for result, _ in of_table])
    for (data, teacher, system), pairs in groups.items():
        figures.setdefault(data, {}).setdefault(teacher, {})[system] = summarise(pairs)
    return figures


def _check_alike(table: str, results: Sequence[Found]) -> None:
    """End the program where the parts of one table come from machines or Pythons that differ."""
    for what in ("machine", "python"):
        kinds = sorted({json.dumps(result.get(what), sort_keys=True) for result in results})
        if len(kinds) > 1:
            sys.exit(f"{table}: parts of one table differ in {what}: {'; '.join(kinds)}; do those of one kind anew")


def summarise(pairs: Sequence[tuple[Found, Found]]) -> Found:
    """Figures of one system over its seeds; each result stands beside the student of the same seed."""
    for result, student in pairs:
        if result["data_sha256"] != student["data_sha256"]:
            sys.exit("parts of different rows; remove the results whose workspace was made anew")
    accuracies = [accuracy(result["predicted"], student["labels"]) for result, student in pairs]
    ratios = [_ratios(result["latency_ms"], student["torch_over_int8"]) for result, student in pairs]
    drops = [
        accuracy(result["unquantised"], student["labels"]) - accuracy(result["predicted"], student["labels"])
        for result, student in pairs
        if result["unquantised"] is not None
    ]
    seconds = [result["train_seconds"] for result, _ in pairs]
    first, beside_it = pairs[0]
    return {
        "seeds": len(pairs),
        "accuracy": round(mean(accuracies), 4),
        "retention": widest([compared(result, student, "teacher") for result, student in pairs]),
        "params_fraction": round(first["params"] / beside_it["teacher_params"], 6),
        "speedup": {name: float(f"{median(ratio[name] for ratio in ratios):.4g}") for name in ratios[0]},
        "size_ratio": round(beside_it["teacher_size_bytes"] / first["size_bytes"], 2),
        "baseline_gain": widest([gain(result, student) for result, student in pairs]),
        "int8_drop": round(mean(drops), 4) if drops else None,
        "train_seconds": None if None in seconds else round(mean(seconds), 1),
        "setting": first["setting"],
    }


def accuracy(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """Share of class ids that are the label."""
    return mean(float(own == label) for own, label in zip(predicted, labels, strict=True))


def _ratios(latency_ms: Found, torch_over_int8: float) -> dict[str, float]:
    """Median latency of each yardstick ÷ the system's own, of one process.

    PyTorch is no part of that process: its time is the int8 teacher's times their ratio beside the student.
    """
    own = latency_ms["own"]["p50"]
    ratios = {f"vs_{name}": latency_ms[name]["p50"] / own for name in YARDSTICKS}
    return {"vs_torch_fp32": ratios["vs_onnx_int8"] * torch_over_int8, **ratios}


def compared(result: Found, student: Found, other: str) -> tuple[float, float, float]:
    """Accuracy ÷ that of `other` on the same rows: point and one-sided bounds of the gate's paired bootstrap."""
    from stillroom.gate.statistics import cells, retention

    sample = cells(student["labels"], student[other], result["predicted"])
    found = retention(sample, "accuracy", CONFIDENCE, RESAMPLES, 0)
    return found.point, found.lower, found.upper


def gain(result: Found, student: Found) -> tuple[float, float, float]:
    """Accuracy minus that of the student trained without a teacher: the ratio's point and bounds times the latter."""
    baseline = accuracy(student["baseline"], student["labels"])
    point, lower, upper = ((ratio - 1.0) * baseline for ratio in compared(result, student, "baseline"))
    return point, lower, upper


def widest(bounds: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """The mean of some points, with the least lower and the greatest upper of their bounds."""
    points, lower, upper = zip(*bounds, strict=True)
    return {"point": round(mean(points), 4), "lower": round(min(lower), 4), "upper": round(max(upper), 4)}


def print_table(figures: Found) -> None:
    """For people: one line a system."""
    kept_head = "retention [least lower, greatest upper]"
    heads = ("accuracy", kept_head, "of params", "× smaller", "× teacher", "× int8", "× student", "trained")
    for data, teachers in figures.items():
        for teacher, systems in teachers.items():
            print(
                f"\n{data}, {teacher}\n{'':14}"
                + "".join(f"{head:>{len(kept_head) + 2 if head == kept_head else 11}}" for head in heads)
            )
            for system, row in systems.items():
                kept, speed = row["retention"], row["speedup"]
                bounds = f"{kept['point']:.3f} [{kept['lower']:.3f}, {kept['upper']:.3f}]"
                seconds = "-" if row["train_seconds"] is None else f"{row['train_seconds']:.0f} s"
                print(
                    f"{system:14}{row['accuracy']:11.4f}{bounds:>{len(kept_head) + 2}}"
                    f"{row['params_fraction']:11.4f}{row['size_ratio']:11.1f}"
                    f"{speed['vs_torch_fp32']:11.4g}{speed['vs_onnx_int8']:11.4g}{speed['vs_student']:11.4g}"
                    f"{seconds:>11}"
                )


if __name__ == "__main__":
    main()
