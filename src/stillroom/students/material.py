"""What a student is made from and trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.batching import Tokens, load_tokeniser, tokenise
from stillroom.cache.column import Column
from stillroom.cache.identity import check_same, entry_keys, fingerprint
from stillroom.cache.reader import Reader
from stillroom.data.splits import Rows
from stillroom.params import StudentParams
from stillroom.students.vocabulary import trim
from stillroom.teacher.model import TOKENISER, Classifier, Description, load_teacher
from stillroom.training import ByRow


@dataclass(frozen=True)
class Material:
    """The teacher, the trimmed vocabulary, the texts in it, and the teacher's answers for the transfer set.

    kept[new id] = teacher's id; pad: new id of the padding token; tokens: the transfer set, training rows first, grown
    texts after them; signals: the teacher's answers by name, a column [texts of the transfer set, width] each.
    """

    teacher: Classifier
    description: Description
    tokeniser_json: str
    kept: npt.NDArray[np.int64]
    pad: int
    tokens: Tokens
    validation_tokens: Tokens
    signals: Mapping[str, ByRow]


def gather(
    teacher: Path,
    cache: Path,
    train: Rows,
    grown: Sequence[str],
    validation: Rows,
    settings: StudentParams,
    special_tokens: bool,
    signals: tuple[str, ...],
) -> Material:
    """Read what a student needs. Raises StaleCache if the answers are not this teacher's, InputError if some lack."""
    from tokenizers import Tokenizer

    model, description = load_teacher(teacher)
    reader = Reader.open(cache)
    found = reader.manifest.fingerprint
    check_same(found, fingerprint(teacher, found.get("precision", ""), found.get("signals", {})), cache)
    reader.verify()
    for name in signals:
        reader.signal(name)
    transfer = [*train.text, *grown]
    positions = reader.locate(entry_keys(transfer), "texts of the transfer set")
    original = load_tokeniser(teacher / TOKENISER, description.max_length)
    vocabulary = trim(
        original,
        tokenise(original, train.text, description.max_length),
        settings.max_vocabulary,
        description.pad,
        special_tokens,
    )
    trimmed: Any = Tokenizer.from_str(vocabulary.tokeniser_json)
    trimmed.enable_truncation(settings.max_length)
    return Material(
        model,
        description,
        vocabulary.tokeniser_json,
        vocabulary.kept,
        vocabulary.pad,
        tokenise(trimmed, transfer, settings.max_length),
        tokenise(trimmed, validation.text, settings.max_length),
        {name: Column(reader, name, positions) for name in signals},
    )
