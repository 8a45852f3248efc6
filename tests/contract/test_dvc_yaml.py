"""dvc.yaml ↔ code ↔ params: what can change a result is a dep of its stage."""

from pathlib import Path

import grimp
import pytest

from stillroom.params import Params
from stillroom.params_file import read_yaml
from stillroom.stages.__main__ import MATRIX, STAGES

ROOT = Path(__file__).parents[2]
DAG = read_yaml(ROOT / "dvc.yaml")["stages"]


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("stillroom", cache_dir=None)


def source(module: str) -> str:
    path = ROOT / "src" / module.replace(".", "/")
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found.relative_to(ROOT).as_posix()


def code_deps(imports: grimp.ImportGraph, stage: str) -> list[str]:
    own = f"stillroom.stages.{stage}"
    modules = {own, *imports.find_upstream_modules(own)}
    packages = {module.rsplit(".", depth)[0] for module in modules for depth in range(1, module.count("."))}
    read = {path for module in modules for path in read_by(module)}
    return sorted({source(module) for module in modules | packages} | read)


def read_by(module: str) -> list[str]:
    """Files of the package, other than modules, that a module reads: folders it names beside itself."""
    path = ROOT / source(module)
    beside = (folder for folder in path.parent.iterdir() if folder.is_dir() and not (folder / "__init__.py").exists())
    return [
        folder.relative_to(ROOT).as_posix()
        for folder in beside
        if folder.name != "__pycache__" and f'"{folder.name}"' in path.read_text(encoding="utf-8")
    ]


def test_the_dag_and_the_entry_point_know_the_same_stages() -> None:
    assert set(DAG) == set(STAGES)
    assert {name for name, stage in DAG.items() if "matrix" in stage} == set(MATRIX)


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_a_dep(imports: grimp.ImportGraph, stage: str) -> None:
    listed = [dep for dep in DAG[stage]["deps"] if dep.startswith("src/")]
    needed = code_deps(imports, stage)
    assert listed == needed, "deps of " + stage + " must be:\n" + "\n".join(f"      - {name}" for name in needed)


@pytest.mark.parametrize("stage", STAGES)
def test_the_lock_is_a_dep_of_every_stage(stage: str) -> None:
    assert "requirements.lock" in DAG[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_sections_that_it_reads(stage: str) -> None:
    text = (ROOT / "src" / "stillroom" / "stages" / f"{stage}.py").read_text()
    for section in Params.model_fields:
        reads = f"params.{section}" in text
        listed = any(name.split(".")[0] == section for name in DAG[stage].get("params", []))
        assert reads == listed, f"{stage} {'reads' if reads else 'does not read'} params.{section}"


def test_commands_carry_nothing_that_differs_between_runs() -> None:
    for name, stage in DAG.items():
        expected = f"exec python -m stillroom.stages {name}" + (" ${item.student}" if name in MATRIX else "")
        assert stage["cmd"] == expected


def test_no_result_is_left_out_of_the_cache() -> None:
    for stage in DAG.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            assert isinstance(out, str), f"{out}: an uncached out does not travel with push and pull"


def test_outs_are_ignored_by_git() -> None:
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    for stage in DAG.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            assert f"/{out.split('/')[0]}" in ignored
