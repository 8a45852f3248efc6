"""Which receipt belongs to which fingerprint: a stage served from DVC's cache keeps the record of its
execution.

A receipt names its stage, not its key, because the stage cannot know DVC's key. The runner knows both after
an execution, and writes them down in the state folder, which all workspaces share.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.stages.receipt import Receipt, read_receipt

_FOLDER = Path("receipts/by-fingerprint")


class _Binding(BaseModel):
    model_config = ConfigDict(frozen=True)

    fingerprint: str
    receipt: Receipt


def remember(state: Path, fingerprint: str, receipt: Receipt) -> None:
    """Bind the receipt of a finished execution to the fingerprint that it produced."""
    if not fingerprint:
        return
    binding = _Binding(fingerprint=fingerprint, receipt=receipt).model_dump()
    write_json(_by_execution(state, receipt), binding)
    write_json(state / _FOLDER / f"{fingerprint}.json", binding)


def recall(state: Path, receipts: Path, address: str, fingerprint: str) -> Receipt | None:
    """The receipt of the execution behind a fingerprint, or None if nobody here saw it.

    One left by a plain `dvc repro` is taken, and bound, unless it is known to belong to another fingerprint.
    """
    if not fingerprint:
        return None
    bound = _read(state / _FOLDER / f"{fingerprint}.json")
    if bound is not None:
        return bound.receipt
    last = read_receipt(address, receipts)
    if last is None or last.state != "finished":
        return None
    owner = _read(_by_execution(state, last))
    if owner is not None and owner.fingerprint != fingerprint:
        return None
    remember(state, fingerprint, last)
    return last


def _by_execution(state: Path, receipt: Receipt) -> Path:
    return state / _FOLDER / f"{receipt.stage}-{round(receipt.started_at * 1000)}-{receipt.pid}.json"


def _read(path: Path) -> _Binding | None:
    try:
        return _Binding.model_validate(read_json(path))
    except (InputError, ValueError):
        return None
