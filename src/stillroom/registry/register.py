"""Register the packages of a run: one version per package and gate report, looked up before it is made."""

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import InputError
from stillroom.export.runtime import MANIFEST, read_manifest
from stillroom.files import read_json, sha256_file
from stillroom.registry import model as logged
from stillroom.registry import runs, versions
from stillroom.registry.history import Point
from stillroom.registry.proof import GATE_REPORT
from stillroom.registry.runs import Run
from stillroom.registry.tracking import Tracker, as_global, error_code, translated

_CARD = "MODEL_CARD.md"
_METADATA = re.compile(r"\A---\n.*?\n---\n\s*", re.DOTALL)
_MAX_DESCRIPTION = 5000
_LINEAGE = ("data", "teacher", "checkpoint", "cache", "code", "student", "lock")

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Release:
    """A released package on disk, checked: its manifest, its gate report and their digests."""

    student: str
    folder: Path
    manifest: Mapping[str, Any]
    gate: Mapping[str, Any]
    gate_sha256: str

    @property
    def digest(self) -> str:
        """Identity of what the package predicts."""
        return str(self.manifest["digest"])

    @property
    def verdict(self) -> str:
        """PASS, FAIL or INCONCLUSIVE."""
        return str(self.gate.get("verdict"))


def read_release(folder: Path, student: str) -> Release:
    """Read and verify release/NAME; InputError if it is not whole or its gate report is about another."""
    manifest = read_manifest(folder, verify=True)
    path = folder / GATE_REPORT
    if GATE_REPORT not in manifest["files"]:
        raise InputError(f"{folder}: a release needs a {GATE_REPORT} that {MANIFEST} lists; run the stage report")
    gate = read_json(path)
    if gate.get("package_digest") != manifest["digest"]:
        raise InputError(
            f"{path}: is about package {gate.get('package_digest')}, not {manifest['digest']}; run the stage report"
        )
    return Release(student, folder, manifest, gate, manifest["files"][GATE_REPORT])


def register(
    tracker: Tracker, model: str, release: Release, run: Run, points: Sequence[Point], tags: Mapping[str, str]
) -> int:
    """Register a release as a version of `model`, return its number; the same release keeps its version, and a card
    that tells other things of it, as after new declarations, becomes that version's description.

    run: the run that measured the package, and points what it measured, which the logged model's page shows
    too. tags: further tags of the version.
    """
    found = versions.find(tracker, model, release.digest, release.gate_sha256)
    described = _description(release.folder)
    if found is not None:
        if found.description != described:
            with translated(tracker.uri):
                tracker.client.update_model_version(model, str(found.number), described)
            log.info("%s: version %d has a new description, from its card", model, found.number)
        return found.number
    _create_model(tracker, model)
    with tempfile.TemporaryDirectory(prefix="stillroom-model-") as scratch:
        model_id = logged.log(
            tracker,
            release.folder,
            name=release.student,
            experiment_id=run.experiment_id,
            run_id=run.run_id,
            params={name: str(release.manifest.get(name)) for name in ("family", "quantisation", "max_length")},
            tags={versions.DIGEST_TAG: release.digest, versions.VERDICT_TAG: release.verdict},
            scratch=Path(scratch),
        )
    with as_global(tracker.uri), translated(tracker.uri):
        created = tracker.client.create_model_version(
            model,
            source=f"models:/{model_id}",
            run_id=run.run_id,
            tags=version_tags(release) | dict(tags),
            description=described,
            model_id=model_id,
        )
    runs.log(tracker, run, points=points, model_id=model_id)
    log.info("%s: version %s is %s, gate %s", model, created.version, release.student, release.verdict)
    return int(created.version)


def version_tags(release: Release) -> dict[str, str]:
    """What a version tells about itself: verdict, retention with its bounds, hashes of all it came from."""
    manifest = release.manifest
    lineage = manifest.get("lineage", {})
    tags = {
        versions.VERDICT_TAG: release.verdict,
        versions.GATE_TAG: release.gate_sha256,
        versions.DIGEST_TAG: release.digest,
        versions.MANIFEST_TAG: sha256_file(release.folder / MANIFEST),
        "student": release.student,
        "family": str(manifest.get("family")),
        "quantisation": str(manifest.get("quantisation")),
        "params": str(manifest.get("params")),
        "size_bytes": str(sum(path.stat().st_size for path in release.folder.rglob("*") if path.is_file())),
        **{f"{name}.sha256": str(lineage[name]) for name in _LINEAGE if name in lineage},
    }
    for metric, bounds in release.gate.get("retention", {}).items():
        tags |= {f"retention.{metric}.{name}": f"{value:.6g}" for name, value in bounds.items()}
    return tags


def challenger(releases: Sequence[Release], selected: str | None) -> Release | None:
    """The candidate to look at: the selected student, or the one that came closest where none passed."""
    for release in releases:
        if release.student == selected:
            return release

    def closeness(release: Release) -> tuple[bool, float]:
        lower = [float(bounds["lower"]) for bounds in release.gate.get("retention", {}).values()]
        return release.verdict == "INCONCLUSIVE", min(lower, default=0.0)

    return max(releases, key=closeness, default=None)


def point_challenger(tracker: Tracker, model: str, number: int) -> None:
    """Let the alias challenger stand at a version; free to move, for it promises nothing."""
    if versions.model(tracker, model).aliases.get(versions.CHALLENGER) != number:
        with translated(tracker.uri):
            tracker.client.set_registered_model_alias(model, versions.CHALLENGER, str(number))


def _create_model(tracker: Tracker, model: str) -> None:
    with translated(tracker.uri):
        try:
            tracker.client.create_registered_model(
                model,
                description="Distilled students. Only a version with gate.verdict PASS may become champion.",
            )
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise


def _description(folder: Path) -> str:
    """The card without its metadata block, which MLflow would show as a heading."""
    card = folder / _CARD
    text = _METADATA.sub("", card.read_text(encoding="utf-8")) if card.is_file() else ""
    return text if len(text) <= _MAX_DESCRIPTION else text[: _MAX_DESCRIPTION - 1] + "…"
