import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.cache.identity import (
    StaleCache,
    canonical,
    check_same,
    differences,
    entry_keys,
    fingerprint,
    folder_name,
    parse_key,
)
from stillroom.errors import InputError
from tests.toys import publish_teacher

SIGNALS = {"embedding": "fp16/1", "logits": "fp16/1"}
any_text = st.text(max_size=8)
examples = any_text | st.lists(any_text, min_size=2, max_size=3)


@given(one=examples, other=examples)
def test_examples_share_a_key_only_if_they_are_equal(one: str | list[str], other: str | list[str]) -> None:
    same = np.array_equal(entry_keys([one]), entry_keys([other]))
    assert same == (one == other) == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text", "text "),
        ("text", "Text"),
        ("é", "e\u0301"),
        (["a", "b"], ["b", "a"]),
        (["a", "b"], "a b"),
        (["a", 'b","c'], ["a", "b", "c"]),
        ("\ud800", "?"),
        ("a\n", "a\r\n"),
    ],
)
def test_what_looks_alike_has_keys_of_its_own(one: str | list[str], other: str | list[str]) -> None:
    assert entry_keys([one]).tolist() != entry_keys([other]).tolist()


@given(texts=st.lists(any_text, max_size=6), shuffled=st.randoms())
def test_a_key_depends_on_content_and_not_on_place(texts: list[str], shuffled: Any) -> None:
    order = list(range(len(texts)))
    shuffled.shuffle(order)
    keys = entry_keys(texts)
    assert keys.shape == (len(texts), 16)
    np.testing.assert_array_equal(entry_keys([texts[place] for place in order]), keys[order])


def test_a_key_stays_what_it_is_for_ever() -> None:
    assert entry_keys(["a teacher's answer, é"]).tobytes().hex() == "ea0f23e291ec7294cf472bdb2d6dc348"


def append(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b" ")


def describe(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "teacher.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.fixture
def own_teacher(teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher, tmp_path / "own"))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("weights", append("model.safetensors")),
        ("config", append("config.json")),
        ("tokeniser", append("tokenizer.json")),
        ("labels", describe(labels=["login", "delivery", "refund"])),
        ("max_length", describe(max_length=31)),
        ("pooling", describe(pooling="cls")),
        ("pad", describe(pad=1)),
    ],
)
def test_what_shapes_an_answer_changes_the_fingerprint_and_is_named(
    own_teacher: Path, field: str, change: Callable[[Path], None]
) -> None:
    before = fingerprint(own_teacher, "fp32", SIGNALS)
    change(own_teacher)
    after = fingerprint(own_teacher, "fp32", SIGNALS)
    assert {name for name in before if before[name] != after[name]} == {field}
    assert folder_name(before) != folder_name(after)
    with pytest.raises(StaleCache, match=f"holds the answers of another teacher: {field} differs – ") as caught:
        check_same(before, after, Path("artifacts/cache"))
    assert str(caught.value).startswith("artifacts/cache: ")
    assert str(caught.value).count(" differs") == 1
    assert "does not know" not in str(caught.value), "every field is told in words of its own"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "signals", "field"),
    [
        ("bf16", SIGNALS, "precision"),
        ("fp32", {"logits": "fp16/1"}, "signals"),
        ("fp32", SIGNALS | {"embedding": "int8/1"}, "signals"),
        ("fp32", SIGNALS | {"embedding": "fp16/2"}, "signals"),
    ],
)
def test_precision_signals_and_codecs_change_the_fingerprint(
    teacher: Path, precision: str, signals: dict[str, str], field: str
) -> None:
    before, after = fingerprint(teacher, "fp32", SIGNALS), fingerprint(teacher, precision, signals)
    with pytest.raises(StaleCache, match=f"another teacher: {field} differs – "):
        check_same(before, after, Path("cache"))


def test_what_only_describes_a_teacher_does_not_change_the_fingerprint(own_teacher: Path) -> None:
    before = fingerprint(own_teacher, "fp32", SIGNALS)
    describe(name="renamed", temperature=3.0, metrics={}, tokens_per_second=5.0, precision="bf16")(own_teacher)
    (own_teacher / "notes.txt").write_text("no part of the teacher")
    assert fingerprint(own_teacher, "fp32", SIGNALS) == before
    check_same(before, fingerprint(own_teacher, "fp32", SIGNALS), Path("cache"))


def test_a_teacher_published_again_from_the_same_weights_is_the_same(
    teacher: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    again = publish_teacher(tmp_path / "again", tiny_checkpoint)
    other = publish_teacher(tmp_path / "other", tiny_checkpoint, seed=1)
    assert fingerprint(again, "fp32", SIGNALS) == fingerprint(teacher, "fp32", SIGNALS)
    assert fingerprint(other, "fp32", SIGNALS)["weights"] != fingerprint(teacher, "fp32", SIGNALS)["weights"]


def test_folders_are_named_by_the_fingerprint() -> None:
    fields = {"weights": "w", "precision": "fp32", "signals": {"logits": "fp16/1", "embedding": "fp16/1"}}
    name = folder_name(fields)
    assert re.fullmatch("[0-9a-f]{32}", name)
    turned = {**dict(reversed(fields.items())), "signals": {"embedding": "fp16/1", "logits": "fp16/1"}}
    assert folder_name(turned) == name
    assert folder_name(fields | {"precision": "bf16"}) != name


def test_every_difference_is_told_with_both_values_and_long_ones_shortened() -> None:
    with pytest.raises(StaleCache) as caught:
        check_same(
            {"weights": {"model.safetensors": "a" * 64}, "pad": 0, "labels": ["x" * 50, "y" * 50]},
            {"weights": {"model.safetensors": "b" * 64}, "pad": 1, "labels": ["x" * 50]},
            Path("cache"),
        )
    told = str(caught.value)
    assert f"(model.safetensors {'a' * 12} there, model.safetensors {'b' * 12} here)" in told
    assert "a" * 13 not in told
    assert "pad differs – the padding token (0 there, 1 here)" in told
    assert f"({'x' * 50}, {'y' * 5}… there, {'x' * 50} here)" in told
    assert told.count(" differs – ") == 3


def test_equal_fingerprints_differ_in_nothing() -> None:
    fields = {"pad": 0, "signals": SIGNALS}
    assert differences(fields, {"signals": dict(reversed(SIGNALS.items())), "pad": 0}) == []


def test_fields_that_only_one_version_knows_differ() -> None:
    assert differences({"pad": 0}, {"pad": 0, "pooling": "mean"}) == [
        "pooling differs – how hidden states become one vector (None there, mean here)"
    ]
    told = differences({"pad": 0, "odour": "oak"}, {"pad": 1})
    assert [one.partition(" ")[0] for one in told] == ["pad", "odour"]
    assert told[1] == "odour differs – a field that this version does not know (oak there, None here)"


@given(text=any_text)
def test_a_key_is_read_as_people_write_it(text: str) -> None:
    keys = entry_keys([text])
    for written in (keys.tobytes().hex(), keys.tobytes().hex().upper()):
        np.testing.assert_array_equal(parse_key(written), keys)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 34, "0" * 64, "g" * 32, "a teacher's answer"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no key of an entry; write its 32 hexadecimal digits"):
        parse_key(text)
