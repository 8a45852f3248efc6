"""What a candidate changes beside the champion that is there, by the answers of both packages to the test rows."""

import logging
from pathlib import Path
from typing import Any

from stillroom import layout
from stillroom.data.splits import read_snapshot, read_split
from stillroom.errors import GateRefused, InputError
from stillroom.export.predictions import read_probabilities
from stillroom.export.runtime import Package
from stillroom.files import atomic_file, write_json
from stillroom.gate.change import Change, answers, compare
from stillroom.gate.evidence import PREDICTIONS
from stillroom.problem import choices
from stillroom.registry.champion import champion_package
from stillroom.registry.register import Release
from stillroom.registry.tracking import Tracker
from stillroom.report.page import tell_change

log = logging.getLogger("stillroom")


def forget_change(workspace: Path) -> None:
    """Remove what an earlier record told of a change."""
    for path in (layout.CHANGE, layout.CHANGE_PAGE):
        (workspace / path).unlink(missing_ok=True)


def change_since(
    tracker: Tracker, workspace: Path, model: str, champion: int, candidate: Release, confidence: float
) -> Change | None:
    """Compare a released candidate with version `champion`, and write reports/change.json and the page that tells it,
    reports/report.html; None, with a warning, where that version's package is not to be had.

    The candidate's answers are those that the gate judged. The champion answers by its package; if it was trained on
    other data it may know some of these test rows, which the file tells as same_data false.
    """
    try:
        package = Package.load(champion_package(model, str(champion), tracker=tracker))
    except (InputError, GateRefused) as error:
        log.warning("%s: what changes since version %d cannot be told: %s", model, champion, error)
        return None
    snapshot, test = read_snapshot(workspace / layout.SPLIT), read_split(workspace / layout.SPLIT, "test")
    folder = workspace / layout.EVALUATIONS / candidate.student
    own = read_probabilities(folder / PREDICTIONS, "student", test)
    before, problem = choices(package.predict(test.text), package.problem_type), snapshot.problem_type
    change = compare(
        answers(test.label, snapshot.labels, problem),
        answers(before, package.manifest["labels"], package.problem_type),
        answers(choices(own, problem), snapshot.labels, problem),
        confidence,
    )
    manifests: dict[str, Any] = {"champion": package.manifest, "candidate": candidate.manifest}
    told = {name: {"student": one["name"], "package_digest": one["digest"]} for name, one in manifests.items()}
    told["champion"]["version"] = champion
    same_data = package.manifest["lineage"].get("data") == candidate.manifest["lineage"].get("data")
    whole = {"model": model, **told, "same_data": same_data, **change.model_dump(mode="json")}
    write_json(workspace / layout.CHANGE, whole)
    page = (workspace / layout.REPORT / layout.PAGE).read_text(encoding="utf-8")
    with atomic_file(workspace / layout.CHANGE_PAGE) as target:
        target.write_text(tell_change(page, whole, change.in_words()), encoding="utf-8")
    log.info("%s: since version %d %s", model, champion, change.in_words())
    return change
