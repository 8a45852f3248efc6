"""Docs ↔ code: every command they show is one that exists, and the schema is the code's."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from stillroom.cli.main import app
from stillroom.cost_params import CostParams
from stillroom.governance.rules import load
from stillroom.governance_params import GovernanceParams
from stillroom.params import json_schema

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"```(?:bash|console)\n(.*?)```", re.DOTALL)


def commands(page: Path) -> list[str]:
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


SHOWN = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_a_shown_command_exists(page: str, command: str) -> None:
    words = shlex.split(command.split("#")[0])
    if words[0] == "make":
        assert set(words[1:]) <= make_targets(), f"{page}: {command}"
    elif words[0] == "stillroom":
        chosen: Any = typer.main.get_command(app)
        context, rest = chosen.context_class(chosen, info_name="stillroom"), words[1:]
        while hasattr(chosen, "commands"):
            name, chosen, rest = chosen.resolve_command(context, rest)
            assert chosen is not None, f"{page}: {command}"
            context = chosen.make_context(name, list(rest), parent=context)
    elif words[:2] == ["python", "-m"] or words[0] == "python":
        target = words[1] if words[1] != "-m" else words[2]
        known = (ROOT / target).is_file() or (ROOT / "src" / target.replace(".", "/")).is_dir()
        assert known, f"{page}: {command}"
    else:
        assert words[0] in {"source", "export", "dvc", "prefect", "git", "cd", "mlflow", "pip"}, f"{page}: {command}"


def test_the_readme_opens_with_the_two_commands() -> None:
    shown = [command.partition("#")[0].strip() for page, command in SHOWN if page == "README.md"]
    assert [command for command in shown if command.startswith("make")][:2] == ["make demo", "make test"]


def test_every_command_of_the_cli_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"`stillroom {name}`" in page
        for inner in getattr(command, "commands", ()):
            assert f"`{inner}" in page.partition(f"## `stillroom {name}`")[2]


def test_rules_and_keys_of_governance_are_described_as_they_are() -> None:
    page = (ROOT / "docs" / "reference" / "governance.md").read_text(encoding="utf-8")
    told = page.partition("## Rules")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (\w+) \| .+ \|$", told, re.MULTILINE)
    assert rows == [
        (
            rule.name,
            "; ".join(f"`{fact}` {' or '.join(words)}" for fact, words in rule.when.facts.items()),
            "always" if rule.always else rule.severity,
        )
        for rule in load().rules
    ]
    keys = page.partition("## What is declared")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", keys, re.MULTILINE) == list(GovernanceParams.model_fields)


def test_keys_of_costs_are_described_with_their_defaults() -> None:
    page = (ROOT / "docs" / "reference" / "cost.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", page.partition("## What is given")[2], re.MULTILINE)
    defaults = CostParams().model_dump()
    assert [key for key, _ in rows] == list(defaults)
    for key, told in rows:
        value = None if told == "–" else told if isinstance(defaults[key], str) else json.loads(told)
        assert value == defaults[key], key


def test_the_schema_on_disk_is_the_code_s() -> None:
    assert json.loads((ROOT / "docs" / "params.schema.json").read_text()) == json_schema(), "run `make schema`"


def test_links_inside_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_names_a_path_of_one_machine() -> None:
    for page in [*PAGES, *(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.*")]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/root/|/home/[a-z]|/work/", text), page
