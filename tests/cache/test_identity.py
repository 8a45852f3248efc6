import json
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
    entry_keys,
    fingerprint,
    fingerprint_digest,
)
from tests.toys import publish_teacher

SIGNALS = ("logits", "embedding")
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
    assert fingerprint_digest(before) != fingerprint_digest(after)
    with pytest.raises(StaleCache, match=f"captured with another {field} ") as caught:
        check_same(before, after, Path("artifacts/cache"))
    assert str(caught.value).startswith("artifacts/cache: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("precision", "signals"), [("bf16", SIGNALS), ("fp32", ("logits",))])
def test_precision_and_signals_change_the_fingerprint(teacher: Path, precision: str, signals: tuple[str, ...]) -> None:
    before, after = fingerprint(teacher, "fp32", SIGNALS), fingerprint(teacher, precision, signals)
    with pytest.raises(StaleCache, match=r"another (precision|signals)"):
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


def test_both_values_are_told_and_long_ones_shortened() -> None:
    with pytest.raises(StaleCache) as caught:
        check_same({"weights": "a" * 64, "pad": 0}, {"weights": "b" * 64, "pad": 1}, Path("cache"))
    told = str(caught.value)
    assert "a" * 37 + "…" in told
    assert "b" * 37 + "…" in told
    assert "a" * 38 not in told
    assert "another pad" not in told, "the first field that differs is named"


def test_a_field_that_an_older_cache_lacks_differs() -> None:
    with pytest.raises(StaleCache, match="another pooling"):
        check_same({"pad": 0}, {"pad": 0, "pooling": "mean"}, Path("cache"))
