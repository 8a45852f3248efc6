"""Make a registered version champion, with its proof checked again and an entry in the ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Failed

from stillroom import layout
from stillroom.errors import GateRefused
from stillroom.params_file import load_params


@flow(name="promote", persist_result=False)
def promote(version: int, reason: str, actor: str, params_file: str = str(layout.PARAMS)) -> Any:
    """Promote a version of the registered model that params.yaml names.

    Args:
        version: Number of the version in the registry.
        reason: Why; stands in the ledger.
        actor: Who; stands in the ledger.
        params_file: The file whose registry.model is meant.

    Returns the ledger entry; the state is named GateRefused where the version lacks its proof.
    """
    from stillroom.registry import promotion

    model = load_params(Path(params_file)).registry.model
    try:
        entry = promotion.promote(model, version, actor, reason)
    except GateRefused as error:
        return Failed(name="GateRefused", message=str(error))
    get_run_logger().info("%s: version %d is champion", model, version)
    return asdict(entry)
