"""The params files under examples/: complete, pinned where they can be, and fit for local files."""

from pathlib import Path

import pytest

from stillroom import layout
from stillroom.data.sources import snapshot
from stillroom.data.sources.address import parse
from stillroom.data.splits import read_snapshot
from stillroom.params import load_params
from stillroom.stages import ingest, split

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_their_addresses_parse(path: Path) -> None:
    params = load_params(path)
    given = {
        "data.source": params.data.source,
        "data.test": params.data.test,
        "teacher.source": params.teacher.source,
    }
    for what, uri in given.items():
        assert uri is not None
        assert parse(uri, what).uri == uri
    assert params.data.sha256 is not None
    assert params.data.licence
    assert params.teacher.licence


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
    overrides = [
        "data.label=category",
        f"teacher.source={teacher}",
        "data.sha256=null",
        "data.test_sha256=null",
    ]
    overrides += [f"data.source={folder / 'train.csv'}", f"data.test={folder / 'test.csv'}"]
    if rows["validation"]:
        overrides += [f"data.validation={folder / 'validation.csv'}", "data.validation_sha256=null"]
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
