"""Hand out the package folder of a registered version, the champion's above all."""

import shutil
import tempfile
from pathlib import Path

from stillroom import layout
from stillroom.errors import GateRefused, InputError
from stillroom.export.runtime import MANIFEST, PackageError, read_manifest
from stillroom.files import atomic_folder, sha256_file
from stillroom.registry import approval, ledger, versions
from stillroom.registry.model import fetch
from stillroom.registry.proof import Proof, check
from stillroom.registry.tracking import Tracker, connect
from stillroom.registry.versions import Version


def champion_package(model: str, version: str = versions.CHAMPION, *, tracker: Tracker | None = None) -> Path:
    """The verified package of models:/MODEL@ALIAS or a version number, downloaded once to the state folder.

    Raises InputError where the registry has no such alias or version or its package is damaged, GateRefused
    where the alias champion stands at a version without its proof or its approval.
    """
    tracker = tracker or connect()
    found = versions.resolve(tracker, model, version)
    manifest_sha256 = found.tags.get(versions.MANIFEST_TAG)
    if not manifest_sha256:
        raise InputError(f"models:/{model}/{found.number}: was not registered by Stillroom; it has no package")
    target = layout.state() / "champion" / manifest_sha256
    if not _is_whole(target, manifest_sha256):
        with tempfile.TemporaryDirectory(prefix="stillroom-package-") as scratch:
            package = fetch(tracker, model, found.number, Path(scratch))
            _verify(package, model, found)
            with atomic_folder(target) as folder:
                shutil.copytree(package, folder, dirs_exist_ok=True)
    if version.lower() == versions.CHAMPION:
        _check_approval(model, found, check(target, model, found))
    return target


def _check_approval(model: str, version: Version, proof: Proof) -> None:
    """A version that was moved to by hand and needs an approval is not handed out before it is met and undone."""
    try:
        approval.agree(model, proof, version.tags.get(versions.APPROVER_TAG, ""))
    except GateRefused:
        entries = ledger.read(model, ledger.default_store())
        if not any(version.holds(*entry.evidence) for entry in entries):
            raise


def _is_whole(folder: Path, manifest_sha256: str) -> bool:
    try:
        read_manifest(folder, verify=True)
    except PackageError:
        return False
    return sha256_file(folder / MANIFEST) == manifest_sha256


def _verify(package: Path, model: str, version: Version) -> None:
    digest = read_manifest(package, verify=True)["digest"]
    if (digest, sha256_file(package / MANIFEST)) != (
        version.tags.get(versions.DIGEST_TAG),
        version.tags.get(versions.MANIFEST_TAG),
    ):
        raise InputError(
            f"models:/{model}/{version.number}: its package in the artefact store is {digest}, "
            f"{version.tags.get(versions.DIGEST_TAG)} was registered; register the package again"
        )
