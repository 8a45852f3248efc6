"""What entitles a version to be champion: package and gate report, read again from the artefact store."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.errors import Absent, GateRefused, InputError, TryAgain
from stillroom.export.runtime import MANIFEST, PackageError, Unread, read_manifest
from stillroom.files import read_json, sha256_file
from stillroom.gate.approval import Approval, recorded
from stillroom.registry import versions
from stillroom.registry.model import fetch
from stillroom.registry.tracking import Tracker
from stillroom.registry.versions import Version

GATE_REPORT = "gate.json"


@dataclass(frozen=True)
class Proof:
    """A version that has its proof. approval: what its gate report asks for; tags: the version's, which anybody who
    may write to the registry can change."""

    version: int
    package_digest: str
    gate_report_sha256: str
    approval: Approval = field(default_factory=Approval)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def evidence(self) -> tuple[str, str]:
        """What would be promoted, as an entry of the ledger tells it."""
        return self.package_digest, self.gate_report_sha256


def prove(tracker: Tracker, model: str, number: int) -> Proof:
    """Check a version's package and gate report, as the artefact store holds them now.

    Raises GateRefused saying what does not hold; Absent for a version that does not exist; others of Stillroom's
    exceptions where that cannot be told here, as when the artefact store refuses the credentials.
    """
    version = versions.get(tracker, model, number)
    if version is None:
        raise Absent(f"{model}: has no version {number} in {tracker.name}")
    with tempfile.TemporaryDirectory(prefix="stillroom-proof-") as scratch:
        try:
            return check(fetched(tracker, model, version, Path(scratch)), model, version)
        except (PackageError, Absent) as error:
            raise GateRefused(f"{model} version {number}: {error}") from error


def fetched(tracker: Tracker, model: str, version: Version, scratch: Path) -> Path:
    """A version's package folder, downloaded below `scratch`; GateRefused, and nothing is fetched, for a version of
    which no package was registered: its source may be anything."""
    if not version.tags.get(versions.MANIFEST_TAG):
        raise GateRefused(
            f"{model} version {version.number}: was not registered by Stillroom (it has no tag {versions.MANIFEST_TAG})"
        )
    return fetch(tracker, model, version.number, scratch)


def checked_manifest(package: Path, model: str, version: Version) -> dict[str, Any]:
    """The manifest of a version's package, every file checked. Raises PackageError if the package is not whole;
    InputError or TryAgain if it may be, and this machine cannot read it."""
    try:
        return read_manifest(package, verify=True)
    except Unread as error:
        if isinstance(error.__cause__, OSError):
            raise TryAgain(f"{model} version {version.number}: {error}") from error
        if sha256_file(package / MANIFEST) != version.tags.get(versions.MANIFEST_TAG):
            raise
        raise InputError(f"{model} version {version.number}: {error}; update Stillroom here") from error


def check(package: Path, model: str, version: Version) -> Proof:
    """Check a package folder against what was registered for a version and against its own gate report."""
    report = genuine(package, model, version)
    verdict = report.get("verdict")
    if verdict != "PASS":
        raise GateRefused(f"{model} version {version.number}: its gate verdict is {verdict}; only PASS is promoted")
    digest = version.tags[versions.DIGEST_TAG]
    if report.get("package_digest") != digest:
        raise GateRefused(
            f"{model} version {version.number}: its gate report is about package "
            f"{report.get('package_digest')}, not {digest}"
        )
    try:
        asked = recorded(report)
    except InputError as error:
        raise GateRefused(f"{model} version {version.number}: {error}") from error
    return Proof(version.number, digest, version.tags[versions.GATE_TAG], asked, version.tags)


def genuine(package: Path, model: str, version: Version) -> Mapping[str, Any]:
    """The gate report in a package folder, whatever its verdict, if both are what was registered for a version."""
    manifest = checked_manifest(package, model, version)
    if GATE_REPORT not in manifest["files"]:
        raise GateRefused(f"{model} version {version.number}: its package has no {GATE_REPORT}")
    found = (manifest["digest"], manifest["files"][GATE_REPORT], sha256_file(package / MANIFEST))
    names = (versions.DIGEST_TAG, versions.GATE_TAG, versions.MANIFEST_TAG)
    for name, value in zip(names, found, strict=True):
        registered = version.tags.get(name)
        if registered != value:
            raise GateRefused(
                f"{model} version {version.number}: {name} is {value} in the artefact store, "
                f"{registered} was registered; register the package again"
            )
    try:
        report: Mapping[str, Any] = read_json(package / GATE_REPORT)
    except InputError as error:
        raise GateRefused(f"{model} version {version.number}: {error}") from error
    return report
