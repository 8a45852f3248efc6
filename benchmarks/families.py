"""Every family of students from one cache, distilled and without a teacher: what learning from a teacher gains each.

    python benchmarks/families.py --workspace FOLDER --results FOLDER [--family NAME] [--seed N] [--json]

The workspace is one that `stillroom run` has left; its rows, teacher and cache serve every family. Students have the
defaults of their family, and the limits on length and vocabulary of the run's own first student. Both variants are
packaged alike and compared on the test rows: retention is accuracy ÷ the teacher's, by the gate's paired bootstrap,
baseline_gain accuracy minus that without the teacher, each with one-sided bounds of 95 %. A family whose evaluation
lies below --results is not trained again.
"""

import argparse
import json
from pathlib import Path

from students import Found, accuracy, answers, beside, compared, environment, gain, train_beside, widest

FAMILIES = ("static", "cnn", "bilstm", "sliced", "narrow")


def main() -> None:
    """Train what is missing, then print what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--family", choices=FAMILIES, action="append", metavar="NAME", help="default, every one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    first, results = arguments.workspace.absolute(), arguments.results.absolute()
    figures: Found = {}
    for family in arguments.family or FAMILIES:
        workspace = results / f"{family}-{arguments.seed}"
        if not (workspace / "artifacts/evaluations" / family).exists():
            train_beside(first, workspace, family, settings(first, family), arguments.seed, environment(results))
        figures[family] = summarise(workspace, family)
    print_table(figures)
    if arguments.json:
        print(json.dumps(figures))


def settings(first: Path, family: str) -> Found:
    """The family's defaults, within what the first student of a workspace may read."""
    from stillroom.params_file import load_params

    student = next(iter(load_params(first / "params.yaml").students.values()))
    return {"family": family, "max_length": student.max_length, "max_vocabulary": student.max_vocabulary}


def summarise(workspace: Path, family: str) -> Found:
    """Figures of one family, on the test rows."""
    from stillroom.files import read_json

    evaluation = read_json(workspace / "artifacts/evaluations" / family / "evaluation.json")
    others, predicted = beside(workspace, family), answers(workspace, family, "student")
    return {
        "params_fraction": round(evaluation["params"] / others["teacher_params"], 6),
        "quantisation": evaluation["quantisation"],
        "accuracy": round(accuracy(predicted, others["labels"]), 4),
        "baseline_accuracy": round(accuracy(others["baseline"], others["labels"]), 4),
        "retention": widest([compared({"predicted": predicted}, others, "teacher")]),
        "baseline_gain": widest([gain({"predicted": predicted}, others)]),
    }


def print_table(figures: Found) -> None:
    """For people: one line a family."""
    print(f"{'':10}{'of params':>11}{'accuracy':>10}{'without':>10}{'retention':>26}{'gain':>28}")
    for family, row in figures.items():
        kept, gained = (
            "{point:.4f} [{lower:.4f}, {upper:.4f}]".format(**row[name]) for name in ("retention", "baseline_gain")
        )
        print(
            f"{family:10}{row['params_fraction']:11.4f}{row['accuracy']:10.4f}{row['baseline_accuracy']:10.4f}"
            f"{kept:>26}{gained:>28}"
        )


if __name__ == "__main__":
    main()
