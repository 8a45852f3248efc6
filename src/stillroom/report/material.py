"""What a report is made of: the summary, and what stands behind its figures. Gathered by the report stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillroom.data.manifest import PersonalDataReport
from stillroom.governance.check import Finding
from stillroom.governance_params import GovernanceParams
from stillroom.problem import ProblemType
from stillroom.report.costs import Costs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
History = Sequence[Mapping[str, float]]
PerClass = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: mean confidence, accuracy and number of rows of each bin."""

    confidence: Floats
    accuracy: Floats
    rows: Ints


@dataclass(frozen=True)
class StudentMaterial:
    """One student beside its figures in the summary. confusion: rows by [label, chosen class], if each has one.

    trimming: what its vocabulary lost. teacher_latency_ms: of both of the teacher's forms, measured beside it.
    checkpoint: the pretrained encoder that it started from, if one. trials: what its search tried, and settings: what
    that chose; empty and None where nothing was searched.
    """

    name: str
    gate: Mapping[str, Any]
    manifest: Mapping[str, Any]
    per_class: PerClass
    confusion: Ints | None
    reliability: Bins
    history: History
    baseline_history: History
    max_length: int
    machine: Mapping[str, Any]
    trimming: Mapping[str, float]
    teacher_latency_ms: Mapping[str, Mapping[str, float]]
    checkpoint: Mapping[str, Any] | None = None
    trials: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Material:
    """A run. `summary` is reports/summary.json, `snapshot` the manifest of the split, both as JSON.

    findings: rules that the declarations in `governance` and of the licences break by themselves, or beside the scan of
    the texts for personal data, where one was made. costs: None while params.yaml has no prices. machine_watts: as
    declared. teacher_history: of the first of teacher_members. grown: artifacts/grown/grown.json.
    """

    summary: Mapping[str, Any]
    snapshot: Mapping[str, Any]
    teacher_source: str
    teacher_licence: str | None
    data_licence: str | None
    teacher_per_class: PerClass
    teacher_reliability: Bins
    teacher_history: History
    students: Sequence[StudentMaterial]
    governance: GovernanceParams
    findings: Sequence[Finding]
    grown: Mapping[str, Any]
    costs: Costs | None = None
    machine_watts: float | None = None
    scan: PersonalDataReport | None = None
    teacher_members: int = 1

    @property
    def problem_type(self) -> ProblemType:
        """Whether a text has one label or any number of them."""
        told: ProblemType = self.snapshot["problem_type"]
        return told

    @property
    def labels(self) -> Sequence[str]:
        """Class names by class id."""
        labels: Sequence[str] = self.snapshot["labels"]
        return labels
