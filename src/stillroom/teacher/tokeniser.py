"""The teacher's tokeniser as one tokenizer.json, whatever files the checkpoint brings."""

from pathlib import Path
from typing import Any

from stillroom.batching import load_tokeniser
from stillroom.errors import InputError
from stillroom.files import read_json

_MASKS = ("[MASK]", "<mask>")


def read_tokeniser(checkpoint: Path, max_length: int) -> Any:
    """Load a checkpoint's fast tokeniser, truncating to max_length and never padding.

    Raises InputError if the folder has none, or none that can be made fast.
    """
    path = checkpoint / "tokenizer.json"
    if path.is_file():
        return load_tokeniser(path, max_length)
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).backend_tokenizer
    except Exception as error:
        raise InputError(
            f"{checkpoint}: has no tokenizer.json and none can be built ({' '.join(str(error).split())[:200]})"
        ) from error
    if backend.get_vocab_size() <= len(backend.get_added_tokens_decoder()):  # transformers makes up an empty one
        raise InputError(f"{checkpoint}: has no tokeniser; add tokenizer.json or the vocabulary")
    backend.no_padding()
    backend.enable_truncation(max_length)
    return backend


def mask_token(checkpoint: Path, shown: str) -> str:
    """The token that stands for a hidden word, as the checkpoint's tokeniser reads it in a text.

    Raises InputError if the tokeniser has none, or none that the checkpoint has an embedding for.
    """
    added = read_tokeniser(checkpoint, 8).get_added_tokens_decoder()
    known = int(read_json(checkpoint / "config.json").get("vocab_size", 0))
    special = {token.content for number, token in added.items() if token.special and number < known}
    for name in _MASKS:
        if name in special:
            return name
    raise InputError(f"{shown}: the teacher's tokeniser has no mask token; leave mask out of growth.methods")


def pad_id(checkpoint: Path) -> int:
    """Id that fills a batch; masked out everywhere, so 0 where a checkpoint names none."""
    config = read_json(checkpoint / "config.json")
    return int(config.get("pad_token_id") or 0)
