"""The params files under examples/: complete, pinned where they can be, and fit for local files."""

from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.sources.address import parse
from stillroom.data.sources.materialise import snapshot
from stillroom.data.splits import read_snapshot
from stillroom.params_file import load_params
from stillroom.stages import ingest, split

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
OWN = ROOT / "examples" / "own.yaml"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_their_addresses_parse(path: Path) -> None:
    params = load_params(path)
    given = {
        "data.source": params.data.source,
        "teacher.source": params.teacher.source,
        **({"data.test": params.data.test} if params.data.test else {}),
    }
    for what, uri in given.items():
        assert parse(uri, what).uri == uri
    if path == OWN:
        return
    assert params.data.sha256 is not None
    assert params.data.licence
    assert params.teacher.licence
    assert params.teacher.sha256 or parse(params.teacher.source, "teacher.source").pinned


def test_the_same_teacher_is_pinned_by_the_same_digest() -> None:
    teachers = [load_params(path).teacher for path in (ROOT / "params.yaml", *EXAMPLES)]
    wheels = [teacher for teacher in teachers if teacher.source.startswith("pypi://")]
    assert len({(teacher.source, teacher.sha256) for teacher in wheels}) == len({teacher.source for teacher in wheels})
    assert all(teacher.sha256 for teacher in wheels)


def test_the_example_for_own_rows_says_nothing_of_the_demo() -> None:
    demo, own = load_params(ROOT / "params.yaml"), load_params(OWN)
    assert own.registry.model != demo.registry.model
    assert own.registry.experiment != demo.registry.experiment
    assert (own.data.licence, own.teacher.licence, own.teacher.name, own.teacher.freeze_layers) == (None, None, None, 0)
    assert {student.family for student in own.students.values()} == {"static", "sliced"}


def test_the_example_for_own_rows_runs_on_a_table_and_a_teacher(
    rows_csv: Path, tiny_checkpoint: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(OWN, [f"data.source={rows_csv}", f"teacher.source={tiny_checkpoint}"])
    workspace = tmp_path / "workspace"
    snapshot(params, workspace)
    monkeypatch.chdir(workspace)
    ingest.run(params)
    split.run(params)
    assert set(read_snapshot(layout.SPLIT).labels) == {"access", "arrival"}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("banking77", {"train": 10_003, "validation": 0, "test": 3080}),
        ("sentences", {"train": 6920, "validation": 872, "test": 1821}),
    ],
)
def test_examples_run_on_local_files(
    name: str,
    rows: dict[str, int],
    teacher: Path,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = SHARED / {"banking77": "banking77", "sentences": "sst2"}[name]
    if not folder.is_dir():
        pytest.skip(f"{folder}: no real data sets beside this checkout")
    overrides = ["data.label=category", f"teacher.source={teacher}"]
    overrides += [f"data.source={folder / 'train.csv'}", f"data.test={folder / 'test.csv'}"]
    if rows["validation"]:
        overrides += [f"data.validation={folder / 'validation.csv'}"]
    params = load_params(ROOT / "examples" / f"{name}.yaml", overrides)
    workspace = tmp_path / "workspace"
    snapshot(params, workspace)
    monkeypatch.chdir(workspace)
    metrics = ingest.run(params)
    assert [metrics.get(f"{split}_rows", 0) for split in rows] == list(rows.values())
    split.run(params)
    manifest = read_snapshot(layout.SPLIT)
    assert sum(manifest.rows.values()) + sum(manifest.dropped.values()) == sum(rows.values())
    assert manifest.rows["test"] == rows["test"]
    assert set(manifest.label_counts["validation"]) == set(manifest.labels)
