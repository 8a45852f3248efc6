from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from stillroom.errors import InputError
from stillroom.teacher import proposals
from stillroom.teacher.proposals import MaskedHead
from tests.toys import toy_rows, toy_tokeniser, write_masked_checkpoint

WORDS = ["please", "help", "my", "parcel", "arrival", "was", "delayed", "again", "today"]
LIKELY = ["money", "bank", "invoice", "payment", "receipt", "charged", "code", "account", "browser", "locked", "twice"]


def masked_head(folder: Path, scores: dict[str, float]) -> MaskedHead:
    return MaskedHead(write_masked_checkpoint(folder / "masked", scores), torch.device("cpu"), "shown")


def variants(count: int, words: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((count, words)) < 0.4, generator.random((count, words))


def test_covered_words_and_they_alone_are_drawn_from_what_the_head_finds_likely(tmp_path: Path) -> None:
    head = masked_head(tmp_path, dict.fromkeys(LIKELY, 30.0))
    covered, draws = variants(50, len(WORDS))
    made = head.replaced(WORDS, covered, draws)
    drawn: set[str] = set()
    for row, text in enumerate(made):
        for place, word in enumerate(text):
            assert (word in LIKELY) if covered[row, place] else (word == WORDS[place])
        drawn |= {word for word in text if word in LIKELY}
    assert len(drawn) > 5


def test_the_likeliest_is_drawn_most_and_the_word_that_stood_there_never(tmp_path: Path) -> None:
    head = masked_head(tmp_path, {"parcel": 60.0, "money": 40.0})
    covered = np.tile([word == "parcel" for word in WORDS], (20, 1))
    draws = np.random.default_rng(0).random(covered.shape)
    assert {text[3] for text in head.replaced(WORDS, covered, draws)} == {"money"}
    assert {text[3] for text in head.replaced(["x", "x", "x", "Parcel!"], covered[:, :4], draws)} == {"money"}


def test_a_variant_depends_neither_on_the_others_nor_on_the_size_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = masked_head(tmp_path, {})
    covered, draws = variants(12, len(WORDS))
    whole = head.replaced(WORDS, covered, draws)
    assert [head.replaced(WORDS, covered[[row]], draws[[row]])[0] for row in range(12)] == whole
    monkeypatch.setattr(proposals, "_LOGITS", 1)
    assert head.replaced(WORDS, covered, draws) == whole


def test_what_is_beyond_the_tokens_that_are_read_stays(tmp_path: Path) -> None:
    head = masked_head(tmp_path, dict.fromkeys(LIKELY, 30.0))
    long = ["the"] * 200
    (text,) = head.replaced(long, np.ones((1, 200), bool), np.full((1, 200), 0.5))
    changed = [word != "the" for word in text]
    assert changed == [True] * sum(changed) + [False] * (200 - sum(changed))
    assert 0 < sum(changed) < 64


def test_a_text_with_the_mask_token_in_it_has_no_variants(tmp_path: Path) -> None:
    covered, draws = variants(2, 3)
    assert masked_head(tmp_path, {}).replaced(["a", "x[MASK]", "b"], covered, draws) == []


def test_a_checkpoint_without_the_head_is_wrong_input(tiny_checkpoint: Path) -> None:
    with pytest.raises(
        InputError, match=r"^shown: the teacher has no masked-language head; use drop, mask or mix"
    ) as caught:
        MaskedHead(tiny_checkpoint, torch.device("cpu"), "shown")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_whole_words_is_wrong_input(tmp_path: Path) -> None:
    folder = write_masked_checkpoint(tmp_path / "masked", {})
    tokeniser = toy_tokeniser(toy_rows(200, seed=99).text)
    tokeniser.normalizer = normalizers.Replace("a ", "b")
    tokeniser.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"^shown: its vocabulary has no 10 whole words"):
        MaskedHead(folder, torch.device("cpu"), "shown")
