from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.cuts import cut

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60)
FRACTIONS = st.sampled_from(
    [{"validation": 0.1}, {"test": 0.2}, {"validation": 0.1, "test": 0.2}, {"validation": 0.45, "test": 0.45}]
)


def texts_of(rows: list[tuple[str, int]]) -> list[str]:
    return [f"text {number} of {label} in {group}" for number, (label, group) in enumerate(rows)]


@given(ROWS, FRACTIONS, st.integers(0, 2**32 - 1))
def test_no_group_straddles_and_every_class_trains(
    rows: list[tuple[str, int]], fractions: dict[str, float], seed: int
) -> None:
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    splits = cut(texts_of(rows), labels, groups, fractions, seed)
    assert len(splits) == len(rows)
    assert set(splits) <= {"train", *fractions}
    assert all(
        len({split for split, other in zip(splits, groups, strict=True) if other == group}) == 1 for group in groups
    )
    assert {label for label, split in zip(labels, splits, strict=True) if split == "train"} == set(labels)


@given(ROWS, FRACTIONS, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_the_cut_depends_on_seed_and_content_not_on_order(
    rows: list[tuple[str, int]], fractions: dict[str, float], seed: int, random: Random
) -> None:
    texts, labels, groups = texts_of(rows), [label for label, _ in rows], [group for _, group in rows]
    splits = cut(texts, labels, groups, fractions, seed)
    assert cut(texts, labels, groups, fractions, seed) == splits
    order = list(range(len(rows)))
    random.shuffle(order)
    moved_texts, moved_labels = [texts[index] for index in order], [labels[index] for index in order]
    shuffled = cut(moved_texts, moved_labels, [groups[index] for index in order], fractions, seed)
    assert shuffled == [splits[index] for index in order]


@given(st.integers(3, 200), st.integers(0, 99))
def test_single_rows_are_cut_in_the_shares_asked_for(count: int, seed: int) -> None:
    labels = ["a"] * count + ["b"] * (2 * count)
    splits = cut(
        [f"text {n}" for n in range(3 * count)],
        labels,
        list(range(3 * count)),
        {"validation": 0.1, "test": 0.2},
        seed,
    )
    for label, total in (("a", count), ("b", 2 * count)):
        taken = Counter(split for split, other in zip(splits, labels, strict=True) if other == label)
        assert taken["validation"] == max(1, int(0.1 * total + 0.5))
        assert taken["test"] == max(1, int(0.2 * total + 0.5))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "validation": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
    ],
)
def test_small_classes_train_first_then_validate_then_test(groups: int, expected: dict[str, int]) -> None:
    texts = [f"text {number}" for number in range(groups)]
    splits = cut(texts, ["a"] * groups, list(range(groups)), {"validation": 0.1, "test": 0.2}, 0)
    assert Counter(splits) == expected


def test_another_seed_cuts_otherwise_and_validation_leaves_test_alone() -> None:
    texts, labels, groups = [f"text {n}" for n in range(200)], ["a", "b"] * 100, list(range(200))
    first = cut(texts, labels, groups, {"validation": 0.1, "test": 0.2}, 0)
    second = cut(texts, labels, groups, {"validation": 0.1, "test": 0.2}, 1)
    wider = cut(texts, labels, groups, {"validation": 0.3, "test": 0.2}, 0)
    assert first != second
    assert [split == "test" for split in first] == [split == "test" for split in wider]


def test_a_large_group_stays_in_training() -> None:
    groups = [0] * 50 + list(range(1, 51))
    splits = cut([f"text {n}" for n in range(100)], ["a"] * 100, groups, {"validation": 0.1, "test": 0.2}, 3)
    assert set(splits[:50]) == {"train"}
    assert Counter(splits)["test"] == 20


SEVERAL = st.lists(st.sets(st.sampled_from("abcd")).map(lambda names: tuple(sorted(names))), min_size=1, max_size=60)


@given(SEVERAL, FRACTIONS, st.integers(0, 99))
def test_every_label_of_rows_with_several_trains(
    labels: list[tuple[str, ...]], fractions: dict[str, float], seed: int
) -> None:
    splits = cut([f"text {number}" for number in range(len(labels))], labels, range(len(labels)), fractions, seed)
    trained = {name for names, split in zip(labels, splits, strict=True) for name in names if split == "train"}
    assert trained == {name for names in labels for name in names}


@given(st.integers(10, 80), st.integers(0, 99))
def test_a_rare_label_gets_its_share_beside_a_frequent_one(rare: int, seed: int) -> None:
    labels = [("all",)] * (4 * rare) + [("all", "rare")] * rare
    splits = cut(
        [f"text {n}" for n in range(5 * rare)], labels, range(5 * rare), {"validation": 0.1, "test": 0.2}, seed
    )
    taken = Counter(split for split, names in zip(splits, labels, strict=True) if "rare" in names)
    assert taken["validation"] == max(1, int(0.1 * rare + 0.5))
    assert taken["test"] == max(1, int(0.2 * rare + 0.5))
