"""Signals of a teacher and the codecs that store them: one interface, so that a new signal needs no new format.

A codec turns the values of n entries into named arrays and back. A signal is asked for as `logits`, `embedding`,
`embedding:int8`, `hidden.N` or `hidden.N:int8`; a cache records the name and the codec with its version.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stillroom.errors import InputError
from stillroom.params import SIGNAL

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Encoded = Mapping[str, npt.NDArray[Any]]
"""The arrays of one signal by part; the part '' is the main one."""
_TOKENS = "tokens-"
_FP16_INFINITY = 0x7C00
_LARGEST_SCALE = np.finfo(np.float32).max / 128
"""With which no integer becomes infinite."""


@dataclass(frozen=True)
class PerToken:
    """Values of every token of n texts, float32 [tokens of all, width], and how many tokens each text has, [n]."""

    values: Floats
    lengths: Rows


class Codec(Protocol):
    """How the values of a signal are stored."""

    label: str
    """Name and version, as a cache records it."""
    least_cosine: float
    """Of a stored vector to the live teacher's, whatever the batches that both were computed in."""

    def encode(self, values: Any) -> Encoded:
        """Arrays to store. Raises InputError if the values are not finite or do not fit."""

    def decode(self, encoded: Encoded) -> Any:
        """The values again."""

    def take(self, encoded: Encoded, rows: Rows) -> Encoded:
        """The arrays of some entries, in the order given."""

    def check(self, encoded: Encoded, entries: int, width: int) -> None:
        """Raise ValueError that says what is wrong, unless the arrays are what `encode` gives for such values."""

    def width(self, encoded: Encoded) -> int:
        """Numbers of one vector."""


class Half:
    """A vector per entry in half precision, [n, width]."""

    label = "fp16/1"
    least_cosine = 0.999

    def encode(self, values: Floats) -> Encoded:
        _refuse_not_finite(values)
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(values, dtype=np.float16)
        if not _all_finite(halves):
            raise InputError("exceed the range of fp16 (±65,504)")
        return {"": halves}

    def decode(self, encoded: Encoded) -> Floats:
        return encoded[""].astype(np.float32)

    def take(self, encoded: Encoded, rows: Rows) -> Encoded:
        return {"": encoded[""].take(rows, axis=0)}

    def check(self, encoded: Encoded, entries: int, width: int) -> None:
        _expect(encoded, {"": (np.float16, (entries, width))})
        if not _all_finite(encoded[""]):
            raise ValueError("values that are not finite")

    def width(self, encoded: Encoded) -> int:
        return int(encoded[""].shape[1])


class Scaled:
    """A vector per entry in int8, [n, width], and the scale of each, float32 [n]: value = scale × integer."""

    label = "int8/1"
    least_cosine = 0.99

    def encode(self, values: Floats) -> Encoded:
        _refuse_not_finite(values)
        scale = (np.abs(values).max(axis=1, initial=0.0) / 127).astype(np.float32)
        steps = np.where(scale > 0, scale, 1)[:, None]
        return {"": np.rint(values / steps).astype(np.int8), "scale": scale}

    def decode(self, encoded: Encoded) -> Floats:
        values: Floats = encoded[""] * encoded["scale"][:, None]
        return values

    def take(self, encoded: Encoded, rows: Rows) -> Encoded:
        return {part: values.take(rows, axis=0) for part, values in encoded.items()}

    def check(self, encoded: Encoded, entries: int, width: int) -> None:
        _expect(encoded, {"": (np.int8, (entries, width)), "scale": (np.float32, (entries,))})
        scale = encoded["scale"]
        if not ((scale >= 0) & (scale <= _LARGEST_SCALE)).all():
            raise ValueError("scales that are no sizes")

    def width(self, encoded: Encoded) -> int:
        return int(encoded[""].shape[1])


class Tokenwise:
    """A vector for every token of an entry, by the codec of a vector, and the number of tokens, int32 [n]."""

    def __init__(self, inner: Half | Scaled) -> None:
        self._inner = inner
        self.label = _TOKENS + inner.label
        self.least_cosine = inner.least_cosine

    def encode(self, values: PerToken) -> Encoded:
        return {**self._inner.encode(values.values), "lengths": values.lengths.astype(np.int32)}

    def decode(self, encoded: Encoded) -> PerToken:
        return PerToken(self._inner.decode(_without_lengths(encoded)), encoded["lengths"].astype(np.int64))

    def take(self, encoded: Encoded, rows: Rows) -> Encoded:
        lengths = encoded["lengths"].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        chosen = lengths[rows]
        within = np.arange(chosen.sum()) - np.repeat(np.cumsum(chosen) - chosen, chosen)
        tokens = np.repeat(starts[rows], chosen) + within
        return {**self._inner.take(_without_lengths(encoded), tokens), "lengths": encoded["lengths"].take(rows)}

    def check(self, encoded: Encoded, entries: int, width: int) -> None:
        lengths = encoded.get("lengths")
        if lengths is None or lengths.dtype != np.int32 or lengths.shape != (entries,) or (lengths < 0).any():
            raise ValueError("no lengths of its entries")
        self._inner.check(_without_lengths(encoded), int(lengths.sum(dtype=np.int64)), width)

    def width(self, encoded: Encoded) -> int:
        return self._inner.width(_without_lengths(encoded))


@dataclass(frozen=True)
class Signal:
    """One kind of answer and how it is stored."""

    name: str
    codec: Codec

    @property
    def layer(self) -> int | None:
        """The encoder layer whose hidden states it is, counted from 1; None for other signals."""
        return int(self.name.partition(".")[2]) if self.name.startswith("hidden.") else None


def asked_for(signals: Iterable[str]) -> tuple[Signal, ...]:
    """Signals as params name them, sorted by name. Raises InputError for one that is not known or stands twice."""
    chosen: dict[str, Signal] = {}
    for asked in signals:
        match = SIGNAL.fullmatch(asked)
        if match is None or (match["name"] or match["vectors"]) in chosen:
            raise InputError(f"capture.signals: {asked!r} is no signal, or stands twice")
        name = match["name"] or match["vectors"]
        label = Scaled.label if match["codec"] else Half.label
        chosen[name] = known(name, f"{_TOKENS}{label}" if name.startswith("hidden.") else label)
    return tuple(chosen[name] for name in sorted(chosen))


def recorded(signals: Sequence[Signal]) -> dict[str, str]:
    """Name → codec, as fingerprints and manifests record signals."""
    return {signal.name: signal.codec.label for signal in signals}


_KNOWN: dict[str, Codec] = {codec.label: codec for codec in (Half(), Scaled(), Tokenwise(Half()), Tokenwise(Scaled()))}


def known(name: str, label: str) -> Signal:
    """A recorded signal. Raises InputError for one, or a codec or version of one, that this Stillroom lacks."""
    match = SIGNAL.fullmatch(name)
    if match is None or match["codec"]:
        raise InputError(f"{name[:60]!r} is no signal that this version reads")
    if label not in _KNOWN:
        raise InputError(
            f"the signal {name} is stored by the codec {label!r}; this version reads {', '.join(sorted(_KNOWN))}"
        )
    return Signal(name, _KNOWN[label])


def join(parts: Sequence[Encoded]) -> Encoded:
    """The arrays of several runs of entries, one after another."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _without_lengths(encoded: Encoded) -> Encoded:
    return {part: values for part, values in encoded.items() if part != "lengths"}


def _refuse_not_finite(values: Floats) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(f"are not finite in {int((~finite).sum())} places")


def _all_finite(values: npt.NDArray[np.float16]) -> bool:
    """As np.isfinite(values).all(), by the bits of the exponent, in a fifth of the time."""
    return bool((values.view(np.uint16) & 0x7FFF).max(initial=0) < _FP16_INFINITY)


def _expect(encoded: Encoded, wanted: Mapping[str, tuple[Any, tuple[int, ...]]]) -> None:
    found = {part: (values.dtype, values.shape) for part, values in encoded.items()}
    expected = {part: (np.dtype(kind), shape) for part, (kind, shape) in wanted.items()}
    if found != expected:
        raise ValueError(f"arrays {_listed(found)} where {_listed(expected)} are promised")


def _listed(arrays: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    return ", ".join(f"{part or 'values'} {kind}{list(shape)}" for part, (kind, shape) in sorted(arrays.items()))
