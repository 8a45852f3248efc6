import json
from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.teacher.tokeniser import mask_token, pad_id, read_tokeniser
from tests.toys import toy_rows, toy_tokeniser, train_tokeniser

TEXTS = toy_rows(30, seed=6).text


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | config))
    return folder


def test_the_tokeniser_truncates_and_never_pads(tiny_checkpoint: Path) -> None:
    tokeniser = read_tokeniser(tiny_checkpoint, 9)
    assert [len(encoding.ids) for encoding in tokeniser.encode_batch(["my", "my " * 50])] == [3, 9]


def test_a_checkpoint_with_a_vocabulary_alone_has_the_same_tokeniser(tmp_path: Path) -> None:
    whole = toy_tokeniser(TEXTS)
    folder = write_config(tmp_path / "vocab")
    ordered = sorted(whole.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("\n".join(piece for piece, _ in ordered) + "\n")
    built = read_tokeniser(folder, 16)
    whole.enable_truncation(16)
    for text in [*TEXTS, "unseen Ünicode ☃"]:
        assert built.encode(text).ids == whole.encode(text).ids


def test_a_checkpoint_with_vocabulary_and_merges_has_the_same_tokeniser(tmp_path: Path) -> None:
    whole = train_tokeniser("BPE", TEXTS)
    folder = write_config(tmp_path / "merges", model_type="roberta")
    whole.model.save(str(folder))
    built = read_tokeniser(folder, 16)
    whole.enable_truncation(16)
    for text in TEXTS:
        assert built.encode(text).ids == whole.encode(text).ids


def test_a_checkpoint_without_a_tokeniser_is_wrong_input(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "none")
    with pytest.raises(InputError, match="none: has no tokeniser; add tokenizer"):
        read_tokeniser(folder, 16)


def test_a_checkpoint_whose_tokeniser_cannot_be_built_is_wrong_input(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "alien", model_type="unheard-of")
    with pytest.raises(InputError, match=r"alien: has no tokenizer\.json and none can be built") as caught:
        read_tokeniser(folder, 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model": {"type": "Alien"}}', "\x00"])
def test_a_broken_tokeniser_is_wrong_input(tmp_path: Path, content: str) -> None:
    folder = write_config(tmp_path / "broken")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokeniser") as caught:
        read_tokeniser(folder, 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "expected"), [({"pad_token_id": 1}, 1), ({"pad_token_id": 0}, 0), ({"pad_token_id": None}, 0), ({}, 0)]
)
def test_the_padding_is_the_configs_or_0(tmp_path: Path, config: dict[str, object], expected: int) -> None:
    assert pad_id(write_config(tmp_path / "padded", **config)) == expected


def test_the_padding_of_a_folder_without_config_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        pad_id(tmp_path)


@pytest.mark.parametrize(("kind", "mask"), [("WordPiece", "[MASK]"), ("BPE", "<mask>"), ("Unigram", "<mask>")])
def test_the_mask_token_is_one_that_the_tokeniser_reads_in_a_text(tmp_path: Path, kind: str, mask: str) -> None:
    tokeniser = train_tokeniser(kind, TEXTS)
    folder = write_config(tmp_path / kind, vocab_size=tokeniser.get_vocab_size())
    tokeniser.save(str(folder / "tokenizer.json"))
    assert mask_token(folder, "shown") == mask
    read = read_tokeniser(folder, 16).encode(f"my {mask} card", add_special_tokens=False)
    assert read.ids.count(tokeniser.token_to_id(mask)) == 1


@pytest.mark.parametrize("vocab_size", [4, None])
def test_a_mask_token_without_an_embedding_is_none(tmp_path: Path, vocab_size: int | None) -> None:
    folder = write_config(tmp_path / "small", **({} if vocab_size is None else {"vocab_size": vocab_size}))
    toy_tokeniser(TEXTS).save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"^shown: the teacher's tokeniser has no mask token; leave mask out of"):
        mask_token(folder, "shown")
