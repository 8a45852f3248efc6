import numpy as np
import pytest

from stillroom import layout
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.data.grown import read_grown
from stillroom.data.splits import read_split
from stillroom.files import file_digests
from stillroom.stages.receipt import read_receipt
from tests.conftest import run_stage
from tests.toys import Workspace


def weights_of(variant: str) -> str:
    return file_digests(layout.STUDENTS / "static")[f"{variant}.safetensors"]


def test_without_a_factor_nothing_grows(finished: Workspace) -> None:
    assert read_grown(layout.GROWN) == []
    receipt = read_receipt("grow")
    assert receipt is not None
    assert receipt.metrics == {"grown_texts": 0.0, "refused_texts": 0.0}


def test_the_teacher_judges_grown_texts_and_only_the_student_hears_it(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {variant: weights_of(variant) for variant in ("student", "baseline")}
    own_finished.override("growth.factor=2")
    assert run_stage(monkeypatch, "grow") == 0
    grown = read_grown(layout.GROWN)
    receipt = read_receipt("grow")
    assert receipt is not None
    assert receipt.metrics["grown_texts"] == len(grown) > 100
    assert run_stage(monkeypatch, "distil", "static") == 2, "the cache has no answer for them yet"
    assert run_stage(monkeypatch, "capture") == 0
    captured = read_receipt("capture")
    assert captured is not None
    assert captured.metrics["computed"] == len(grown), "the training rows had their answers already"
    texts = [*read_split(layout.SPLIT, "train").text, *grown]
    assert (np.sort(Reader.open(layout.CACHE).find(entry_keys(texts))) == np.arange(len(texts))).all()
    assert run_stage(monkeypatch, "distil", "static") == 0
    assert weights_of("student") != before["student"]
    assert weights_of("baseline") == before["baseline"]
    assert run_stage(monkeypatch, "distil", "sliced") == 0


def test_the_same_seed_grows_the_same_bytes(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for override in ("growth.factor=2", "growth.factor=2", "seed=9"):
        own_finished.override(override)
        assert run_stage(monkeypatch, "grow") == 0
        digests.append(file_digests(layout.GROWN))
    assert digests[0] == digests[1] != digests[2]
