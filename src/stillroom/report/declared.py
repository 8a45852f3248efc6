"""What people declared about a run, in the words of page and card."""

from typing import Any

from stillroom.report.material import Material
from stillroom.report.personal import scan_rows

EVIDENCE = "Declared by the owner of this run, not verified: evidence for the people who decide, not legal advice."
HIGH_RISK = (
    "The intended use is declared high-risk under the EU's AI Act: whether the model is used is for a person to decide."
)
_JUDGED = "Cards of checkpoints and the review date are compared when a run starts; its log tells of them."
_LABELS = {
    "intended_use": "intended use",
    "languages": "languages of the texts",
    "ai_act": "class under the EU's AI Act",
    "teacher_terms": "training on the teacher's outputs",
    "personal_data": "personal data",
    "lawful_basis": "lawful basis",
    "dpia": "data protection impact assessment",
    "policy": "policy of the checks",
}
_KEPT_UP = {
    "owner": "owner",
    "reviewed_on": "last reviewed on",
    "review_by": "to be reviewed by",
    "schedule": "distilled anew",
    "drift_watch": "watch for drift",
}


def declarations(material: Material) -> dict[str, Any]:
    """Rows of name and words, those on maintenance by themselves, what follows, and the rules that they break."""
    told = material.governance.model_dump(mode="json")
    told["languages"] = ", ".join(told["languages"])
    return {
        "rows": [
            *((label, told[key] or "not declared") for key, label in _LABELS.items()),
            *scan_rows(material.scan),
        ],
        "kept_up": [(label, told[key] or "not declared") for key, label in _KEPT_UP.items()],
        "evidence": EVIDENCE,
        "high_risk": HIGH_RISK if material.governance.ai_act == "high" else "",
        "findings": material.findings,
        "judged": f"{_outcome(material)} {_JUDGED}",
    }


def _outcome(material: Material) -> str:
    if material.findings:
        return f"Rules that these declarations break: {len({finding.rule for finding in material.findings})}."
    if material.governance.policy == "off":
        return "The checks are off but for one: personal data need an impact assessment."
    return "These declarations break no rule."
