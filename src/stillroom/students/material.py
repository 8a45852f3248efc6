"""What a student is made from and trained on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stillroom import layout
from stillroom.batching import Tokens, load_tokeniser, tokenise
from stillroom.cache.column import Column, TokenColumn
from stillroom.cache.ensemble import Ensemble
from stillroom.cache.identity import check_same, entry_keys, fingerprint
from stillroom.cache.reader import Reader
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.student_params import StudentParams
from stillroom.students.vocabulary import trim, trimming
from stillroom.teacher.model import (
    TOKENISER,
    Classifier,
    Description,
    EncoderClassifier,
    Pooling,
    load_encoder,
    load_teacher,
    members_of,
)
from stillroom.teacher.tokeniser import pad_id, read_tokeniser
from stillroom.training import ByRow

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Material:
    """The teacher, the trimmed vocabulary, the texts in it, and the teacher's answers for the transfer set.

    teacher: what students are made from, which may be another encoder (see Start), and description, whose
    vocabulary and sizes are then that encoder's. kept[new id] = teacher's id; pad: new id of the padding token;
    tokens: the transfer set, training rows first, grown texts after them; signals: the teacher's answers by name, a
    column each: [texts of the transfer set, width], or [texts, tokens, width] for states of tokens; trimming: what
    the trimmed vocabulary loses on the validation rows.
    """

    teacher: Classifier
    description: Description
    tokeniser_json: str
    kept: npt.NDArray[np.int64]
    pad: int
    tokens: Tokens
    validation_tokens: Tokens
    signals: Mapping[str, ByRow]
    trimming: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """A smaller pretrained encoder that students are made from in the teacher's place; folder: its checkpoint."""

    folder: Path
    pooling: Pooling


def gather(
    teacher: Path,
    cache: Path,
    train: Rows,
    grown: Sequence[str],
    validation: Rows,
    settings: StudentParams,
    special_tokens: bool,
    signals: tuple[str, ...],
    start: Start | None = None,
    members: bool = True,
) -> Material:
    """Read what a student needs. start: what it is made from, if not the teacher; members: hear all of an ensemble.

    Raises StaleCache if the answers are not this teacher's, InputError if some lack.
    """
    from tokenizers import Tokenizer

    model, description = load_teacher(teacher)
    reader = _answers(teacher, cache)
    for name in signals:
        reader.signal(name)
    transfer = [*train.text, *grown]
    others = members_of(teacher) if members else []
    ensemble = Ensemble([reader, *(_answers(one, cache / layout.MEMBERS / one.name) for one in others)])
    every = ensemble.locate(entry_keys(transfer), "texts of the transfer set")
    positions = every[:, 0]
    original = load_tokeniser(teacher / TOKENISER, description.max_length)
    if start is not None:
        model, description, original = _started(start, description, settings.max_length)
    untrimmed = tokenise(original, transfer, description.max_length)
    vocabulary = trim(
        original,
        untrimmed,
        settings.max_vocabulary,
        description.pad,
        special_tokens,
        settings.keeps_unseen,
    )
    trimmed: Any = Tokenizer.from_str(vocabulary.tokeniser_json)
    trimmed.enable_truncation(settings.max_length)
    tokens = tokenise(trimmed, transfer, settings.max_length)
    columns: dict[str, ByRow] = {}
    for name in signals:
        if name == "logits" and others:
            columns[name] = Column(ensemble, name, every)
            columns["disagreement"] = torch.from_numpy(ensemble.disagreement(every))
        elif reader.signal(name).layer is None:
            columns[name] = Column(reader, name, positions)
        else:
            same = same_tokens(tokens, vocabulary.kept, untrimmed)
            log.info("%s: compared for %d of %d texts, which keep the teacher's tokens", name, same.sum(), len(same))
            columns[name] = TokenColumn(reader, name, positions, same)
    return Material(
        model,
        description,
        vocabulary.tokeniser_json,
        vocabulary.kept,
        vocabulary.pad,
        tokens,
        tokenise(trimmed, validation.text, settings.max_length),
        columns,
        trimming(original, trimmed, validation.text),
    )


def _answers(teacher: Path, cache: Path) -> Reader:
    """The answers of a teacher. Raises StaleCache if they are another's."""
    reader = Reader.open(cache)
    found = reader.manifest.fingerprint
    check_same(found, fingerprint(teacher, found.get("precision", ""), found.get("signals", {})), cache)
    reader.verify()
    return reader


def _started(start: Start, teacher: Description, max_length: int) -> tuple[Classifier, Description, Any]:
    """Another encoder under a head for the teacher's labels, how it pools and pads, and its tokeniser.

    Raises InputError for a checkpoint that cannot be loaded, or has places for fewer tokens than are to be read.
    """
    encoder = load_encoder(start.folder)
    places = getattr(encoder.config, "max_position_embeddings", None)
    if isinstance(places, int) and 0 < places < max_length:
        raise InputError(f"students: max_length is {max_length}; the checkpoint {start.folder} reads {places} tokens")
    told = teacher.model_copy(update={"pooling": start.pooling, "pad": pad_id(start.folder)})
    model = EncoderClassifier(encoder, encoder.config.hidden_size, len(told.labels), start.pooling).eval()
    return model, told, read_tokeniser(start.folder, teacher.max_length)


def same_tokens(tokens: Tokens, kept: npt.NDArray[np.int64], theirs: Tokens) -> npt.NDArray[np.bool_]:
    """Which texts are, with kept[id], the same ids in the teacher's vocabulary: bool [texts].

    A trimmed vocabulary cuts a word that lost its piece otherwise, and a shorter limit ends a text sooner.
    """
    same: npt.NDArray[np.bool_] = tokens.lengths == theirs.lengths
    rows = np.flatnonzero(same)
    ours, original = tokens.take(rows), theirs.take(rows)
    wrong = np.flatnonzero(kept[ours.ids] != original.ids)
    same[rows[np.searchsorted(ours.offsets, wrong, side="right") - 1]] = False
    return same
