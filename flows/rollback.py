"""Go back to the champion before this one, by an entry in the ledger like any other."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Failed

from stillroom import layout
from stillroom.errors import GateRefused
from stillroom.params_file import load_params


@flow(name="rollback", persist_result=False)
def rollback(reason: str, actor: str, version: int | None = None, params_file: str = str(layout.PARAMS)) -> Any:
    """Roll the champion back.

    Args:
        reason: Why; stands in the ledger.
        actor: Who; stands in the ledger.
        version: The version to go back to; the champion before this one where it is not given.
        params_file: The file whose registry.model is meant.

    Returns the ledger entry; the state is named GateRefused where that version lacks its proof or its approval.
    """
    from stillroom.registry import promotion

    model = load_params(Path(params_file)).registry.model
    try:
        entry = promotion.rollback(model, actor, reason, version)
    except GateRefused as error:
        return Failed(name="GateRefused", message=str(error))
    get_run_logger().info("%s: version %d is champion again", model, entry.to_version)
    return asdict(entry)
