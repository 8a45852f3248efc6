"""The small JSON that a stage leaves about one execution: `started` before work, `finished` once outs are in place.

No receipt and exit code 0 means that DVC served the stage from its cache. Started and not finished means killed.
"""

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from stillroom.errors import InputError
from stillroom.files import read_json, write_json

RECEIPTS_VARIABLE = "STILLROOM_RECEIPTS"


class Receipt(BaseModel):
    """One execution of a stage. Times are seconds (since the epoch where named `_at`), memory is bytes."""

    model_config = ConfigDict(frozen=True)

    stage: str
    state: Literal["started", "finished", "failed"]
    pid: int
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    error: str | None = None
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    metrics: dict[str, float] = {}


def address(stage: str, item: str | None) -> str:
    """The stage's name as DVC writes it: `distil@static`, or `split` for a stage without items."""
    return f"{stage}@{item}" if item else stage


def receipt_path(stage: str, folder: Path | None = None) -> Path:
    """Where the receipt of a stage address stands."""
    if folder is None:
        folder = Path(os.environ.get(RECEIPTS_VARIABLE, ".stillroom/receipts"))
    return folder / f"{stage}.json"


def read_receipt(stage: str, folder: Path | None = None) -> Receipt | None:
    """The receipt of a stage's last execution, or None if there is none that can be read."""
    try:
        return Receipt.model_validate(read_json(receipt_path(stage, folder)))
    except (InputError, ValueError):
        return None


def write_started(stage: str) -> Receipt:
    """Leave the receipt that says an execution began."""
    receipt = Receipt(stage=stage, state="started", pid=os.getpid(), started_at=time.time())
    write_json(receipt_path(stage), receipt.model_dump())
    return receipt


def write_ended(receipt: Receipt, exit_code: int, error: str | None, metrics: Mapping[str, Any]) -> None:
    """Replace the started receipt by one that says how the execution ended and what it took."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    ended = receipt.model_copy(
        update={
            "state": "finished" if exit_code == 0 else "failed",
            "ended_at": time.time(),
            "exit_code": exit_code,
            "error": error,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_memory_bytes": usage.ru_maxrss * 1024,
            "metrics": dict(metrics),
        }
    )
    write_json(receipt_path(receipt.stage), ended.model_dump())
