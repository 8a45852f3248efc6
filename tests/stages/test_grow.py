import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillroom import layout
from stillroom.batching import load_tokeniser
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.data.grown import read_grown, write_texts
from stillroom.data.splits import read_split
from stillroom.files import file_digests
from stillroom.params_file import load_params
from stillroom.stages.receipt import read_receipt
from stillroom.student_params import StaticParams
from stillroom.students.distil import train
from stillroom.students.material import gather
from stillroom.training import Scratch
from tests.conftest import run_stage
from tests.toys import Workspace, pin_teacher, toy_rows, write_masked_checkpoint


def weights_of(variant: str) -> dict[str, torch.Tensor]:
    return load_file(layout.STUDENTS / "static" / f"{variant}.safetensors")


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def baseline_of_labelled_rows(workspace: Workspace) -> dict[str, torch.Tensor]:
    """Of a student with the vocabulary of the transfer set, trained where there is nothing else to learn from."""
    params = load_params(workspace.path / "params.yaml")
    settings = params.students["static"]
    assert isinstance(settings, StaticParams)
    rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation")}
    material = gather(
        *(layout.TEACHER, layout.CACHE, rows["train"], read_grown(layout.GROWN), rows["validation"]),
        settings,
        special_tokens=False,
        signals=("logits",),
    )
    alone = replace(material, tokens=material.tokens.first(len(rows["train"])), signals={})
    model, _ = train(alone, settings, *rows.values(), "baseline", params.seed, params.compute, Scratch("alone"))
    return model.state_dict()


def test_without_a_factor_nothing_grows(finished: Workspace) -> None:
    assert read_grown(layout.GROWN) == []
    receipt = read_receipt("grow")
    assert receipt is not None
    assert receipt.metrics == dict.fromkeys(
        ("grown_texts", "factor", "refused_texts", "drop_texts", "drop_refused"), 0.0
    )


def test_the_teacher_judges_grown_texts_and_only_the_student_hears_it(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights_of("student")
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
    assert not same(weights_of("student"), before)
    assert same(weights_of("baseline"), baseline_of_labelled_rows(own_finished))
    assert run_stage(monkeypatch, "distil", "sliced") == 0


def test_auto_stops_by_its_curve_and_capture_finds_every_answer(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stillroom.students import probe

    monkeypatch.setattr(probe, "FACTORS", (0, 1, 2))
    monkeypatch.setattr(probe, "_EPOCHS", 2)
    own_finished.override("growth.factor=auto")
    with caplog.at_level(logging.INFO, logger="stillroom"):
        assert run_stage(monkeypatch, "grow") == 0
    receipt = read_receipt("grow")
    assert receipt is not None
    grown = json.loads((layout.GROWN / "grown.json").read_text())
    curve = grown["curve"]
    assert grown["factor"] == receipt.metrics["factor"]
    assert sum(grown["kept"].values()) == len(read_grown(layout.GROWN))
    assert [step["factor"] for step in curve] == [0, 1, 2][: len(curve)]
    assert receipt.metrics["factor"] in [step["factor"] for step in curve]
    told = [record.message for record in caplog.records if "validation loss" in record.message]
    assert len(told) == len(curve)
    assert run_stage(monkeypatch, "capture") == 0
    captured = read_receipt("capture")
    assert captured is not None
    assert captured.metrics["computed"] == 0
    assert not list((layout.state() / "checkpoints").iterdir())


def add_unlabelled(workspace: Workspace, *texts: str) -> None:
    layout.INGESTED.mkdir(parents=True, exist_ok=True)
    write_texts(texts, layout.INGESTED / "unlabelled.parquet")
    workspace.override("data.unlabelled=own.csv")


def test_the_teacher_judges_unlabelled_rows_without_a_factor(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = weights_of("student")
    rows = {name: read_split(layout.SPLIT, name).text for name in ("train", "validation", "test")}
    own = toy_rows(60, seed=50, first_row=1000).text
    near = [text.upper() + "!" for text in (*rows["validation"][:2], rows["test"][0])]
    add_unlabelled(own_finished, *own, own[0] + " ", rows["train"][3], *near)
    with caplog.at_level(logging.INFO, logger="stillroom"):
        assert run_stage(monkeypatch, "grow") == 0
    assert read_grown(layout.GROWN) == own
    receipt = read_receipt("grow")
    assert receipt is not None
    assert receipt.metrics == {
        "grown_texts": 60.0,
        "refused_texts": 3.0,
        "factor": 0.0,
        "unlabelled_texts": 60.0,
        "unlabelled_refused": 3.0,
        "unlabelled_repeated": 2.0,
        "drop_texts": 0.0,
        "drop_refused": 0.0,
    }
    told = "grow: 60 texts from 120 rows and 65 unlabelled ones (unlabelled 60, drop 0); refused near held-out rows: "
    assert f"{told}unlabelled 3, drop 0" in caplog.messages
    assert run_stage(monkeypatch, "capture") == 0
    captured = read_receipt("capture")
    assert captured is not None
    assert captured.metrics["computed"] == 60.0
    assert run_stage(monkeypatch, "distil", "static") == 0
    assert not same(weights_of("student"), before)
    assert same(weights_of("baseline"), baseline_of_labelled_rows(own_finished))


@pytest.mark.parametrize(("split", "refused"), [("train", 0), ("test", 45)])
def test_unlabelled_rows_of_which_none_is_new_are_told_of(
    own_finished: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    split: str,
    refused: int,
) -> None:
    texts = read_split(layout.SPLIT, split).text
    add_unlabelled(own_finished, *texts)
    assert run_stage(monkeypatch, "grow") == 0
    assert read_grown(layout.GROWN) == []
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith(f"data.unlabelled: none of its {len(texts)} rows is new: {refused} come near")


def test_unlabelled_rows_that_were_never_ingested_are_missed(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own_finished.override("data.unlabelled=own.csv")
    assert run_stage(monkeypatch, "grow") == 2
    assert "unlabelled.parquet" in caplog.messages[-1]
    assert "run the stage ingest again" in caplog.messages[-1]


def test_masked_texts_hold_the_token_of_the_teacher_and_its_student(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_finished.override("growth.factor=4", "growth.methods=[mask, mix]")
    assert run_stage(monkeypatch, "grow") == 0
    receipt = read_receipt("grow")
    assert receipt is not None
    masked = [text for text in read_grown(layout.GROWN) if "[MASK]" in text]
    assert receipt.metrics["mask_texts"] == len(masked) > 100
    assert receipt.metrics["mix_texts"] == receipt.metrics["grown_texts"] - len(masked) > 100
    assert run_stage(monkeypatch, "capture") == 0
    assert run_stage(monkeypatch, "distil", "static") == 0
    for tokeniser in (layout.TEACHER / "tokenizer.json", layout.STUDENTS / "static" / "tokenizer.json"):
        assert "[MASK]" in load_tokeniser(tokeniser, 32).encode(masked[0]).tokens


def test_replaced_words_come_from_the_checkpoint_before_fine_tuning(
    own_finished: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_finished.override("growth.factor=1", "growth.methods=[replace]")
    assert run_stage(monkeypatch, "grow") == 2
    assert "the teacher has no masked-language head; use drop, mask or mix" in caplog.messages[-1]
    likely = [
        "courier",
        "doorstep",
        "postman",
        "invoice",
        "username",
        "browser",
        "tracking",
        "receipt",
        "twice",
        "bank",
    ]
    pin_teacher(own_finished.path, write_masked_checkpoint(tmp_path / "masked", dict.fromkeys(likely, 50.0)))
    assert run_stage(monkeypatch, "grow") == 0
    receipt = read_receipt("grow")
    assert receipt is not None
    made = read_grown(layout.GROWN)
    assert receipt.metrics["replace_texts"] == len(made) > 100
    known = {word for text in read_split(layout.SPLIT, "train").text for word in text.split()}
    assert {word for text in made for word in text.split()} <= known | set(likely)
    first = file_digests(layout.GROWN)
    assert run_stage(monkeypatch, "grow") == 0
    assert file_digests(layout.GROWN) == first


def test_the_same_seed_grows_the_same_bytes(own_finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for override in ("growth.factor=2", "growth.factor=2", "seed=9"):
        own_finished.override(override)
        assert run_stage(monkeypatch, "grow") == 0
        digests.append(file_digests(layout.GROWN))
    assert digests[0] == digests[1] != digests[2]
