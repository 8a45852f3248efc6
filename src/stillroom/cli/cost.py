"""`stillroom cost`: in which month a student has paid for itself against a remote API."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillroom.cli.options import AsJson, Overrides, ParamsFile, WorkspaceFolder, checkout
from stillroom.errors import InputError

if TYPE_CHECKING:
    from stillroom.report.costs import Costs


def cost(
    params: ParamsFile = None,
    overrides: Overrides = None,
    workspace: WorkspaceFolder = None,
    student: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default, the selected student, else the best.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the months into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell from which month on the last run's student costs less than a remote API, and what that takes for granted.

    Prices and volume are the section cost of the params; speed is what the run measured.
    """
    from stillroom import layout
    from stillroom.cost_params import Terms
    from stillroom.files import read_json
    from stillroom.gate.evidence import read_evaluation
    from stillroom.params_file import load_params
    from stillroom.report.costs import subject, weigh
    from stillroom.report.costs_told import as_json as in_json

    place = workspace or checkout()
    if not (place / layout.SUMMARY).is_file():
        raise InputError(f"{place / layout.SUMMARY}: no result yet; run `stillroom run` first")
    given = load_params(params or place / layout.PARAMS, overrides or ()).cost
    summary = read_json(place / layout.SUMMARY)
    name = student or subject(summary)
    if name not in summary["students"]:
        raise InputError(f"--student is {name!r}; the last run had {', '.join(summary['students'])}")
    measured = _measured_hours(place, name) if given.training_hours is None else None
    terms = Terms.of(given.model_copy(update={"training_hours": measured}) if measured is not None else given)
    if terms is None:
        raise InputError(
            f"{', '.join(given.missing)}: not given; set them in params.yaml, or each with --set KEY=VALUE"
        )
    evaluation = read_evaluation(place / layout.EVALUATIONS / name)
    costs = weigh(terms, evaluation, summary["students"][name]["verdict"])
    if plot is not None:
        _draw(costs, list(summary["students"]).index(name), plot)
    if as_json:
        print(json.dumps(in_json(costs)))
    else:
        _print(costs, measured)


def _measured_hours(place: Path, student: str) -> float | None:
    """Hours that the stages of the workspace took when they last ran, or None if one that trains has no receipt."""
    from stillroom.stages.receipt import address, read_receipt

    folder = place / ".stillroom" / "receipts"
    receipts = {path.stem: read_receipt(path.stem, folder) for path in sorted(folder.glob("*.json"))}
    took = {
        stage: receipt.ended_at - receipt.started_at
        for stage, receipt in receipts.items()
        if receipt is not None and receipt.state == "finished" and receipt.ended_at is not None
    }
    if not {"teach", "capture", address("distil", student)} <= took.keys():
        return None
    return sum(took.values()) / 3600


def _draw(costs: "Costs", place: int, target: Path) -> None:
    from stillroom.files import NO_SPACE, atomic_file
    from stillroom.report.costs_plot import break_even_plot
    from stillroom.report.style import LIGHT

    if target.suffix.lower() != ".png":
        raise InputError(f"--plot is {str(target)!r}; give it a name that ends with .png")
    try:
        with atomic_file(target) as temporary:
            temporary.write_bytes(break_even_plot(costs, place, LIGHT))
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise InputError(f"--plot: {target} cannot be written ({error.strerror}); name another file") from error


def _print(costs: "Costs", measured_hours: float | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from stillroom.report import costs_told

    heading, rows = costs_told.table(costs)
    options = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # so narrow that 80 columns hold it
    for place, column in enumerate(heading):
        options.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        options.add_row(*(escape(cell) for cell in row))
    console = Console(highlight=False)
    console.print(options)
    console.print(f"in {costs.terms.currency}, all that is paid once included", style="dim")
    console.print(escape(costs_told.headline(costs)), style="bold")
    for remark in costs_told.remarks(costs):
        console.print(escape(remark))
    console.print(f"\n{costs_told.DISCLAIMER}")
    assumed = Table.grid(padding=(0, 2))
    for name, told in costs_told.assumptions(costs):
        assumed.add_row(name, escape(told))
    console.print(Padding(assumed, (0, 2)))
    if measured_hours is not None:
        console.print(
            f"The receipts of the last run tell {measured_hours:.3g} hours of training; "
            f"set cost.training_hours={measured_hours:.3g} to have the report count them too."
        )
