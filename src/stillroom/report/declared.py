"""What people declared about a run, in the words of page and card."""

from typing import Any

from stillroom.report.material import Material

EVIDENCE = "Declared by the owner of this run, not verified: evidence for the people who decide, not legal advice."
HIGH_RISK = (
    "The intended use is declared high-risk under the EU's AI Act: whether the model is used is for a person to decide."
)
_JUDGED = "Cards of checkpoints and the review date are compared when a run starts; its log tells of them."
_LABELS = {
    "intended_use": "intended use",
    "ai_act": "class under the EU's AI Act",
    "teacher_terms": "training on the teacher's outputs",
    "personal_data": "personal data",
    "lawful_basis": "lawful basis",
    "dpia": "data protection impact assessment",
    "owner": "owner",
    "review_by": "to be reviewed by",
    "policy": "policy of the checks",
}


def declarations(material: Material) -> dict[str, Any]:
    """Rows of name and words, what follows from them, and the rules that they break."""
    told = material.governance.model_dump(mode="json")
    return {
        "rows": [(label, told[key] or "not declared") for key, label in _LABELS.items()],
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
