"""What a search tries: levels from cheap to dear, on each a default recipe and a few others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.problem import ProblemType
from stillroom.student_params import (
    AutoParams,
    BilstmParams,
    CnnParams,
    FixedStudent,
    NarrowParams,
    PretrainedParams,
    SlicedParams,
    StaticParams,
)

_KINDS: Mapping[str, Callable[..., FixedStudent]] = {
    "static": StaticParams,
    "cnn": CnnParams,
    "bilstm": BilstmParams,
    "sliced": SlicedParams,
    "narrow": NarrowParams,
    "pretrained": PretrainedParams,
}
_ENCODER_EPOCHS = 6
_RECIPES: tuple[Mapping[str, Any], ...] = (
    {},
    {"objective": "mse"},
    {"temperature": 4.0, "hard_weight": 0.1},
    {"objective": "dkd"},
    {"averaging": 0.995},
    {"temperature": 1.0, "hard_weight": 0.3},
    {"hard_weight": 0.9, "final_hard_weight": 0.1},
)
"""Small and different: mse and kl at two temperatures are what wins in Kim et al. (arXiv 2105.08919), by the noise of
the labels; the others seldom do, and cost a third of a training to find out."""
_OWN: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "static": ({"hidden": 1024, "word_dropout": 0.05, "piece_dropout": 0.1}, {"ngram_buckets": 16_384}),
    "cnn": ({"filters": 256},),
    "bilstm": ({"hidden": 256, "dimensions": 256},),
}
"""Changes of a family's own settings, before the recipes that all have."""


@dataclass(frozen=True)
class Level:
    """Students of about one cost. name: for people and files; candidates: the first is the default recipe."""

    name: str
    candidates: tuple[FixedStudent, ...]


def levels(settings: AutoParams, encoder: Any, max_length: int, problem: ProblemType) -> list[Level]:
    """The levels of all families that are asked for, not yet in order of cost.

    A family of cheap students is one level; of encoders every number of layers is one, doubling up to all but one of
    the teacher's. max_length: tokens that the teacher reads. Whether a teacher can be cut at all, the cost tells.
    """
    common = {
        "max_length": min(settings.max_length, max_length),
        **settings.model_dump(include={"max_vocabulary", "doubt", "dissent"}),
    }
    of_encoders = {"unseen_pieces": settings.unseen_pieces}
    shapes: list[tuple[str, str, Mapping[str, Any]]] = [
        (family, *told) for family in settings.families for told in _shapes(family, encoder, of_encoders)
    ]
    if settings.checkpoint is not None:
        shapes.append(("pretrained", "pretrained", {**of_encoders, "checkpoint": settings.checkpoint}))
    return [
        Level(name, tuple(_candidates(family, {**common, **shape}, settings.trials, problem)))
        for family, name, shape in shapes
    ]


def _shapes(family: str, encoder: Any, of_encoders: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and settings of a family's levels; of_encoders: settings that every family of encoders has."""
    if family not in ("sliced", "narrow"):
        yield family, {}
        return
    shape: dict[str, Any] = {**of_encoders, "epochs": _ENCODER_EPOCHS}
    if family == "narrow":
        head = encoder.config.hidden_size // encoder.config.num_attention_heads
        shape["width"] = head * max(1, round(encoder.config.num_attention_heads / 2))
    count = 1
    while count < max(encoder.config.num_hidden_layers, 2):
        yield f"{family}-{count}", {**shape, "layers": count}
        count *= 2


def _candidates(family: str, shape: Mapping[str, Any], limit: int, problem: ProblemType) -> Iterator[FixedStudent]:
    changes = [{}, *_OWN.get(family, ()), *_RECIPES[1:]]
    if problem == "multi_label":
        changes.remove({"objective": "dkd"})  # it sets one class against all others
    for change in changes[:limit]:
        yield _KINDS[family](family=family, **{**shape, **change})
