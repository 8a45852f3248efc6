"""What all commands share: the checkout they are called in, and options that mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

from stillroom.errors import InputError

ParamsFile = Annotated[Path | None, typer.Option("--params", help="Params file; default, params.yaml of the checkout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, e.g. teacher.epochs=1."),
]
WorkspaceFolder = Annotated[
    Path | None, typer.Option("--workspace", help="Run in this folder instead of the checkout.")
]
RegisteredModel = Annotated[str | None, typer.Option("--registered", help="Registered model; default, params.yaml's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def checkout() -> Path:
    """The checkout that the current folder lies in: the nearest folder above with a dvc.yaml."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise InputError(f"{here}: no dvc.yaml here or above; run inside a checkout of Stillroom")
