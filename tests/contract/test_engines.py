"""What holds the two engines together: one list of stages, one room per engine, words of DVC that we read."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from stillroom.params import Params
from stillroom.params_file import load_params
from stillroom.pipeline import output, whole
from stillroom.pipeline.checkout import clone, lay_over
from stillroom.pipeline.command import call_dvc
from stillroom.pipeline.graph import parse_graph
from stillroom.stages.__main__ import MATRIX, STAGES
from stillroom.student_params import SlicedParams, StaticParams
from tests.pipeline.project import environment

ROOT = Path(__file__).parents[2]


def yaml(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as it is, in a place where DVC may leave its files."""
    made = tmp_path_factory.mktemp("engines") / "copy"
    clone(ROOT, made)
    lay_over(ROOT, made, None)
    (made / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return made


def test_dvc_resolves_the_stages_that_the_package_has(copy: Path) -> None:
    students = load_params(ROOT / "params.yaml").students
    single = {name for name in STAGES if name not in MATRIX}
    expected = single | {f"{name}@{student}" for name in MATRIX for student in students}
    graph = parse_graph(call_dvc(copy, "dag", "--dot"))
    assert set(graph.order) == expected
    assert graph.order[0] == "ingest"
    assert graph.downstream(["ingest"]) == expected - {"ingest"}


def test_there_is_no_second_list_of_stages() -> None:
    names = "|".join(STAGES)
    quoted = re.compile(rf"[\"'](?:{names})(?:@\w+)?[\"']")
    for path in sources("src/stillroom/pipeline", "flows"):
        if path.parent.name == "flows" and path.stem in ("distil", "session"):
            continue  # the flow itself is called distil
        assert not quoted.findall(path.read_text(encoding="utf-8")), path


def test_each_engine_is_known_in_one_room_only() -> None:
    for path in sources("src/stillroom"):
        assert "prefect" not in imported(path), path
        assert "dvc" not in imported(path), path
    for path in sources("flows"):
        assert not {"dvc", "mlflow"} & imported(path), path


def test_a_flow_module_can_be_imported_before_prefect_is() -> None:
    code = "import sys, flows.run, flows.form, flows.screen; sys.exit('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 0


def test_prefect_reports_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import flows, prefect.settings as s; c = s.get_current_settings(); "
        "print(c.server.analytics_enabled, c.server.ui.show_promotional_content)"
    )
    for name in (
        "DO_NOT_TRACK",
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT",
    ):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_no_params_key_drops_out_of_dvcs_run_cache_key() -> None:
    """DVC strips `size` and `nfiles` at any depth from that key (treeverse/dvc#10296)."""

    def keys(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from keys(field.annotation)

    found = {*keys(Params), *keys(StaticParams), *keys(SlicedParams)}
    assert not found & {"size", "nfiles"}


def test_the_words_of_dvc_that_whole_mode_reads_are_still_its_words() -> None:
    import dvc.repo.reproduce
    import dvc.stage
    import dvc.stage.cache
    import dvc.stage.exceptions
    import dvc.stage.run

    modules = (dvc.stage, dvc.stage.cache, dvc.stage.exceptions, dvc.stage.run, dvc.repo.reproduce)
    text = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    for words in (
        "\"Running stage '%s':\"",
        "\"Stage '%s' didn't change, skipping\"",
        "\"Stage '%s' is cached - skipping run, checking out outputs\"",
        '", exited with {status}"',
    ):
        assert words in text
    assert whole.OPENED.match("Running stage 'distil@static':")
    assert whole.SERVED.match("Stage 'distil@static' didn't change, skipping")
    assert whole.SERVED.match("Stage 'select' is cached - skipping run, checking out outputs")
    assert output.Output(lambda line: None).tail.maxlen == 40


def test_the_committed_config_names_no_machine_and_reports_to_nobody() -> None:
    told = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    assert "analytics = false" in told
    assert "check_update = false" in told
    assert "/" not in told
    assert set((ROOT / ".dvc" / ".gitignore").read_text().split()) == {"/config.local", "/tmp", "/cache"}


def test_every_deployment_names_a_flow_that_is_there() -> None:
    told = yaml("prefect.yaml")
    found = {entry["name"]: entry for entry in told["deployments"]}
    assert {"nightly", "adhoc", "promote"} <= set(found)
    assert [schedule["cron"] for schedule in found["nightly"]["schedules"]] == ["0 2 * * *"]
    assert found["nightly"]["entrypoint"] == found["adhoc"]["entrypoint"] == "flows/distil.py:distil"
    for entry in found.values():
        path, function = entry["entrypoint"].split(":")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert entry["work_pool"]["name"] == "stillroom"
    assert "/home" not in (ROOT / "prefect.yaml").read_text()


def test_clones_start_clean_after_a_run() -> None:
    """DVC adds to .gitignore what git does not ignore yet: every out is there, without an end slash."""
    outs = [out for stage in yaml("dvc.yaml")["stages"].values() for out in stage.get("outs", [])]
    metrics = [out for stage in yaml("dvc.yaml")["stages"].values() for out in stage.get("metrics", [])]
    paths = [out.replace("${item.student}", "any") for out in (*outs, *metrics)] + ["sources/data"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert sorted(done.stdout.split()) == sorted(paths)
