"""A teacher that can be asked: the model, its tokeniser, and how it is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stillroom import compute
from stillroom.batching import Ints, Tokens, load_tokeniser, token_batches, tokenise
from stillroom.cache.codecs import PerToken, Signal, recorded
from stillroom.cache.identity import Example, Fingerprint, fingerprint
from stillroom.params import ComputeParams
from stillroom.teacher.inference import answers
from stillroom.teacher.model import TOKENISER, load_teacher

_FEW_TOKENS = 512
"""Padded tokens of a batch of a few examples."""


@dataclass(frozen=True)
class LiveTeacher:
    """folder: where it was published; pad: id of the padding token; budget: padded tokens of a batch."""

    folder: Path
    model: torch.nn.Module
    tokeniser: Any
    max_length: int
    pad: int
    precision: str
    budget: int

    def fingerprint(self, signals: Sequence[Signal]) -> Fingerprint:
        """All that shapes its answers."""
        return fingerprint(self.folder, self.precision, recorded(signals))

    def tokens(self, examples: Sequence[Example]) -> Tokens:
        """What it reads of some examples."""
        return tokenise(self.tokeniser, examples, self.max_length)

    def ask(
        self, tokens: Tokens, batches: Sequence[Ints], signals: Sequence[Signal]
    ) -> Iterator[tuple[Ints, dict[Signal, Any]]]:
        """Yield (rows, the values of every signal) for each batch, all signals of one forward pass."""
        layers = [signal.layer for signal in signals if signal.layer is not None]
        for answer in answers(self.model, tokens, self.pad, batches, layers):
            lengths = tokens.lengths[answer.rows]
            values = {"logits": answer.logits, "embedding": answer.pooled}
            yield (
                answer.rows,
                {
                    signal: values[signal.name]
                    if signal.layer is None
                    else PerToken(answer.hidden[signal.layer], lengths)
                    for signal in signals
                },
            )

    def ask_all(
        self, examples: Sequence[Example], signals: Sequence[Signal]
    ) -> Iterator[tuple[Ints, dict[Signal, Any]]]:
        """As `ask`, of a few examples, in batches so small that little of them is padding."""
        tokens = self.tokens(examples)
        yield from self.ask(tokens, token_batches(tokens.lengths, min(self.budget, _FEW_TOKENS)), signals)


def load_live(folder: Path, machine: ComputeParams, budget: int) -> LiveTeacher:
    """Load a published teacher onto the device, in the precision that the params ask for."""
    model, description = load_teacher(folder)
    precision = compute.precision(machine)
    model.to(compute.device(machine), torch.bfloat16 if precision == "bf16" else torch.float32)
    tokeniser = load_tokeniser(folder / TOKENISER, description.max_length)
    return LiveTeacher(folder, model, tokeniser, description.max_length, description.pad, precision, budget)


def fingerprint_unloaded(folder: Path, machine: ComputeParams, signals: Sequence[Signal]) -> Fingerprint:
    """What `load_live` would have as its fingerprint, without loading it."""
    return fingerprint(folder, compute.precision(machine), recorded(signals))
