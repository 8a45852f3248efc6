from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.data.duplicates import near_groups, reappearing
from stillroom.data.examples import Examples, Splits
from stillroom.data.folding import folded
from stillroom.data.splitting import split_examples
from stillroom.errors import InputError
from stillroom.params import DataParams

DATA = DataParams(source="rows.csv")
WORDS = ["card", "app", "lost", "Card", "new", "?"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from("ab")), min_size=1, max_size=30)


def numbered(**rows: list[tuple[str, str]]) -> dict[str, Examples]:
    given, first = {}, 0
    for split, pairs in rows.items():
        ids = list(range(first, first + len(pairs)))
        given[split] = Examples(ids, [text for text, _ in pairs], [label for _, label in pairs])
        first += len(pairs)
    return given


def plain(count: int, label: str, prefix: str = "") -> list[tuple[str, str]]:
    return [(f"{prefix}{label} sentence about subject {n} of {label}{n}", label) for n in range(count)]


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Examples]:
    files = {"train": draw(ROWS)}
    for split in ("validation", "test"):
        if draw(st.booleans()):
            files[split] = draw(ROWS)
    return numbered(**files)


def attempt(given: dict[str, Examples], seed: int) -> Splits | None:
    try:
        return split_examples(given, DATA, seed)
    except InputError:
        return None


@settings(max_examples=150)
@given(inputs(), st.integers(0, 2**32 - 1))
def test_rows_are_kept_or_counted_and_no_text_leaks(files: dict[str, Examples], seed: int) -> None:
    splits = attempt(files, seed)
    if splits is None:
        return
    kept = {split: set(rows.row) for split, rows in splits.examples.items()}
    total = sum(len(rows) for rows in files.values())
    assert sum(len(rows) for rows in kept.values()) + sum(splits.dropped.values()) == total
    assert len(set.union(*kept.values())) == sum(len(rows) for rows in kept.values())
    for split in ("test",):
        if split in files:
            assert splits.examples[split] == files[split]
    train, test, validation = (splits.examples[split].text for split in ("train", "test", "validation"))
    assert not reappearing(train, [*test, *validation], DATA.near_duplicate).any()
    assert not reappearing(validation, test, DATA.near_duplicate).any()
    assert len({folded(text) for text in train}) == len(train)
    assert set(splits.examples["train"].label) == set(files["train"].label)
    if "validation" not in files:
        together = [*train, *validation]
        groups = near_groups(together, DATA.near_duplicate)
        assert not set(groups[: len(train)]) & set(groups[len(train) :])


@given(inputs(), st.integers(0, 2**32 - 1))
def test_the_same_input_and_seed_give_the_same_splits(files: dict[str, Examples], seed: int) -> None:
    assert attempt(files, seed) == attempt(files, seed)


def test_rows_of_train_that_reappear_in_test_are_dropped_from_train() -> None:
    test = [*plain(2, "a"), ("Does the  bank lend money to me?", "b")]
    train = [
        *plain(6, "a", "other "), *plain(5, "b", "other "),
        test[0], ("does the bank lend money to me", "b"), ("Does the bank lend money to me?", "a"),
    ]  # fmt: skip
    splits = split_examples(numbered(train=train, test=test), DATA, 0)
    assert splits.dropped == {
        "train_rows_in_test": 2,
        "train_rows_near_test": 1,
        "exact_duplicates": 0,
        "conflicting_labels": 0,
    }
    assert splits.examples["test"].text == [text for text, _ in test]
    assert any("1 of the rows that reappear in test have another label there" in found for found in splits.findings)


def test_rows_of_a_given_validation_file_leave_train_and_those_of_test_leave_both() -> None:
    validation = plain(4, "a") + plain(4, "b")
    test = plain(1, "a") + plain(2, "b", "fresh ")
    train = plain(8, "a") + plain(8, "b")
    splits = split_examples(numbered(train=train, validation=validation, test=test), DATA, 0)
    assert splits.dropped["validation_rows_in_test"] == 1
    assert splits.dropped["train_rows_in_test"] == 1
    assert splits.dropped["train_rows_in_validation"] == 7
    assert Counter(splits.examples["validation"].label) == {"a": 3, "b": 4}


def test_conflicting_copies_keep_the_majority_or_none() -> None:
    train = [
        *plain(5, "a"), *plain(5, "b"),
        ("what is this", "a"), ("what  is this", "b"), ("what is this", "b"),
        ("and what of that", "a"), ("and what of that", "b"),
    ]  # fmt: skip
    splits = split_examples(numbered(train=train), DATA, 0)
    assert (splits.dropped["exact_duplicates"], splits.dropped["conflicting_labels"]) == (2, 2)
    pairs = [pair for rows in splits.examples.values() for pair in zip(rows.text, rows.label, strict=True)]
    assert [pair for pair in pairs if "what" in pair[0]] == [("what  is this", "b")]
    assert any("2 texts have conflicting labels, such as 'what is this'" in found for found in splits.findings)


def test_a_class_that_loses_every_row_is_refused_by_name() -> None:
    train = plain(4, "a") + plain(2, "b")
    with pytest.raises(InputError, match="class 'b' keeps none of its 2 training rows"):
        split_examples(numbered(train=train, test=plain(2, "b")), DATA, 0)


def test_nothing_to_cut_is_refused() -> None:
    train = [
        ("One thing only", "a"),
        ("one thing only!", "a"),
        ("Two things then", "b"),
        ("two things then?", "b"),
    ]
    with pytest.raises(InputError, match="no validation rows can be cut: the classes have too few different texts"):
        split_examples(numbered(train=train), DATA, 0)


def test_a_validation_file_inside_the_test_file_is_refused() -> None:
    with pytest.raises(InputError, match="no validation row is left"):
        split_examples(
            numbered(train=plain(5, "a", "x ") + plain(5, "b", "x "), validation=plain(1, "a"), test=plain(2, "a")),
            DATA,
            0,
        )


def test_classes_without_validation_rows_are_a_finding() -> None:
    train = [*plain(9, "a"), ("the one and only", "b"), ("The one and only!", "b")]
    splits = split_examples(numbered(train=train, test=plain(2, "a", "fresh ")), DATA, 0)
    assert "validation: 1 of the classes have no row in it: 'b'" in splits.findings
