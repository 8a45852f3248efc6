"""What the registry says about the versions of a model: numbers, tags and aliases, as plain values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stillroom.errors import InputError
from stillroom.registry.tracking import Tracker, error_code, translated

CHAMPION = "champion"
CHALLENGER = "challenger"
DIGEST_TAG = "package.digest"
MANIFEST_TAG = "package.manifest.sha256"
GATE_TAG = "gate.sha256"
VERDICT_TAG = "gate.verdict"
APPLIED_TAG = "ledger.applied"
REFUSED_TAG = "promotion.refused"
APPROVER_TAG = "approval.by"
AUTHOR_TAG = "author"
_LAST = 2**31 - 1
"""The largest number that a version can have in MLflow's databases."""
_APPLIED = re.compile(r"([0-9]{1,8})(?: ([0-9a-f]{64}))?")


@dataclass(frozen=True)
class Version:
    """One version of a registered model. run_id: the run that measured it."""

    number: int
    run_id: str
    tags: Mapping[str, str]
    description: str = ""

    def holds(self, package_digest: str, gate_report_sha256: str) -> bool:
        """Whether this version was registered for that package and that gate report."""
        return (self.tags.get(DIGEST_TAG), self.tags.get(GATE_TAG)) == (package_digest, gate_report_sha256)


@dataclass(frozen=True)
class Applied:
    """What the tag of a model tells of a ledger entry: its number, 0 for none, and its sha256 where that is told.
    nonsense: what the tag says where it says anything else."""

    sequence: int
    sha256: str | None
    nonsense: str | None


@dataclass(frozen=True)
class Model:
    """A registered model's aliases (alias → version number) and tags; both empty if it is not registered."""

    aliases: Mapping[str, int]
    tags: Mapping[str, str]

    @property
    def champion(self) -> int | None:
        """The version that the alias champion stands at."""
        return self.aliases.get(CHAMPION)

    @property
    def applied(self) -> Applied:
        """The last ledger entry that the champion alias is known to have followed."""
        told = self.tags.get(APPLIED_TAG)
        found = _APPLIED.fullmatch(told or "0")
        if found is None:
            return Applied(0, None, told)
        return Applied(int(found[1]), found[2], None)


def model(tracker: Tracker, name: str) -> Model:
    """The state of a registered model."""
    with translated(tracker.uri):
        try:
            found = tracker.client.get_registered_model(name)
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return Model(MappingProxyType({}), MappingProxyType({}))
    aliases = {str(alias): int(version) for alias, version in found.aliases.items()}
    return Model(MappingProxyType(aliases), MappingProxyType(dict(found.tags)))


def get(tracker: Tracker, name: str, number: int) -> Version | None:
    """One version, or None if the registry does not have it."""
    if not 0 < number <= _LAST:
        return None
    with translated(tracker.uri):
        try:
            found = tracker.client.get_model_version(name, str(number))
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return _plain(found)


def find(tracker: Tracker, name: str, package_digest: str, gate_report_sha256: str) -> Version | None:
    """The first version registered for this package with this gate report."""
    query = f"name = '{name}' and tags.`{DIGEST_TAG}` = '{package_digest}'"
    with translated(tracker.uri):
        found = [_plain(version) for version in tracker.client.search_model_versions(query)]
    same = [version for version in found if version.holds(package_digest, gate_report_sha256)]
    return min(same, key=lambda version: version.number, default=None)


def resolve(tracker: Tracker, name: str, alias_or_number: str) -> Version:
    """The version that an alias or a number names; raises InputError where there is none."""
    if alias_or_number.isdecimal():
        number: int | None = int(alias_or_number)
    else:
        number = model(tracker, name).aliases.get(alias_or_number.lower())
    version = None if number is None else get(tracker, name, number)
    if version is None:
        what = "version" if alias_or_number.isdecimal() else "alias"
        raise InputError(
            f"models:/{name}: has no {what} {alias_or_number!r} in {tracker.name}; "
            "run the pipeline until a student passes, or give --package"
        )
    return version


def _plain(found: object) -> Version:
    return Version(
        number=int(getattr(found, "version", 0)),
        run_id=str(getattr(found, "run_id", "") or ""),
        tags=MappingProxyType(dict(getattr(found, "tags", {}))),
        description=str(getattr(found, "description", "") or ""),
    )
