"""Gather answers into shards and write them beside the computing."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from stillroom.cache.codecs import Encoded, Signal, join
from stillroom.cache.identity import Keys
from stillroom.cache.store import Store

_SHARD_BYTES = 64 << 20
_SHARD_S = 30.0
"""So much work is lost at most when a pass is killed."""


class Writer:
    """Takes the answers of batches; a shard is written when it is large enough, or its first answer is old.

    One shard is gathered while another is written, no more: memory stays bounded, and an error of the disk or the
    bucket stops the pass at the next shard. Used as a context: at its end all is written, or the error is raised.
    """

    def __init__(self, store: Store, shard_entries: int) -> None:
        self._store = store
        self._entries = shard_entries
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
                self._wait()
        finally:
            self._pool.shutdown()

    def put(self, keys: Keys, answers: dict[Signal, Encoded]) -> None:
        """Add the answers of a batch. Raises what the writing of an earlier shard raised."""
        self._keys.append(keys)
        self._answers.append(answers)
        self._waiting += len(keys)
        self._bytes += sum(values.nbytes for encoded in answers.values() for values in encoded.values())
        old = time.monotonic() - self._began > _SHARD_S
        if self._waiting >= self._entries or self._bytes >= _SHARD_BYTES or old:
            self._write()

    def _start(self) -> None:
        self._keys: list[Keys] = []
        self._answers: list[dict[Signal, Encoded]] = []
        self._waiting = self._bytes = 0
        self._began = time.monotonic()

    def _write(self) -> None:
        if not self._waiting:
            return
        self._wait()
        self._writing = self._pool.submit(self._add, self._keys, self._answers)
        self._start()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _add(self, keys: list[Keys], answers: list[dict[Signal, Encoded]]) -> None:
        joined = {signal: join([part[signal] for part in answers]) for signal in answers[0]}
        self._store.add(np.concatenate(keys), joined)
