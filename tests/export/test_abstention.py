"""A threshold that withholds everything, or can withhold nothing, is told; any other is not."""

from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.export.abstention import Abstention
from stillroom.export.runtime import Package
from tests.toys import toy_rows

TEXTS = [*toy_rows(40, seed=9).text, ""]


@pytest.fixture(scope="module")
def loaded(built: Path) -> Package:
    return Package.load(built / "fp32")


def watched(loaded: Package, threshold: float, texts: list[str]) -> tuple[list[tuple[str, str, float]], Abstention]:
    abstention = Abstention(threshold, 1 / len(loaded.labels))
    return list(abstention.watch(loaded.stream(iter(texts), threshold))), abstention


def test_labels_below_the_threshold_are_withheld_and_nothing_else_changes(loaded: Package) -> None:
    whole = list(loaded.stream(iter(TEXTS)))
    limit = sorted(probability for _, _, probability in whole)[len(whole) // 2]
    found, abstention = watched(loaded, limit, TEXTS)
    expected = [(text, label if probability >= limit else "", probability) for text, label, probability in whole]
    assert found == expected
    assert 0 < abstention.withheld == sum(not label for _, label, _ in expected) < len(TEXTS) == abstention.texts
    assert abstention.warning() is None


def test_a_threshold_that_withholds_everything_is_told_with_the_highest_probability(loaded: Package) -> None:
    highest = max(probability for _, _, probability in loaded.stream(iter(TEXTS)))
    found, abstention = watched(loaded, (1 + highest) / 2, TEXTS)
    assert {label for _, label, _ in found} == {""}
    warning = abstention.warning() or ""
    assert f"every text ({len(TEXTS)})" in warning
    assert f"{highest:.6f}" in warning
    assert "\n" not in warning
    assert watched(loaded, 1.0, [])[1].warning() is None


def test_a_threshold_that_can_withhold_nothing_is_told_even_without_texts(loaded: Package) -> None:
    for texts in (TEXTS, []):
        found, abstention = watched(loaded, 1 / 3, texts)
        assert all(label for _, label, _ in found)
        assert "withholds no label: every answer has a probability of 0.333 or more" in (abstention.warning() or "")
    assert watched(loaded, 0.34, [])[1].warning() is None


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_threshold_that_is_no_probability_is_refused_before_a_text_is_read(loaded: Package, threshold: float) -> None:
    texts = iter(TEXTS)
    with pytest.raises(InputError, match=f"threshold is {threshold}; it must be above 0 and at most 1"):
        loaded.stream(texts, threshold)
    assert len(list(texts)) == len(TEXTS)
