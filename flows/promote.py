"""Make a registered version champion, with its proof checked again and an entry in the ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.exceptions import FlowPauseTimeout
from prefect.states import Failed
from pydantic import Field

from flows.approve import ask_for_approval, not_answered
from stillroom import layout
from stillroom.errors import GateRefused
from stillroom.params_file import load_params

_DAY_S = 24 * 60 * 60


@flow(name="promote", persist_result=False)
def promote(
    version: int,
    reason: str,
    actor: str,
    params_file: str = str(layout.PARAMS),
    ask: bool = False,
    wait_s: Annotated[int, Field(ge=1)] = _DAY_S,
) -> Any:
    """Promote a version of the registered model that params.yaml names.

    Args:
        version: Number of the version in the registry.
        reason: Why; stands in the ledger.
        actor: Who; stands in the ledger. Where a person's approval is asked for, it is given by this name.
        params_file: The file whose registry.model is meant.
        ask: Pause first, until somebody has filled in a form on this run's page; the ledger then names them.
        wait_s: How long to wait for the form.

    Returns the ledger entry; the state is named GateRefused where the version lacks its proof or its approval,
    NotApproved where the form says no, and NotAnswered where nobody filled it in.
    """
    from stillroom.registry import promotion

    model = load_params(Path(params_file)).registry.model
    try:
        if ask:
            answer = ask_for_approval(model, version, actor, reason, wait_s)
            if not answer.approve:
                return Failed(name="NotApproved", message=f"{answer.approver} says no: {answer.reason}")
            actor, reason = answer.approver, f"{answer.reason} (asked by {actor}: {reason})"
        entry = promotion.promote(model, version, actor, reason)
    except GateRefused as error:
        return Failed(name="GateRefused", message=str(error))
    except FlowPauseTimeout:
        return not_answered(wait_s)
    get_run_logger().info("%s: version %d is champion", model, version)
    return asdict(entry)
