"""Whether the registry and the artefact store still hold the champion that the ledger's last entry tells of.

Tags and files can be changed by whoever may write there; entries of the ledger hold each other in place, so they are
what the rest is compared with.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from stillroom.errors import Absent
from stillroom.export.runtime import MANIFEST, PackageError
from stillroom.files import sha256_file
from stillroom.registry import versions
from stillroom.registry.ledger import Entry
from stillroom.registry.model import fetch
from stillroom.registry.proof import GATE_REPORT, checked_manifest
from stillroom.registry.tracking import Tracker, error_code, translated
from stillroom.registry.versions import Version

FLAWS = (PackageError, Absent)
"""What says that a package is not there or is another; that it cannot be asked for is no flaw of it."""


def home(tracker: Tracker, model: str, last: Entry) -> int | None:
    """The version that an entry means: its number may be another one in a registry that was rebuilt, and its tags
    may have been edited."""
    version = versions.get(tracker, model, last.to_version)
    if version is not None and version.holds(*last.evidence):
        return version.number
    elsewhere = versions.find(tracker, model, *last.evidence)
    for candidate in (elsewhere, version):
        if candidate is not None and versions.MANIFEST_TAG in candidate.tags:  # Stillroom registered it
            with suppress(*FLAWS):
                _verify(tracker, model, candidate, last)
                return candidate.number
    return None


def inspect(tracker: Tracker, model: str, number: int, last: Entry) -> list[str]:
    """Read the champion's package again, put back what was edited in its version's tags, and tell of each.

    Raises one of FLAWS if the artefact store does not have the package that was promoted.
    """
    version = versions.get(tracker, model, number)
    if version is None:
        raise Absent(f"version {number} was deleted")
    manifest_sha256 = _verify(tracker, model, version, last)
    registered = version.tags.get(versions.MANIFEST_TAG)
    if registered != manifest_sha256:
        raise PackageError(
            f"{versions.MANIFEST_TAG} is {manifest_sha256} in the artefact store, {registered} was registered"
        )
    return _mend(tracker, model, version, last)


def withdraw(tracker: Tracker, model: str, number: int, reason: str) -> None:
    """Take the alias from a champion and tell at its version why: who asks for the champion must not get this one."""
    refuse(tracker, model, number, reason)
    with translated(tracker.uri):
        tracker.client.delete_registered_model_alias(model, versions.CHAMPION)


def damage(number: int, flaw: str) -> str:
    """What is told at a champion that is withdrawn because its package is not the one that was promoted."""
    return f"version {number} is damaged: {flaw}"


def refuse(tracker: Tracker, model: str, number: int, reason: str) -> None:
    """Tell at a version why it must not be champion; nothing if somebody deleted it meanwhile."""
    with translated(tracker.uri):
        try:
            tracker.client.set_model_version_tag(model, str(number), versions.REFUSED_TAG, reason[:4000])
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise


def _verify(tracker: Tracker, model: str, version: Version, last: Entry) -> str:
    """The sha256 of the manifest of a version's package, if that is the package which an entry promoted."""
    with tempfile.TemporaryDirectory(prefix="stillroom-standing-") as scratch:
        package = fetch(tracker, model, version.number, Path(scratch))
        manifest = checked_manifest(package, model, version)
        found = manifest["digest"], manifest["files"].get(GATE_REPORT)
        if found != last.evidence:
            raise PackageError(
                f"the artefact store has package {found[0]} with gate report {found[1]}, entry {last.sequence} "
                f"promoted {last.package_digest} with {last.gate_report_sha256}"
            )
        return sha256_file(package / MANIFEST)


def _mend(tracker: Tracker, model: str, version: Version, last: Entry) -> list[str]:
    expected = {
        versions.DIGEST_TAG: last.package_digest,
        versions.GATE_TAG: last.gate_report_sha256,
        versions.VERDICT_TAG: "PASS",
    }
    edited = {name: value for name, value in expected.items() if version.tags.get(name) != value}
    with translated(tracker.uri):
        for name, value in edited.items():
            tracker.client.set_model_version_tag(model, str(version.number), name, value)
        if versions.REFUSED_TAG in version.tags:
            tracker.client.delete_model_version_tag(model, str(version.number), versions.REFUSED_TAG)
    return [f"tag {name} of version {version.number} was {version.tags.get(name)!r}" for name in edited]
