"""Whether a person must agree before a student that passed becomes champion: part of its gate report."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.errors import InputError
from stillroom.gate_params import GateParams
from stillroom.governance_params import GovernanceParams


class Approval(BaseModel):
    """What was asked for when the student was judged. four_eyes: whoever approves is not whoever ran the pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    required: bool = False
    because: str = "gate.approval is auto"
    four_eyes: bool = False


def asked(gate: GateParams, governance: GovernanceParams) -> Approval:
    """What the params ask for; a high-risk use needs a person whatever the gate says, and so do four eyes."""
    reasons = {
        "governance.ai_act is high": governance.ai_act == "high",
        "gate.four_eyes is true": gate.four_eyes,
        "gate.approval is human": gate.approval == "human",
    }
    because = next((reason for reason, holds in reasons.items() if holds), None)
    if because is None:
        return Approval()
    return Approval(required=True, because=because, four_eyes=gate.four_eyes)


def recorded(report: Mapping[str, Any]) -> Approval:
    """What a gate report as JSON asks for: nobody where it is silent. Raises InputError where it is no answer."""
    told = report.get("approval")
    try:
        return Approval() if told is None else Approval.model_validate(told, strict=True)
    except ValidationError as error:
        raise InputError(f"its gate report says of approval {told!r}; run the select stage again") from error
