"""Trim a tokeniser to the pieces that the transfer set uses, so that a student carries no dead embeddings.

Words that lose their piece fall back to smaller pieces: single-character pieces that were used come first, so a known
word does not turn into nothing while the limit has room for them. Where asked, pieces that no such text uses take the
rest of the room: a pretrained encoder knows words that none there happens to hold.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.batching import Tokens
from stillroom.errors import InputError

_JUDGED_TEXTS = 5000


@dataclass(frozen=True)
class Vocabulary:
    """A trimmed tokeniser. tokeniser_json: its tokenizer.json; kept[new id] = id in the teacher's vocabulary.

    pad: new id of the padding token.
    """

    tokeniser_json: str
    kept: npt.NDArray[np.int64]
    pad: int


def trim(
    tokeniser: Any, tokens: Tokens, limit: int, pad: int, special_tokens: bool, unseen: bool = False
) -> Vocabulary:
    """Keep the padding, unknown and special tokens and the most frequent pieces, at most `limit` in all.

    tokens: the transfer set in the teacher's ids. special_tokens: the student reads the tokens put around every
    text, as the teacher does, and its forced tokens keep their order (encoders that number positions from the padding
    id rely on that); without them, for a bag of words, the padding token comes first. unseen: pieces that the transfer
    set lacks take what room is left, in the order of their ids, mostly that of how frequent they are in a language.
    Raises InputError for a tokeniser that is not WordPiece, BPE, Unigram or WordLevel.
    """
    spec = json.loads(tokeniser.to_str())
    model = spec["model"]
    kind = model["type"]
    if kind not in _PIECES:
        raise InputError(f"tokeniser of type {kind!r} cannot be trimmed; {', '.join(_PIECES)} can")
    ids = ids_of(model)
    ids.update({added["content"]: added["id"] for added in spec["added_tokens"]})
    names = {index: name for name, index in ids.items()}
    forced = _forced(spec, ids, pad)
    counts = np.bincount(tokens.ids, minlength=max(names) + 1)
    used = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index] and int(index) in names]
    pieces = [names[index] for index in used]
    spare = [names[index] for index in sorted(names) if not counts[index]] if unseen else []
    if kind == "WordPiece":
        spare = [piece for piece in spare if _can_come(tokeniser, piece, model)]
    wanted = _PIECES[kind](model, ids, pieces, spare, limit - len(forced))
    first = sorted(forced) if special_tokens else [pad, *forced]
    kept = list(dict.fromkeys([*first, *(ids[name] for name in wanted)]))
    renumbered = {names[old]: new for new, old in enumerate(kept)}
    if not special_tokens:
        spec["post_processor"] = None
    _renumber(spec, renumbered)
    spec["truncation"] = spec["padding"] = None
    return Vocabulary(json.dumps(spec, ensure_ascii=False), np.asarray(kept, dtype=np.int64), kept.index(pad))


def trimming(original: Any, trimmed: Any, texts: Sequence[str]) -> dict[str, float]:
    """What a trimmed tokeniser loses on texts that it was not trimmed for.

    pieces and pieces_of: kept, and there were; changed: share of the texts that are cut otherwise; unknown and
    unknown_before: share of the pieces that are the unknown one, after and before. Of many texts the first are read.
    """
    some = list(texts[:_JUDGED_TEXTS])
    before, after = (tool.encode_batch(some, add_special_tokens=False) for tool in (original, trimmed))
    changed = [ours.tokens != theirs.tokens for ours, theirs in zip(after, before, strict=True)]
    return {
        "pieces": trimmed.get_vocab_size(),
        "pieces_of": original.get_vocab_size(),
        "changed": sum(changed) / max(len(some), 1),
        "unknown": _unknown_share(trimmed, after),
        "unknown_before": _unknown_share(original, before),
    }


def _unknown_share(tokeniser: Any, encodings: Sequence[Any]) -> float:
    unknown = _unknown(json.loads(tokeniser.to_str())["model"])
    tokens = [token for encoding in encodings for token in encoding.tokens]
    return tokens.count(unknown) / max(len(tokens), 1)


def _unknown(model: Mapping[str, Any]) -> str | None:
    """The piece that stands for what no other spells; a tokeniser of bytes has none."""
    if model["type"] == "Unigram":
        return model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
    name: str | None = model.get("unk_token")
    return name


def ids_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Ids of the pieces of a tokeniser's model, by name."""
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _forced(spec: Mapping[str, Any], ids: Mapping[str, int], pad: int) -> list[int]:
    unknown = _unknown(spec["model"])
    special = [added["id"] for added in spec["added_tokens"] if added["special"]]
    around = [ids[name] for name in _names_around(spec.get("post_processor"))]
    return list(
        dict.fromkeys([pad, *([ids[unknown]] if unknown is not None and unknown in ids else []), *special, *around])
    )


def _names_around(processor: Mapping[str, Any] | None) -> list[str]:
    """Tokens that a post-processor puts around a text."""
    if processor is None:
        return []
    inner = [name for part in processor.get("processors", ()) for name in _names_around(part)]
    ends = [processor[end][0] for end in ("sep", "cls") if isinstance(processor.get(end), list)]
    told = [name for token in (processor.get("special_tokens") or {}).values() for name in token["tokens"]]
    return [*inner, *ends, *told]


def _can_come(tokeniser: Any, piece: str, model: Mapping[str, Any]) -> bool:
    """Whether a word can have this piece: BERT's vocabularies hold a thousand like [unused7], which are cut before."""
    part = piece.removeprefix(model.get("continuing_subword_prefix", "##"))
    if tokeniser.normalizer is not None and tokeniser.normalizer.normalize_str(part) != part:
        return False
    return tokeniser.pre_tokenizer is None or len(tokeniser.pre_tokenizer.pre_tokenize_str(part)) == 1


def _letters(used: Iterable[str]) -> list[str]:
    """Every letter of the pieces, those of frequent pieces first."""
    return list(dict.fromkeys(letter for piece in used for letter in piece))


def _frequent(used: Iterable[str], always: Iterable[str], limit: int) -> list[str]:
    return list(dict.fromkeys([*always, *used]))[: max(limit, 0)]


def _word_pieces(
    model: Mapping[str, Any], ids: Mapping[str, int], used: list[str], spare: list[str], limit: int
) -> list[str]:
    prefix = model.get("continuing_subword_prefix", "##")
    letters = _letters(piece.removeprefix(prefix) for piece in used)
    singles = [piece for letter in letters for piece in (letter, prefix + letter) if piece in ids]
    return _frequent([*used, *spare], singles, limit)


def _unigram_pieces(
    model: Mapping[str, Any], ids: Mapping[str, int], used: list[str], spare: list[str], limit: int
) -> list[str]:
    return _frequent([*used, *spare], [letter for letter in _letters(used) if letter in ids], limit)


def _bpe_pieces(
    model: Mapping[str, Any], ids: Mapping[str, int], used: list[str], spare: list[str], limit: int
) -> list[str]:
    """A piece needs both parts of its merge, down to single symbols; whole chains are kept or none."""
    prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    parts = parts_of_merges(model)
    forms = (form for letter in _letters(used) for form in (letter, prefix + letter, letter + suffix))
    kept = dict.fromkeys(_frequent((), (form for form in forms if form in ids), limit))
    for piece in (*used, *spare):
        chain: dict[str, None] = {}
        _collect(piece, parts, chain)
        new = [name for name in chain if name not in kept and name in ids]
        if len(kept) + len(new) <= limit:
            kept.update(dict.fromkeys(new))
    return list(kept)


def parts_of_merges(model: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The two parts that a BPE model merges into each piece; of several ways the first."""
    prefix = model.get("continuing_subword_prefix") or ""
    parts: dict[str, tuple[str, str]] = {}
    for merge in model["merges"]:
        left, right, joined = _merge(merge, prefix)
        parts.setdefault(joined, (left, right))
    return parts


def _merge(merge: Any, prefix: str) -> tuple[str, str, str]:
    """Left part, right part and result of a merge, in either of the forms that tokenizer.json has had."""
    left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
    return left, right, left + right.removeprefix(prefix)


def _collect(piece: str, parts: Mapping[str, tuple[str, str]], into: dict[str, None]) -> None:
    into[piece] = None
    for part in parts.get(piece, ()):
        if part not in into:
            _collect(part, parts, into)


def _word_level(
    model: Mapping[str, Any], ids: Mapping[str, int], used: list[str], spare: list[str], limit: int
) -> list[str]:
    return _frequent([*used, *spare], (), limit)


_PIECES = {
    "WordPiece": _word_pieces,
    "BPE": _bpe_pieces,
    "Unigram": _unigram_pieces,
    "WordLevel": _word_level,
}


def _renumber(spec: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    model = spec["model"]
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        unknown = _unknown(model)
        lowest = min(scores.values())
        ordered = sorted(new_ids, key=new_ids.__getitem__)
        model["vocab"] = [[piece, scores.get(piece, lowest)] for piece in ordered]
        model["unk_id"] = new_ids.get(unknown) if unknown is not None else None
    else:
        model["vocab"] = dict(sorted(new_ids.items(), key=lambda item: item[1]))
    if model["type"] == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [merge for merge in model["merges"] if new_ids.keys() >= set(_merge(merge, prefix))]
    spec["added_tokens"] = [
        {**added, "id": new_ids[added["content"]]} for added in spec["added_tokens"] if added["content"] in new_ids
    ]
    spec["added_tokens"].sort(key=lambda added: added["id"])
    _renumber_post_processor(spec.get("post_processor"), new_ids)


def _renumber_post_processor(processor: dict[str, Any] | None, new_ids: Mapping[str, int]) -> None:
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber_post_processor(inner, new_ids)
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name] = [processor[name][0], new_ids[processor[name][0]]]
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new_ids[name] for name in token["tokens"]]
