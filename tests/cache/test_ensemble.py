from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import entr, expit

from stillroom.cache.ensemble import Ensemble
from stillroom.cache.identity import entry_keys
from stillroom.cache.reader import Reader
from stillroom.cache.store import Store
from stillroom.errors import InputError
from tests.cache.answers import FIELDS, SIGNALS, Array, texts

KEYS = entry_keys(texts(6))
LABELS = ["delivery", "login", "refund"]
Write = Callable[..., Reader]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """`write(logits, embedding, labels)`: a cache of a teacher that says so of the first texts."""
    count = 0

    def made(
        logits: Array, embedding: Array | None = None, labels: Sequence[str] = LABELS, several: bool = False
    ) -> Reader:
        nonlocal count
        count += 1
        told = {"labels": list(labels), "weights": str(count)} | ({"problem_type": "multi_label"} if several else {})
        store = Store(tmp_path_factory.mktemp("store"), FIELDS | told)
        values = {"logits": logits, "embedding": logits if embedding is None else embedding}
        order = np.random.default_rng(count).permutation(len(logits))
        store.add(
            KEYS[: len(logits)][order],
            {signal: signal.codec.encode(values[signal.name][order].astype(np.float32)) for signal in SIGNALS},
        )
        reader = store.reader()
        assert reader is not None
        return reader

    return made


def logits_of(seed: int, count: int = 6) -> Array:
    """Numbers that fp16 holds."""
    return np.random.default_rng(seed).integers(-64, 64, (count, 3)) / 16


@pytest.fixture(scope="module")
def three(write: Write) -> list[Reader]:
    return [write(logits_of(seed)) for seed in range(3)]


def softmax(logits: Array) -> Array:
    raised = np.exp(logits)
    return raised / raised.sum(axis=-1, keepdims=True)


weights = st.lists(st.floats(0, 100), min_size=3, max_size=3).filter(lambda given: sum(given) > 0.01)


@given(weights=weights)
def test_the_weighted_mean_and_variance_are_numpys(three: list[Reader], weights: list[float]) -> None:
    ensemble = Ensemble(three, weights)
    positions = ensemble.locate(KEYS, "texts")
    every = np.stack([logits_of(seed) for seed in range(3)])
    found = ensemble.read("logits", positions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.average(every, axis=0, weights=weights), atol=1e-5)
    probabilities = softmax(every)
    mean = np.average(probabilities, axis=0, weights=weights)
    spread = np.average((probabilities - mean) ** 2, axis=0, weights=weights).sum(axis=1)
    np.testing.assert_allclose(ensemble.variance(positions), spread, atol=1e-5)


@given(weights=weights)
def test_the_vote_entropy_is_that_of_the_weights_of_the_classes(three: list[Reader], weights: list[float]) -> None:
    ensemble = Ensemble(three, weights)
    votes = np.stack([logits_of(seed).argmax(axis=1) for seed in range(3)], axis=1)
    for found, row in zip(ensemble.vote_entropy(ensemble.locate(KEYS, "texts")), votes, strict=True):
        shares = np.bincount(row, weights=weights, minlength=3) / sum(weights)
        shares = shares[shares > 0]
        np.testing.assert_allclose(found, -(shares * np.log(shares)).sum(), atol=1e-5)


def test_where_texts_have_several_labels_teachers_disagree_on_each(write: Write) -> None:
    every = np.stack([logits_of(seed) for seed in range(3)])
    ensemble = Ensemble([write(logits, several=True) for logits in every])
    positions = ensemble.locate(KEYS, "texts")
    np.testing.assert_allclose(ensemble.variance(positions), expit(every).var(axis=0).sum(axis=1), atol=1e-5)
    share = (every >= 0).mean(axis=0)
    np.testing.assert_allclose(ensemble.vote_entropy(positions), (entr(share) + entr(1 - share)).sum(axis=1), atol=1e-5)


def test_teachers_of_another_problem_do_not_fit(write: Write) -> None:
    with pytest.raises(InputError, match="has other labels"):
        Ensemble([write(logits_of(0)), write(logits_of(1), several=True)])


@given(rows=st.lists(st.integers(0, 5), max_size=9))
def test_rows_are_read_by_content_in_any_order(three: list[Reader], rows: list[int]) -> None:
    ensemble = Ensemble(three)
    positions = ensemble.locate(KEYS[rows], "texts")
    assert positions.shape == (len(rows), 3)
    expected = np.mean([logits_of(seed) for seed in range(3)], axis=0)[rows]
    np.testing.assert_allclose(ensemble.read("logits", positions), expected, atol=1e-5)


@pytest.mark.parametrize("weights", [None, [7.0]])
def test_one_teacher_is_itself(three: list[Reader], weights: list[float] | None) -> None:
    ensemble = Ensemble(three[:1], weights)
    positions = ensemble.locate(KEYS, "texts")
    np.testing.assert_array_equal(ensemble.read("logits", positions), logits_of(0))
    assert not ensemble.variance(positions).any()
    assert not ensemble.vote_entropy(positions).any()


def test_equal_teachers_do_not_disagree(write: Write) -> None:
    ensemble = Ensemble([write(logits_of(4)) for _ in range(3)])
    positions = ensemble.locate(KEYS, "texts")
    np.testing.assert_allclose(ensemble.read("logits", positions), logits_of(4), rtol=1e-6)
    np.testing.assert_allclose(ensemble.variance(positions), 0, atol=1e-12)
    np.testing.assert_allclose(ensemble.vote_entropy(positions), 0, atol=1e-6)


def test_two_sure_teachers_that_contradict_each_other_disagree_as_much_as_two_can(write: Write) -> None:
    sure = np.array([[50.0, 0.0, 0.0]])
    one, other = write(sure), write(sure[:, ::-1])
    positions = Ensemble([one, other]).locate(KEYS[:1], "texts")
    np.testing.assert_allclose(Ensemble([one, other]).variance(positions), 0.5, rtol=1e-6)
    np.testing.assert_allclose(Ensemble([one, other]).vote_entropy(positions), np.log(2), rtol=1e-6)
    three_to_one = Ensemble([one, other], [3, 1])
    np.testing.assert_allclose(three_to_one.variance(positions), 2 * 0.75 * 0.25, rtol=1e-6)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(three_to_one.vote_entropy(positions), entropy, rtol=1e-6)
    np.testing.assert_allclose(three_to_one.read("logits", positions), [[37.5, 0, 12.5]], rtol=1e-6)
    alone = Ensemble([one, other], [1, 0])
    np.testing.assert_array_equal(alone.read("logits", positions), sure)
    assert not alone.vote_entropy(positions).any()


def test_teachers_of_other_labels_are_refused(write: Write) -> None:
    one, other = write(logits_of(0)), write(logits_of(0), labels=LABELS[::-1])
    with pytest.raises(InputError, match="its teacher has other labels than that of") as caught:
        Ensemble([one, other])
    assert str(caught.value).startswith(f"{other.folder}: ")


@pytest.mark.parametrize("bad", [[1.0], [1, 2, 3, 4], [1, -1, 1], [0, 0, 0], [1, np.nan, 1], [1, np.inf, 1], []])
def test_weights_that_are_none_are_refused_and_told(three: list[Reader], bad: list[float]) -> None:
    with pytest.raises(InputError, match=r"an ensemble of 3 teachers has the weights .*; give each one ≥ 0") as caught:
        Ensemble(three, bad)
    assert str([float(weight) for weight in bad]) in str(caught.value)


def test_an_ensemble_of_nobody_is_refused() -> None:
    with pytest.raises(InputError, match="an ensemble of 0 teachers"):
        Ensemble([])


def test_an_answer_that_one_teacher_lacks_is_told(write: Write) -> None:
    whole, short = write(logits_of(0)), write(logits_of(1, count=4))
    with pytest.raises(InputError, match="holds no answer for 2 of 6 texts") as caught:
        Ensemble([whole, short]).locate(KEYS, "texts")
    assert str(caught.value).startswith(f"{short.folder}: ")


def test_vectors_of_another_width_are_refused(write: Write) -> None:
    one, other = write(logits_of(0), np.ones((6, 4))), write(logits_of(0), np.ones((6, 5)))
    ensemble = Ensemble([one, other])
    with pytest.raises(InputError, match="its embedding has another width than that of the first teacher"):
        ensemble.read("embedding", ensemble.locate(KEYS, "texts"))


@pytest.mark.parametrize("several", [False, True])
def test_disagreement_runs_from_one_answer_to_as_many_as_there_are_teachers(write: Write, several: bool) -> None:
    sure = np.where(np.eye(3) > 0, 30.0, -30.0)
    alike, apart = np.tile(sure[0], (6, 1)), [np.tile(row, (6, 1)) for row in sure]
    for said in (apart[:2], apart):
        ensemble = Ensemble([write(one, several=several) for one in said])
        np.testing.assert_allclose(ensemble.disagreement(ensemble.locate(KEYS, "texts")), 1.0, atol=1e-5)
    ensemble = Ensemble([write(alike, several=several) for _ in range(3)])
    np.testing.assert_allclose(ensemble.disagreement(ensemble.locate(KEYS, "texts")), 0.0, atol=1e-6)


@given(weights=weights)
def test_disagreement_is_a_share(three: list[Reader], weights: list[float]) -> None:
    ensemble = Ensemble(three, weights)
    found = ensemble.disagreement(ensemble.locate(KEYS, "texts"))
    assert ((found >= 0) & (found <= 1)).all()


def test_more_teachers_than_classes_disagree_as_much_as_they_can_when_spread_evenly(write: Write) -> None:
    sure = np.where(np.eye(3) > 0, 30.0, -30.0)
    ensemble = Ensemble([write(np.tile(sure[number % 3], (6, 1))) for number in range(5)])
    np.testing.assert_allclose(ensemble.disagreement(ensemble.locate(KEYS, "texts")), 1.0, atol=1e-5)
