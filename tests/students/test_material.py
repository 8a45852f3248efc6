import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from stillroom.batching import Tokens
from stillroom.cache.identity import StaleCache, entry_keys
from stillroom.cache.manifest import FIRST, encode
from stillroom.cache.reader import Reader
from stillroom.cache.shards import DamagedCache
from stillroom.data.splits import Rows
from stillroom.errors import InputError
from stillroom.students.material import Material, gather, same_tokens
from tests.students.rows import TRAIN, VALIDATION
from tests.toys import publish_teacher, toy_rows

Settings = Callable[..., Any]


def test_signals_stand_beside_their_rows(
    cache: Path, settings_of: Settings, material_of: Callable[..., Material]
) -> None:
    material = material_of(settings_of("static"), False, ("logits", "embedding"))
    reader = Reader.open(cache)
    for row, text in enumerate(TRAIN.text):
        place = reader.locate(entry_keys([text]), "texts")
        for name in ("logits", "embedding"):
            one = material.signals[name][torch.tensor([row])]
            np.testing.assert_array_equal(one.numpy(), reader.read(name, place))
    assert len(np.unique(material.signals["logits"][torch.arange(len(TRAIN))], axis=0)) == len(TRAIN)


def test_rows_that_are_shuffled_and_doubled_find_their_answers(
    teacher: Path, cache: Path, settings_of: Settings, material_of: Callable[..., Material]
) -> None:
    order = np.random.default_rng(0).integers(0, 90, 120)
    rows = Rows(np.arange(120), [TRAIN.text[row] for row in order], TRAIN.label[order])
    settings = settings_of("static")
    found = gather(teacher, cache, rows, (), VALIDATION, settings, False, ("logits",))
    whole = material_of(settings, False)
    np.testing.assert_array_equal(
        found.signals["logits"][torch.arange(120)], whole.signals["logits"][torch.from_numpy(order)]
    )


@pytest.mark.parametrize("special_tokens", [True, False])
def test_tokens_are_those_of_the_trimmed_tokeniser(
    settings_of: Settings, material_of: Callable[..., Material], special_tokens: bool
) -> None:
    settings = settings_of("static", max_length=8, max_vocabulary=100)
    material = material_of(settings, special_tokens)
    tokeniser = Tokenizer.from_str(material.tokeniser_json)
    tokeniser.enable_truncation(8)
    for tokens, rows in ((material.tokens, TRAIN), (material.validation_tokens, VALIDATION)):
        assert [tokens.one(row).tolist() for row in range(len(rows))] == [
            tokeniser.encode(text).ids for text in rows.text
        ]
    assert material.tokens.lengths.max() == 8
    assert len(material.kept) <= 100


def test_the_vocabulary_is_that_of_the_transfer_set_with_or_without_labels(
    teacher: Path, cache: Path, settings_of: Settings
) -> None:
    strange = Rows(np.arange(1), ["zz yy xx ww qq"], np.array([0]))
    settings = settings_of("static")
    one = gather(teacher, cache, TRAIN, (), VALIDATION, settings, False, ())
    other = gather(teacher, cache, TRAIN, (), strange, settings, False, ())
    assert one.tokeniser_json == other.tokeniser_json
    few = Rows(TRAIN.row[:9], TRAIN.text[:9], TRAIN.label[:9])
    alone = gather(teacher, cache, few, (), VALIDATION, settings, False, ())
    assert len(alone.kept) < len(one.kept)
    rest = gather(teacher, cache, few, TRAIN.text[9:], VALIDATION, settings, False, ())
    assert rest.tokeniser_json == one.tokeniser_json


def test_rows_without_an_answer_are_counted(teacher: Path, cache: Path, settings_of: Settings) -> None:
    more = toy_rows(3, seed=77, first_row=900)
    rows = Rows(np.arange(93), TRAIN.text + more.text, np.concatenate([TRAIN.label, more.label]))
    with pytest.raises(InputError, match="no answer for 3 of 93 texts of the transfer set; run the stage capture"):
        gather(teacher, cache, rows, (), VALIDATION, settings_of("static"), False, ("logits",))


def test_answers_of_another_teacher_are_refused(
    cache: Path, tiny_checkpoint: Path, tmp_path: Path, settings_of: Settings
) -> None:
    other = publish_teacher(tmp_path / "other", tiny_checkpoint, seed=1)
    with pytest.raises(StaleCache, match="weights differs – the teacher's weights: it was trained again or replaced"):
        gather(other, cache, TRAIN, (), VALIDATION, settings_of("static"), False, ("logits",))
    first = publish_teacher(tmp_path / "first", tiny_checkpoint, pooling="cls")
    with pytest.raises(StaleCache, match="pooling differs"):
        gather(first, cache, TRAIN, (), VALIDATION, settings_of("static"), False, ("logits",))


def test_damaged_answers_are_refused(teacher: Path, cache: Path, tmp_path: Path, settings_of: Settings) -> None:
    own = Path(shutil.copytree(cache, tmp_path / "own"))
    shard = sorted((own / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DamagedCache, match=shard.name):
        gather(teacher, own, TRAIN, (), VALIDATION, settings_of("static"), False, ("logits",))


def test_a_cache_without_what_a_fingerprint_has_is_refused(
    teacher: Path, cache: Path, tmp_path: Path, settings_of: Settings
) -> None:
    own = Path(shutil.copytree(cache, tmp_path / "own"))
    manifest = Reader.open(own).manifest
    (own / FIRST).write_bytes(encode(manifest.model_copy(update={"fingerprint": {}})))
    with pytest.raises(DamagedCache, match="it holds the answers of another teacher"):
        gather(teacher, own, TRAIN, (), VALIDATION, settings_of("static"), False, ("logits",))


def test_a_signal_that_was_not_captured_is_told(teacher: Path, cache: Path, settings_of: Settings) -> None:
    with pytest.raises(InputError, match=r"add it to capture\.signals"):
        gather(teacher, cache, TRAIN, (), VALIDATION, settings_of("static"), False, ("hidden",))


def test_states_come_for_the_texts_that_are_the_teachers_tokens(
    teacher: Path, settings_of: Settings, material_of: Callable[..., Material]
) -> None:
    settings = settings_of("narrow", max_length=24, max_vocabulary=110)
    material = material_of(settings, True, ("logits", "hidden.2"))
    original = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    original.enable_truncation(32)
    states = material.signals["hidden.2"][torch.arange(len(TRAIN))]
    same = []
    for row, text in enumerate(TRAIN.text):
        theirs, ours = original.encode(text).ids, material.kept[material.tokens.one(row)].tolist()
        length = len(ours) if theirs == ours else 0
        same.append(theirs == ours)
        assert torch.isfinite(states[row, :length]).all()
        assert states[row, length:].isnan().all()
    assert 5 < sum(same) < len(TRAIN) - 5
    assert not any(same[row] for row in np.flatnonzero(material.tokens.lengths == 24))


def test_texts_are_the_same_only_id_by_id() -> None:
    kept = np.array([7, 5, 9])
    ours = Tokens(np.array([0, 1, 2, 0, 1, 1], np.int32), np.array([0, 2, 2, 3, 6]))
    for theirs, offsets, expected in (
        ([7, 5, 9, 7, 5, 5], [0, 2, 2, 3, 6], [True, True, True, True]),
        ([7, 9, 9, 7, 5, 7], [0, 2, 2, 3, 6], [False, True, True, False]),
        ([7, 5, 9, 7, 5], [0, 2, 2, 3, 5], [True, True, True, False]),
        ([7, 5, 9, 9, 7, 5], [0, 2, 3, 3, 6], [True, False, False, False]),
    ):
        found = same_tokens(ours, kept, Tokens(np.array(theirs, np.int32), np.array(offsets)))
        assert found.tolist() == expected
