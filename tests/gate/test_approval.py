"""Who must agree: what the params ask for, and what a report says of it afterwards."""

from typing import Any

import pytest

from stillroom.errors import InputError
from stillroom.gate.approval import Approval, asked, recorded
from stillroom.gate_params import GateParams
from stillroom.governance_params import GovernanceParams


@pytest.mark.parametrize(
    ("gate", "ai_act", "because"),
    [
        ({}, "minimal", None),
        ({}, "limited", None),
        ({}, "unknown", None),
        ({}, "high", "governance.ai_act is high"),
        ({"approval": "human"}, "minimal", "gate.approval is human"),
        ({"approval": "human"}, "high", "governance.ai_act is high"),
        ({"four_eyes": True}, "unknown", "gate.four_eyes is true"),
        ({"four_eyes": True, "approval": "auto"}, "high", "governance.ai_act is high"),
    ],
)
def test_a_person_is_asked_for_by_any_of_three_params(gate: dict[str, Any], ai_act: Any, because: str | None) -> None:
    found = asked(GateParams(**gate), GovernanceParams(ai_act=ai_act))
    assert (found.required, found.four_eyes) == (because is not None, gate.get("four_eyes", False))
    assert found.because == (because or "gate.approval is auto")
    assert recorded({"approval": found.model_dump(mode="json")}) == found


@pytest.mark.parametrize("report", [{}, {"approval": None}])
def test_reports_that_are_silent_ask_for_nobody(report: dict[str, Any]) -> None:
    assert recorded(report) == Approval(required=False)


@pytest.mark.parametrize("told", ["human", True, {"required": "no"}, {"required": 0}, {"requires": True}])
def test_a_report_that_cannot_be_understood_asks_for_more_than_nothing(told: Any) -> None:
    with pytest.raises(InputError, match="its gate report says of approval"):
        recorded({"approval": told})
