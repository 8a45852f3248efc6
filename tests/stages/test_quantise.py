import logging

import numpy as np
import pytest
import torch

from stillroom import layout
from stillroom.cache.manifest import FIRST
from stillroom.cores import available_cores
from stillroom.data.splits import read_snapshot, read_split
from stillroom.export.runtime import Package, read_manifest
from stillroom.files import file_digests, sha256_file, tree_digest
from stillroom.stages.receipt import read_receipt
from stillroom.students.distil import load_student
from tests.conftest import run_stage
from tests.toys import LABELS, Workspace

STUDENTS = ("static", "sliced")


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("variant", ["student", "baseline"])
def test_a_package_answers_as_the_student_it_was_made_of(finished: Workspace, name: str, variant: str) -> None:
    package = Package.load(layout.PACKAGES / name / variant)
    module, description = load_student(layout.STUDENTS / name, variant)
    assert package.labels == tuple(description["labels"]) == LABELS
    assert package.manifest["params"] == description["params"]
    assert package.manifest["name"] == (name if variant == "student" else f"{name}-baseline")
    test = read_split(layout.SPLIT, "test")
    found = package.predict(test.text)
    with torch.inference_mode():
        ids = [package.tokeniser.encode(text).ids for text in test.text]
        logits = torch.cat([module(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)) for row in ids])
    expected = torch.softmax(logits / package.manifest["temperature"], dim=1).numpy()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
    if package.manifest["quantisation"] == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_package_tells_where_it_comes_from(finished: Workspace, name: str) -> None:
    manifest = Package.load(layout.PACKAGES / name / "student").manifest
    lineage = manifest["lineage"]
    assert lineage.keys() == {"data", "teacher", "cache", "code", "student", "lock"}
    assert lineage["data"] == read_snapshot(layout.SPLIT).sha256
    assert lineage["teacher"] == sha256_file(layout.TEACHER / "model.safetensors")
    assert lineage["cache"] == sha256_file(layout.CACHE / FIRST)
    assert lineage["student"] == tree_digest(layout.STUDENTS / name)
    assert lineage["lock"] == sha256_file(layout.LOCK)
    assert 1 <= manifest["threads"] <= available_cores()
    assert manifest["rungs"][-1]["rung"] == manifest["quantisation"]
    assert manifest["rungs"][-1]["ok"]


@pytest.mark.parametrize("name", STUDENTS)
def test_the_receipt_tells_what_quantising_cost(finished: Workspace, name: str) -> None:
    receipt = read_receipt(f"quantise@{name}")
    assert receipt is not None
    for variant in ("student", "baseline"):
        last = Package.load(layout.PACKAGES / name / variant).manifest["rungs"][-1]
        for figure in ("accuracy", "drop", "size_bytes"):
            assert receipt.metrics[f"{variant}_{figure}"] == last[figure]


def test_nothing_but_packages_is_left(finished: Workspace) -> None:
    for name in STUDENTS:
        assert {path.name for path in (layout.PACKAGES / name).iterdir()} == {"student", "baseline"}
        for variant in ("student", "baseline"):
            names = {path.name for path in (layout.PACKAGES / name / variant).iterdir()}
            assert names == {"model.onnx", "tokenizer.json", "stillroom.json"}


def test_the_same_student_gives_the_same_package_but_for_what_the_clock_says(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[object]:
        told = []
        for variant in ("student", "baseline"):
            manifest = dict(read_manifest(layout.PACKAGES / "static" / variant))
            assert manifest.pop("threads") > 0
            for rung in (manifest["fp32"], *manifest["rungs"]):
                assert rung.pop("latency_ms") > 0
            told.append(manifest)
        return told

    before = found()
    assert run_stage(monkeypatch, "quantise", "static") == 0
    assert found() == before


def test_only_the_rungs_of_the_params_are_tried(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    own_finished.override("quantise.rungs=[fp32]")
    assert run_stage(monkeypatch, "quantise", "static") == 0
    manifest = Package.load(layout.PACKAGES / "static" / "student").manifest
    assert [rung["rung"] for rung in manifest["rungs"]] == ["fp32"]


def test_a_parity_that_is_missed_leaves_the_old_packages(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = file_digests(layout.PACKAGES / "static")
    own_finished.override("quantise.parity_tolerance=1e-12")
    assert run_stage(monkeypatch, "quantise", "static") == 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "quantise.parity_tolerance" in line
    assert file_digests(layout.PACKAGES / "static") == before
    assert {path.name for path in layout.PACKAGES.iterdir()} == set(STUDENTS)
