"""Texts with any number of labels, from raw rows to the report and the package's answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from stillroom import layout
from stillroom.batching import load_tokeniser, tokenise
from stillroom.cache.explain import standing
from stillroom.cache.identity import entry_keys
from stillroom.data.splits import read_snapshot, read_split
from stillroom.errors import InputError
from stillroom.export.onnx import onnx_logits
from stillroom.export.predictions import read_probabilities
from stillroom.export.runtime import Package, read_manifest
from stillroom.files import read_json, sha256_file, write_json
from stillroom.gate.evidence import read_evidence
from tests.conftest import enter, run_stage
from tests.toys import LABELS, Workspace, several_topics, write_workspace

STUDENTS = ("static", "bilstm", "sliced", "found")
STAGES = (
    ("ingest",),
    ("split",),
    ("teach",),
    ("grow",),
    ("capture",),
    ("reference",),
    *((stage, student) for stage in ("distil", "quantise", "evaluate") for student in STUDENTS),
    ("select",),
    ("report",),
)
OVERRIDES = (
    "data.problem_type=multi_label",
    "data.source=rows.jsonl",
    "data.label=topics",
    "students.static.doubt=0.5",
    "students.static.epochs=12",
    "students.bilstm={family: bilstm, epochs: 6, hidden: 32, dimensions: 32, max_length: 32, batch_tokens: 128, "
    "objective: mse, learning_rate: 0.004}",
    "students.found={family: auto, families: [static, cnn], trials: 2, max_length: 32}",
    "growth.factor=1",
    "teacher.epochs=12",
    "gate.retention={accuracy: 0.9, macro_f1: 0.9}",
)


def write_rows(path: Path) -> None:
    texts, labels = several_topics(420, seed=3)
    rows = ({"text": text, "topics": topics} for text, topics in zip(texts, labels, strict=True))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Workspace]:
    """A workspace in which every stage ran."""
    made = write_workspace(tmp_path_factory.mktemp("several") / "workspace", tiny_checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        enter(made.path, patch)
        raw = layout.SOURCE_DATA / "train.jsonl"
        raw.parent.mkdir(parents=True)
        write_rows(raw)
        train = {"uri": "rows.jsonl", "sha256": sha256_file(raw), "file": raw.name}
        write_json(layout.SOURCE_DATA / "source.json", {"train": train})
        params = json.loads(json.dumps(made.params(*OVERRIDES).model_dump(mode="json")))
        (made.path / layout.PARAMS).write_text(json.dumps(params), encoding="utf-8")
        for stage in STAGES:
            assert run_stage(patch, *stage) == 0, stage
        yield made


def test_labels_are_indicators_of_the_sorted_names_and_no_label_is_one_too(done: Workspace) -> None:
    snapshot = read_snapshot(layout.SPLIT)
    assert (snapshot.labels, snapshot.problem_type) == (LABELS, "multi_label")
    rows = [read_split(layout.SPLIT, name) for name in ("train", "validation", "test")]
    texts, labels = several_topics(420, seed=3)
    wanted = dict(zip(texts, labels, strict=True))
    for part in rows:
        assert part.label.shape == (len(part), 3)
        found = [[LABELS[c] for c in np.flatnonzero(row)] for row in part.label]
        assert found == [wanted[text] for text in part.text]
        assert any(not names for names in found)
    assert sum(map(len, rows)) == 420


def test_teacher_and_students_learn_every_decision(done: Workspace) -> None:
    summary = read_json(layout.SUMMARY)
    assert summary["teacher"]["metrics"]["accuracy"] > 0.9
    assert summary["students"]["static"]["verdict"] == "PASS"
    for student in STUDENTS:
        assert summary["students"][student]["metrics"]["accuracy"] > 0.8


def test_a_search_asks_for_every_metric_of_the_gate(done: Workspace) -> None:
    told = read_json(layout.STUDENTS / "found/student.json")
    teacher = read_json(layout.TEACHER / "teacher.json")["metrics"]["validation"]
    assert read_json(layout.PARAMS)["students"]["found"]["retention"] == {"accuracy": 0.9, "macro_f1": 0.9}
    for trial in told["search"]:
        kept = [trial["measured"][metric] / teacher[metric] for metric in ("accuracy", "macro_f1")]
        assert trial["retention"] == pytest.approx(min(kept))
        assert bool(trial["lacks"]) == (min(kept) < 0.91)
    page = (layout.REPORT / "report.html").read_text(encoding="utf-8")
    assert "The search for found, step by step" in page


def test_figures_are_those_of_scikit_learn_on_the_packages_answers(done: Workspace) -> None:
    test = read_split(layout.SPLIT, "test")
    evidence = read_evidence(layout.EVALUATIONS / "static", test.row, test.label, 3)
    chosen = Package.load(layout.PACKAGES / "static" / "student").predict(test.text) >= 0.5
    told = evidence.evaluation
    assert told.metrics.accuracy == pytest.approx(float((chosen == test.label).all(axis=1).mean()))
    assert told.metrics.macro_f1 == pytest.approx(float(f1_score(test.label, chosen, average="macro")))
    teacher = read_probabilities(layout.REFERENCE / "predictions.parquet", "teacher", test) >= 0.5
    assert told.agreement == pytest.approx(float((chosen == teacher).all(axis=1).mean()))
    for number, name in enumerate(LABELS):
        assert told.per_class[name].f1 == pytest.approx(float(f1_score(test.label[:, number], chosen[:, number])))


def test_a_package_gives_each_label_a_probability_of_its_own(done: Workspace) -> None:
    folder = layout.PACKAGES / "bilstm" / "student"
    package, texts = Package.load(folder), read_split(layout.SPLIT, "test").text
    tokens = tokenise(load_tokeniser(folder / "tokenizer.json", 32), texts, 32)
    logits = onnx_logits(folder / "model.onnx", tokens, 1)  # each text alone: int8 takes its ranges from the batch
    alone = np.concatenate([package.predict([text]) for text in texts])
    np.testing.assert_allclose(alone, expit(logits / package.manifest["temperature"]), atol=1e-5)
    assert ((alone > 0.5).sum(axis=1) == 2).any()


def test_answers_name_the_labels_and_abstain_where_one_decision_is_unsure(done: Workspace) -> None:
    package = Package.load(layout.PACKAGES / "bilstm" / "student")
    package.manifest["temperature"] = 5.0  # of toy texts it is altogether sure
    texts = read_split(layout.SPLIT, "test").text
    probabilities = package.predict(texts)
    expected = [";".join(LABELS[c] for c in np.flatnonzero(row >= 0.5)) for row in probabilities]
    assert package.answer(texts) == expected
    sure = np.abs(probabilities - 0.5).min(axis=1) + 0.5
    streamed = list(package.stream(iter(texts)))
    assert [label for _, label, _ in streamed] == expected
    np.testing.assert_allclose([probability for _, _, probability in streamed], sure, atol=1e-6)
    between = float(np.median(sure))
    kept = [label if value >= between else "" for label, value in zip(expected, sure, strict=True)]
    assert [label for _, label, _ in package.stream(iter(texts), threshold=between)] == kept
    assert 0 < kept.count("") - expected.count("") < len(texts)


def test_the_report_tells_each_label_and_draws_no_confusion(done: Workspace) -> None:
    drawn = sorted(path.name for path in layout.REPORT.glob("*.png"))
    assert "reliability.png" in drawn
    assert not [name for name in drawn if name.startswith("confusion")]
    card = (layout.RELEASE / "static" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "gives a text any number of them" in card
    for name in LABELS:
        assert name in (layout.REPORT / "report.html").read_text(encoding="utf-8")


def test_the_python_of_a_card_gives_the_answers_of_its_package(done: Workspace) -> None:
    card = (layout.RELEASE / "static" / "MODEL_CARD.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    texts = read_split(layout.SPLIT, "test").text
    found: dict[str, Any] = {}
    code = code.replace('["a text", "another one"]', "texts").replace('"static"', repr(str(layout.RELEASE / "static")))
    exec(code, {"texts": texts}, found)
    assert found["labels"] == Package.load(layout.RELEASE / "static").answer(texts)


@pytest.mark.filterwarnings("ignore:.*type hint")
def test_a_served_model_gives_the_answers_of_its_package(done: Workspace) -> None:
    from stillroom.registry.served import PackageModel

    folder, texts = layout.PACKAGES / "static" / "student", read_split(layout.SPLIT, "test").text[:20]
    served = PackageModel()
    served.load_context(SimpleNamespace(artifacts={"package": str(folder)}))
    found = served.predict(None, pd.DataFrame({"text": texts}))
    expected = list(Package.load(folder).stream(iter(texts)))
    assert found["label"].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found["probability"], [probability for _, _, probability in expected], atol=1e-6)


def test_a_cached_answer_is_explained_with_a_probability_for_each_label(done: Workspace) -> None:
    text = read_split(layout.SPLIT, "train").text[0]
    key = entry_keys([text])
    (folder,) = (layout.state() / "cache").iterdir()
    told = standing(str(folder), key)
    assert len(told.top) == 3
    for top in told.top:
        assert top.probability == pytest.approx(expit(top.logit), abs=1e-5)


def test_a_package_that_is_read_as_one_of_single_labels_is_refused(done: Workspace, tmp_path: Path) -> None:
    source = layout.PACKAGES / "static" / "student"
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = read_json(tmp_path / "stillroom.json")
    write_json(tmp_path / "stillroom.json", manifest | {"problem_type": "single_label"})
    with pytest.raises(InputError, match="digest is"):
        read_manifest(tmp_path)
    write_json(tmp_path / "stillroom.json", manifest | {"problem_type": "several"})
    with pytest.raises(InputError, match="problem_type is 'several', which makes no sense"):
        read_manifest(tmp_path)
