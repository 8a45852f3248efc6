"""`stillroom gate`: what the gate can tell."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillroom.cli.options import AsJson, Overrides, ParamsFile, WorkspaceFolder, checkout
from stillroom.errors import InputError

if TYPE_CHECKING:
    from stillroom.gate.power import AnswerCounts

app = typer.Typer(name="gate", help="What the gate can tell, before anything is trained.", no_args_is_help=True)


@app.callback()
def gate() -> None:
    """What the gate can tell, before anything is trained."""


@app.command()
def power(
    params: ParamsFile = None,
    overrides: Overrides = None,
    workspace: WorkspaceFolder = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Planned test rows, instead of artifacts/split.")] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Their classes, equally frequent.")] = None,
    accuracy: Annotated[float, typer.Option("--teacher-accuracy", help="Accuracy that the teacher will have.")] = 0.95,
    wins: Annotated[float, typer.Option(min=0, max=1, help="Share of its mistakes that the student gets right.")] = 0.3,
    runs: Annotated[int, typer.Option(min=20, help="Simulated students of each quality.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Tell how good a student must truly be to pass, and how often one that is not does, with the test rows there are.

    Simulates the gate on students of known quality; takes a minute for some thousand rows.
    """
    if (rows is None) != (classes is None):
        raise InputError("gate power: give --rows and --classes both, or neither and a workspace with artifacts/split")
    if rows is not None and classes is not None and rows < classes:
        raise InputError(f"gate power: --rows is {rows} and --classes {classes}; give a row of each class at least")
    if not 0.0 < accuracy <= 1.0:
        raise InputError(f"gate power: --teacher-accuracy is {accuracy:g}; give a share above 0 and at most 1")
    from stillroom import layout
    from stillroom.gate.power import Teacher
    from stillroom.gate.power import power as simulate
    from stillroom.params_file import load_params

    place = workspace or (checkout() if params is None or rows is None else Path())
    values = load_params(params or place / layout.PARAMS, overrides or ())
    test, known = _planned(rows, classes) if rows and classes else _present(place)
    found = simulate(test, values.gate, Teacher(accuracy, wins), runs, values.seed, known)
    told: dict[str, Any] = {
        "test_rows": int(test.rows.sum()),
        "classes": known,
        "teacher_accuracy": accuracy,
        "wins": wins,
        "confidence": values.gate.confidence,
        "runs": runs,
        "seed": values.seed,
        "metrics": {
            metric: {
                "threshold": one.threshold,
                "false_pass_rate": one.false_pass,
                "copy_pass_rate": one.copy_pass,
                "least_retention": {f"{chance:g}": least for chance, least in one.least.items()},
            }
            for metric, one in found.items()
        },
    }
    if as_json:
        print(json.dumps(told))
    else:
        _print_table(told)


def _planned(rows: int, classes: int) -> "tuple[AnswerCounts, int]":
    import numpy as np

    from stillroom.gate.power import count_answers

    return count_answers(np.arange(rows) % classes, classes), classes


def _present(place: Path) -> "tuple[AnswerCounts, int]":
    from stillroom import layout
    from stillroom.data.splits import read_snapshot, read_split
    from stillroom.gate.power import count_answers

    folder = place / layout.SPLIT
    if not folder.is_dir():
        raise InputError(f"{folder}: no split yet; run the stages up to split, or give --rows and --classes")
    classes = len(read_snapshot(folder).labels)
    return count_answers(read_split(folder, "test").label, classes), classes


def _print_table(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    table.add_column("metric")
    heading = ["threshold", "passes at the threshold", "a copy passes"]
    chances = list(next(iter(told["metrics"].values()))["least_retention"])
    for name in (*heading, *(f"true retention that passes in {float(chance):.0%}" for chance in chances)):
        table.add_column(name, justify="right")
    for metric, one in told["metrics"].items():
        least = ("none" if value is None else f"{value:.4f}" for value in one["least_retention"].values())
        rates = (f"{one[name]:.1%}" for name in ("false_pass_rate", "copy_pass_rate"))
        table.add_row(metric, f"{one['threshold']:g}", *rates, *least)
    console = Console()
    console.print(table)
    console.print(
        f"{told['test_rows']:,} test rows of {told['classes']} classes, a teacher of accuracy "
        f"{told['teacher_accuracy']:g} and a student that is right on {told['wins']:.0%} of its mistakes; "
        f"{told['runs']} simulated students of each quality, Monte-Carlo error up to "
        f"{0.5 / told['runs'] ** 0.5:.1%}",
        highlight=False,
    )
