from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stillroom.cache.codecs import (
    Codec,
    Encoded,
    Half,
    PerToken,
    Scaled,
    Tokenwise,
    asked_for,
    join,
    known,
    recorded,
)
from stillroom.errors import InputError
from tests.cache.answers import Array

TINY = float(np.finfo(np.float32).tiny)
VECTORS: tuple[Half | Scaled, ...] = (Half(), Scaled())
INNER = pytest.mark.parametrize("inner", VECTORS, ids=lambda codec: str(codec.label))

shapes = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6)
halves = arrays(np.float32, shapes, elements=st.floats(-65504, 65504, width=32))
anything = arrays(np.float32, shapes, elements=st.floats(-(2.0**126), 2.0**126, width=32))
lengths = st.lists(st.integers(0, 4), min_size=1, max_size=8)


def per_token(counts: Sequence[int], width: int = 3) -> PerToken:
    """Values that tell their place."""
    total = sum(counts)
    values = np.arange(total * width, dtype=np.float32).reshape(total, width) - total
    return PerToken(values, np.array(counts, np.int64))


def vectors(count: int, width: int = 3) -> Array:
    return per_token([1] * count, width).values


def equal(one: Encoded, other: Encoded) -> None:
    assert set(one) == set(other)
    for part in one:
        assert one[part].dtype == other[part].dtype
        np.testing.assert_array_equal(one[part], other[part])


@given(values=halves)
def test_half_precision_keeps_eleven_bits(values: Array) -> None:
    codec = Half()
    encoded = codec.encode(values)
    codec.check(encoded, *values.shape)
    found = codec.decode(encoded)
    assert found.dtype == np.float32
    assert (np.abs(found - values) <= np.maximum(np.abs(values) * 2.0**-11, 2.0**-25)).all()


@given(values=anything)
def test_an_integer_is_at_most_half_a_step_off(values: Array) -> None:
    codec = Scaled()
    encoded = codec.encode(values)
    codec.check(encoded, *values.shape)
    scale = encoded["scale"].astype(np.float64)[:, None]
    found = codec.decode(encoded)
    assert found.dtype == np.float32
    # A little more for the rounding of float32; a vector of nothing but subnormal steps is nought.
    assert (np.abs(found.astype(np.float64) - values) <= 0.50002 * scale + 128 * TINY).all()
    largest = np.abs(values).max(axis=1, initial=0.0)
    np.testing.assert_allclose(encoded["scale"], largest / 127, rtol=1e-6, atol=TINY)


def test_the_largest_number_of_a_vector_comes_back_and_noughts_stay_noughts() -> None:
    values = np.array([[3.5, -7.0, 0.0], [0.0, 0.0, 0.0], [1e-30, 5e-31, -1e-30]], np.float32)
    encoded = Scaled().encode(values)
    assert encoded[""].tolist() == [[64, -127, 0], [0, 0, 0], [127, 64, -127]]
    np.testing.assert_allclose(Scaled().decode(encoded)[[0, 2, 2], [1, 0, 2]], [-7.0, 1e-30, -1e-30], rtol=1e-6)


@INNER
@given(counts=lengths, width=st.integers(1, 3))
def test_tokens_come_back_with_their_lengths(inner: Half | Scaled, counts: list[int], width: int) -> None:
    codec, values = Tokenwise(inner), per_token(counts, width)
    encoded = codec.encode(values)
    codec.check(encoded, len(counts), width)
    assert codec.width(encoded) == width
    found = codec.decode(encoded)
    assert found.lengths.dtype == np.int64
    assert found.lengths.tolist() == counts
    np.testing.assert_array_equal(found.values, inner.decode(inner.encode(values.values)))


@INNER
@given(counts=lengths, data=st.data())
def test_taking_entries_equals_taking_each_ones_tokens(inner: Half | Scaled, counts: list[int], data: Any) -> None:
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10))
    codec = Tokenwise(inner)
    found = codec.decode(codec.take(codec.encode(per_token(counts)), np.array(rows, np.int64)))
    every = np.split(inner.decode(inner.encode(per_token(counts).values)), np.cumsum(counts)[:-1])
    assert found.lengths.tolist() == [counts[row] for row in rows]
    np.testing.assert_array_equal(found.values, np.concatenate([np.zeros((0, 3)), *(every[row] for row in rows)]))


@INNER
@given(rows=st.lists(st.integers(0, 4), max_size=8))
def test_taking_vectors_equals_taking_rows(inner: Half | Scaled, rows: list[int]) -> None:
    encoded = inner.encode(vectors(5))
    taken = inner.take(encoded, np.array(rows, np.int64))
    inner.check(taken, len(rows), 3)
    np.testing.assert_array_equal(inner.decode(taken), inner.decode(encoded)[rows])


@INNER
def test_joined_runs_are_the_encoding_of_the_whole(inner: Half | Scaled) -> None:
    values = vectors(7)
    equal(join([inner.encode(values[at : at + 3]) for at in (0, 3, 6)]), inner.encode(values))
    codec, counts = Tokenwise(inner), [2, 0, 3, 1]
    whole = per_token(counts)
    runs = [PerToken(whole.values[:2], whole.lengths[:2]), PerToken(whole.values[2:], whole.lengths[2:])]
    equal(join([codec.encode(run) for run in runs]), codec.encode(whole))


@INNER
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_how_much(inner: Half | Scaled, bad: float) -> None:
    values = vectors(4)
    values[1, 2] = values[3, 0] = bad
    with pytest.raises(InputError, match="are not finite in 2 places"):
        inner.encode(values)
    with pytest.raises(InputError, match="are not finite in 2 places"):
        Tokenwise(inner).encode(PerToken(values, np.array([1, 3])))


@pytest.mark.parametrize("beyond", [65520.0, -7e4, 3e38])
def test_what_half_precision_cannot_hold_is_refused(beyond: float) -> None:
    values = vectors(3)
    values[0, 0] = beyond
    with pytest.raises(InputError, match="exceed the range of fp16"):
        Half().encode(values)
    Scaled().encode(values)


HALF = Half().encode(vectors(4))
INTEGERS = Scaled().encode(vectors(4))
TOKENS = Tokenwise(Half()).encode(per_token([1, 0, 3]))
NEGATIVE = np.array([1, -1, 4], np.int32)
WRONG: list[tuple[Codec, Encoded, int]] = [
    (Half(), {}, 4),
    (Half(), HALF, 5),
    (Half(), {"": HALF[""][:, :2]}, 4),
    (Half(), {"": HALF[""].ravel()}, 4),
    (Half(), {"": HALF[""].astype(np.float32)}, 4),
    (Half(), {"": HALF[""].view(np.int16)}, 4),
    (Half(), HALF | {"scale": INTEGERS["scale"]}, 4),
    (Half(), {"": np.full((4, 3), np.nan, np.float16)}, 4),
    (Half(), {"": np.full((4, 3), -np.inf, np.float16)}, 4),
    (Scaled(), {"": INTEGERS[""]}, 4),
    (Scaled(), INTEGERS, 3),
    (Scaled(), INTEGERS | {"": INTEGERS[""].view(np.uint8)}, 4),
    (Scaled(), INTEGERS | {"scale": INTEGERS["scale"][:, None]}, 4),
    (Scaled(), INTEGERS | {"scale": INTEGERS["scale"].astype(np.float64)}, 4),
    (Scaled(), INTEGERS | {"scale": -1 - INTEGERS["scale"]}, 4),
    (Scaled(), INTEGERS | {"scale": INTEGERS["scale"] * np.float32(np.nan)}, 4),
    (Scaled(), INTEGERS | {"scale": np.full(4, np.inf, np.float32)}, 4),
    (Tokenwise(Half()), HALF, 4),
    (Tokenwise(Half()), TOKENS, 4),
    (Tokenwise(Half()), TOKENS | {"": TOKENS[""][:3]}, 3),
    (Tokenwise(Half()), TOKENS | {"lengths": NEGATIVE}, 3),
    (Tokenwise(Half()), TOKENS | {"lengths": TOKENS["lengths"].astype(np.int64)}, 3),
    (Tokenwise(Half()), TOKENS | {"lengths": np.full(3, 2**31 - 1, np.int32)}, 3),
    (Tokenwise(Scaled()), TOKENS, 3),
]


@pytest.mark.parametrize(("codec", "encoded", "entries"), WRONG)
def test_arrays_that_a_codec_does_not_write_are_refused(codec: Codec, encoded: Encoded, entries: int) -> None:
    with pytest.raises(ValueError, match=r"promised|not finite|no sizes|no lengths") as caught:
        codec.check(encoded, entries, 3)
    assert "\n" not in str(caught.value)


def test_arrays_as_they_were_written_are_not_refused() -> None:
    for codec, encoded, entries in ((Half(), HALF, 4), (Scaled(), INTEGERS, 4), (Tokenwise(Half()), TOKENS, 3)):
        codec.check(encoded, entries, 3)
        assert codec.width(encoded) == 3


def test_signals_are_recorded_by_name_with_codec_and_version() -> None:
    signals = asked_for(("logits", "hidden.12:int8", "embedding:int8", "hidden.2"))
    assert recorded(signals) == {
        "embedding": "int8/1",
        "hidden.12": "tokens-int8/1",
        "hidden.2": "tokens-fp16/1",
        "logits": "fp16/1",
    }
    assert [signal.layer for signal in signals] == [None, 12, 2, None]
    assert tuple(known(name, label) for name, label in recorded(signals).items()) == signals


@pytest.mark.parametrize(
    "asked",
    [
        ["logits", "logits"],
        ["embedding", "embedding:int8"],
        ["hidden.0"],
        ["hidden"],
        ["logits:int8"],
        ["Logits"],
        [""],
    ],
)
def test_signals_that_are_unknown_or_stand_twice_are_refused(asked: list[str]) -> None:
    with pytest.raises(InputError, match=r"capture\.signals: .* is no signal, or stands twice"):
        asked_for(asked)


@pytest.mark.parametrize("label", ["fp16/2", "fp8/1", "tokens-fp16", "tokens-tokens-fp16/1", ""])
def test_a_codec_or_a_version_that_is_not_known_is_told_with_those_that_are(label: str) -> None:
    with pytest.raises(InputError, match=r"logits is stored by the codec .* this version reads fp16/1, int8/1"):
        known("logits", label)
