"""The teacher's pass over the transfer set: only content without an answer is computed."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom import events
from stillroom.batching import Tokens, tokenise
from stillroom.cache.identity import Keys, entry_keys, fingerprint
from stillroom.cache.reader import Reader, unique_keys
from stillroom.cache.shards import DamagedCache, concatenate
from stillroom.cache.store import Store, absent
from stillroom.params import CaptureParams
from stillroom.teacher.inference import forward_batches

_LEAST_COSINE = 0.999

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Captured:
    """What a pass did. computed: entries that had no answer; tokens read for them; seconds of forward and write."""

    reader: Reader
    keys: Keys
    computed: int
    tokens: int
    seconds: float


def capture(
    model: torch.nn.Module,
    tokeniser: Any,
    max_length: int,
    pad: int,
    teacher: Path,
    precision: str,
    texts: Sequence[str],
    settings: CaptureParams,
    root: Path,
    seed: int,
) -> Captured:
    """Fill the store below `root` with the answers for `texts`, and check a seeded sample against the live teacher.

    Every shard_entries entries a shard becomes visible: a pass that is killed goes on after its last shard.
    """
    store = Store(root, fingerprint(teacher, precision, settings.signals))
    keys = entry_keys(texts)
    wanted, first_rows = unique_keys(keys)
    missing = absent(store.reader(), wanted)
    todo = [texts[row] for row in first_rows[missing]]
    began = time.monotonic()
    tokens = tokenise(tokeniser, todo, max_length)
    _fill(store, model, tokens, wanted[missing], pad, settings)
    seconds = time.monotonic() - began
    log.info("capture: %d of %d distinct texts computed in %.1f s", len(todo), len(wanted), seconds)
    reader = store.reader()
    if reader is None:
        raise DamagedCache(f"{store.folder}: nothing was captured")
    _spot_check(reader, model, tokeniser, max_length, pad, texts, keys, settings, seed)
    return Captured(reader, wanted, len(todo), len(tokens.ids), seconds)


def _fill(store: Store, model: torch.nn.Module, tokens: Tokens, keys: Keys, pad: int, settings: CaptureParams) -> None:
    parts: list[dict[str, Any]] = []
    rows_done: list[Any] = []
    waiting = 0
    with events.progress("capture", len(tokens)) as advance:
        for rows, logits, pooled in forward_batches(model, tokens, pad, settings.batch_tokens):
            answers = {"logits": logits, "embedding": pooled}
            parts.append({name: answers[name] for name in settings.signals})
            rows_done.append(rows)
            waiting += len(rows)
            advance(len(rows))
            if waiting >= settings.shard_entries:
                store.add(keys[np.concatenate(rows_done)], concatenate(parts))
                parts, rows_done, waiting = [], [], 0
    if waiting:
        store.add(keys[np.concatenate(rows_done)], concatenate(parts))


def _spot_check(
    reader: Reader,
    model: torch.nn.Module,
    tokeniser: Any,
    max_length: int,
    pad: int,
    texts: Sequence[str],
    keys: Keys,
    settings: CaptureParams,
    seed: int,
) -> None:
    count = min(settings.spot_check, len(texts))
    sample = np.random.default_rng(seed).choice(len(texts), size=count, replace=False)
    stored = reader.read("logits", reader.locate(keys[sample], "texts"))
    tokens = tokenise(tokeniser, [texts[row] for row in sample], max_length)
    for rows, logits, _ in forward_batches(model, tokens, pad, settings.batch_tokens):
        kept = stored[rows]
        norms = np.linalg.norm(kept, axis=1) * np.linalg.norm(logits, axis=1)
        cosine = (kept * logits).sum(axis=1) / np.maximum(norms, 1e-12)
        worst = int(cosine.argmin())
        if not cosine[worst] >= _LEAST_COSINE:  # so that NaN, which argmin takes for the least, is refused too
            raise DamagedCache(
                f"{reader.folder}: the answer for row {int(sample[rows[worst]])} has cosine {cosine[worst]:.4f} to "
                f"the live teacher's, at least {_LEAST_COSINE} is needed; remove this folder and capture again"
            )
