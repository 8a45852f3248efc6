"""One label a text, or any number of them: what labels, scores and choices are in either problem.

    single_label  labels: class ids [n]; a model's scores: a distribution over the classes [n, classes]; its choice: the
                  likeliest class [n]
    multi_label   labels: 0 or 1 [n, classes]; scores: a probability for each class by itself [n, classes]; its choice:
                  every class that is likelier than not, 0 or 1 [n, classes]

Needs numpy only, because the runtime of a shipped package uses it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ProblemType = Literal["single_label", "multi_label"]
EVEN = 0.5
"""Probability from which a class of a multi-label problem is chosen; its logit is 0."""

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


def problem_of(labels: npt.NDArray[Any]) -> ProblemType:
    """The problem that labels belong to, by their shape."""
    return "single_label" if labels.ndim == 1 else "multi_label"


def probabilities(logits: Floats, problem: ProblemType, temperature: float = 1.0) -> Probabilities:
    """Softmax, or a sigmoid of each, of logits [n, classes] ÷ temperature; float32."""
    scaled: Probabilities = logits.astype(np.float32) / np.float32(temperature)
    if problem == "multi_label":
        # by tanh, which overflows nowhere
        return np.asarray(EVEN + EVEN * np.tanh(EVEN * scaled), dtype=np.float32)
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def choices(scores: Floats, problem: ProblemType, threshold: float = EVEN) -> Ints:
    """What a model with these scores [n, classes] answers: probabilities, or logits with a threshold of 0."""
    if problem == "single_label":
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    return (scores >= threshold).astype(np.int64)


def chosen_by(logits: Floats, problem: ProblemType) -> Ints:
    """What a model with these logits answers."""
    return choices(logits, problem, threshold=0.0)


def equal(first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
    """Which rows of two arrays of labels or choices are the same, every class included; bool [n]."""
    same: npt.NDArray[np.bool_] = first == second
    return same if same.ndim == 1 else np.asarray(same.all(axis=1))


def accuracy(choice: Ints, labels: Ints) -> float:
    """Share of rows that are answered rightly, with every class where there are several."""
    return float(equal(choice, labels).mean())


def confidence(scores: Probabilities, problem: ProblemType) -> Probabilities:
    """Probability of the chosen class, [n]; with several, of the least sure decision for or against one."""
    if problem == "single_label":
        return np.asarray(scores.max(axis=1))
    return np.asarray(np.maximum(scores, 1 - scores).min(axis=1))


def least_confidence(problem: ProblemType, classes: int) -> float:
    """What `confidence` cannot fall below."""
    return 1 / classes if problem == "single_label" else EVEN


def named(choice: Ints, labels: Sequence[str], problem: ProblemType, separator: str) -> list[str]:
    """Choices in words: a label each, or the labels of a text with the separator between them."""
    if problem == "single_label":
        return [labels[index] for index in choice.tolist()]
    return [separator.join(labels[index] for index in np.flatnonzero(row).tolist()) for row in choice]
