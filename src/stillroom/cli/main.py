"""The `stillroom` command. Everything heavy is imported by the command that needs it."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stillroom.cli import cache, gate, registry
from stillroom.cli.cost import cost
from stillroom.cli.options import AsJson, Overrides, ParamsFile, RegisteredModel, WorkspaceFolder, checkout
from stillroom.errors import InputError, StillroomError, TryAgain
from stillroom.files import NO_SPACE

app = typer.Typer(
    name="stillroom",
    help="Distil a large teacher into a small, quantised student that is proven to keep its quality.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(cache.app)
app.add_typer(gate.app)
app.add_typer(registry.app)
app.command()(cost)


def run_cli() -> int:
    """Run the command line and return an exit code; a foreseen error is one line on stderr."""
    try:
        result = app(standalone_mode=False)
        print(end="", flush=True)  # what the buffer still holds fails here, not when Python ends
    except StillroomError as error:
        return _told(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        _give_up_output()
        return 0
    except SystemExit as error:  # what typer makes of a broken pipe
        if isinstance(error.__context__, BrokenPipeError):
            return 0
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        _give_up_output()
        where = f"{error.filename}: " if error.filename else ""
        return _told(TryAgain(f"{where}{error.strerror}; free some space and run again"))
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own usage errors
            error.show()
            return 2
        raise
    return int(result) if isinstance(result, int) else 0


def _give_up_output() -> None:
    """What stdout still holds can't be written; keep Python from trying again at its end."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (nothing to close)


def _told(error: StillroomError) -> int:
    print(f"stillroom: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"  {note}", file=sys.stderr)
    return error.exit_code


@app.command()
def run(
    params: ParamsFile = None,
    overrides: Overrides = None,
    workspace: WorkspaceFolder = None,
    whole: Annotated[bool, typer.Option("--whole", help="One `dvc repro` instead of a DVC call per stage.")] = False,
) -> None:
    """Bring every stage up to date, gate the students, register them and crown the winner.

    Exit codes: 0 a student passed, 2 wrong input, 3 no student passed, 65 training diverged, 75 try again later.
    """
    root = checkout()
    flow: Any = _flow_module(root, "flows.run")
    result = flow.run_once(
        params.absolute() if params else None,
        overrides or (),
        workspace.absolute() if workspace else None,
        "whole" if whole else "per-stage",
        root=root,
    )
    if result.error is not None:
        for note in result.notes:
            print(f"  {note}", file=sys.stderr)
        print(f"stillroom: {result.error}", file=sys.stderr)
    if result.result is not None:
        _print_result(result.workspace, result.result)
    raise typer.Exit(result.exit_code)


def _flow_module(root: Path, name: str) -> Any:
    sys.path.insert(0, str(root))
    return importlib.import_module(name)


def _print_result(workspace: Path, result: dict[str, Any]) -> None:
    from stillroom import layout

    _print_table(workspace)
    recorded = result.get("recorded") or {}
    where = {
        "report": workspace / (layout.CHANGE_PAGE if recorded.get("change") else layout.REPORT / layout.PAGE),
        "packages": workspace / layout.RELEASE,
        "summary": workspace / layout.SUMMARY,
    }
    model = recorded.get("model")
    for name, path in where.items():
        print(f"{name:12s} {_relative(path)}")
    if model:
        champion = recorded.get("champion")
        print(f"{'registry':12s} {model}: champion is version {champion or '– (none)'}; see them with `stillroom ui`")
    if recorded.get("change"):
        print(f"{'change':12s} since the champion before: {recorded['change']}")
    if recorded.get("waits"):
        print(f"{'approval':12s} {recorded['waits']}")
    if result["selected"]:
        package = _relative(workspace / layout.RELEASE / result["selected"])
        print(f"{'try it':12s} stillroom predict --package {package} 'a text of yours'")


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_table(workspace: Path) -> None:
    from rich.console import Console

    from stillroom import layout
    from stillroom.files import read_json
    from stillroom.report.table import headline, rich_table

    summary = read_json(workspace / layout.SUMMARY)
    console = Console()
    console.print(rich_table(summary))
    console.print(headline(summary), highlight=False)


@app.command()
def plan(
    params: ParamsFile = None,
    overrides: Overrides = None,
    workspace: WorkspaceFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do, and why, before it does anything."""
    from stillroom import layout
    from stillroom.params_file import load_params
    from stillroom.pipeline.plan import make_plan
    from stillroom.pipeline.workspace import open_workspace

    root = checkout()
    values = load_params(params or root / layout.PARAMS, overrides or ())
    with open_workspace(root, values, workspace.absolute() if workspace else None) as place:
        stages = make_plan(place.path).stages
    if as_json:
        rows = [{"stage": s.address, "status": s.status, "reasons": list(s.reasons)} for s in stages]
        print(json.dumps({"stages": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "status", "why", header_style="bold")
    for stage in stages:
        table.add_row(stage.address, stage.status, "; ".join(stage.reasons))
    Console().print(table)


@app.command()
def report(workspace: WorkspaceFolder = None, as_json: AsJson = False) -> None:
    """Show the result of the last run."""
    from stillroom import layout
    from stillroom.files import read_json

    place = workspace or checkout()
    if not (place / layout.SUMMARY).is_file():
        raise InputError(f"{place / layout.SUMMARY}: no result yet; run `stillroom run` first")
    if as_json:
        print(json.dumps(read_json(place / layout.SUMMARY)))
    else:
        _print_table(place)


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to label.")] = None,
    package: Annotated[Path | None, typer.Option(help="A package folder.")] = None,
    model: Annotated[str | None, typer.Option(help="champion, challenger or a version number.")] = None,
    registered: RegisteredModel = None,
    source: Annotated[Path | None, typer.Option("--input", help="CSV file with a column of texts.")] = None,
    column: Annotated[str, typer.Option(help="The column of --input that holds the texts.")] = "text",
    target: Annotated[Path | None, typer.Option("--output", help="CSV file to write: text,label,probability.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--abstain-below", help="Leave the label empty below this probability.")
    ] = None,
) -> None:
    """Label texts, or the rows of a file, with a package or a registered version."""
    if (package is None) == (model is None):
        raise InputError("predict: give either --package FOLDER or --model champion")
    if bool(texts) == (source is not None):
        raise InputError("predict: give either texts or --input FILE.csv")
    if target is not None and source is None:
        raise InputError("predict: --output goes with --input FILE.csv")
    for text in texts or ():
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise InputError(f"predict: the text {text!r} is not UTF-8; give it as UTF-8, or in a file by --input")
    from stillroom.export.abstention import Abstention
    from stillroom.export.runtime import Package, checked_threshold
    from stillroom.export.table import predict_file
    from stillroom.problem import least_confidence

    if threshold is not None:
        checked_threshold(threshold, "predict: --abstain-below")
    loaded = Package.load(package if package is not None else _registered_package(model or "", registered))
    abstention = Abstention(threshold or 0.0, least_confidence(loaded.problem_type, len(loaded.labels)))

    def answers(read: Iterator[str]) -> Iterator[tuple[str, str, float]]:
        return abstention.watch(loaded.stream(read, threshold))

    if source is not None:
        predict_file(answers, source, target, column)
    else:
        for text, label, probability in answers(iter(texts or ())):
            print(f"{label}\t{probability:.4f}\t{text}")
    if threshold is not None and (warning := abstention.warning()):
        print(f"stillroom: predict: --abstain-below {warning}", file=sys.stderr)


def _registered_package(version: str, name: str | None) -> Path:
    from stillroom.registry.champion import champion_package

    return champion_package(registry.model_name(name), version)


@app.command()
def source(
    params: ParamsFile = None,
    overrides: Overrides = None,
    of: Annotated[
        str | None, typer.Option("--of", metavar="ADDRESS", help="Fetch this alone, print its digest.")
    ] = None,
) -> None:
    """Fetch, check and version the raw data, and pin the teacher, so that `dvc repro` can run."""
    from stillroom import layout
    from stillroom.data.sources.fetching import digest_of
    from stillroom.files import read_json
    from stillroom.params_file import load_params
    from stillroom.pipeline.versioning import version_data
    from stillroom.pipeline.workspace import open_workspace

    root = checkout()
    if of is not None:
        os.environ.setdefault(layout.STATE_VARIABLE, str(root / ".stillroom"))
        print(digest_of(of, "--of"))
        return
    values = load_params(params or root / layout.PARAMS, overrides or ())
    with open_workspace(root, values, None) as place, place.as_environment():
        version_data(place)
        data = read_json(place.path / layout.SOURCE_DATA / "source.json")
        teacher = read_json(place.path / layout.SOURCE_TEACHER)
    for name in ("train", "validation", "test", "unlabelled", "cases"):
        if data.get(name):
            print(f"{name:12s} {data[name]['sha256']}  {data[name]['uri']}")
    print(f"{'teacher':12s} {teacher['sha256']}  {teacher['uri']}")


@app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml, for editors."""
    from stillroom.params import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check versions, blocked versions, write access, disk, stores and what the processor can do."""
    from dataclasses import asdict

    from stillroom.doctor import check

    findings = check()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        from rich.console import Console
        from rich.table import Table

        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        table = Table("", "what", "found", "what to do", header_style="bold")
        for finding in findings:
            shown = f"[{colours[finding.status]}]{finding.status}[/]"
            table.add_row(shown, finding.name, finding.detail, finding.remedy)
        Console().print(table)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(InputError.exit_code)


@app.command()
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's page.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's page.")] = 4200,
    password: Annotated[bool, typer.Option(help="Ask for a password.")] = True,
) -> None:
    """Open the pages of MLflow and Prefect on this machine's loopback, until Ctrl-C."""
    from stillroom import layout
    from stillroom.ui import Interfaces, serve

    os.environ.setdefault(layout.STATE_VARIABLE, str(checkout() / ".stillroom"))

    def ready(interfaces: Interfaces) -> None:
        for name, value in vars(interfaces).items():
            print(f"{name:12s} {value}", flush=True)

    serve(ready, mlflow_port=mlflow_port, prefect_port=prefect_port, password=password)
