"""The champion's package, handed out whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.errors import GateRefused, InputError
from stillroom.export.runtime import Package
from stillroom.registry import promotion, runs, tracking, versions
from stillroom.registry.champion import champion_package
from stillroom.registry.register import read_release, register


def stored(state: Path) -> list[Path]:
    """The package folders of the artefact store."""
    return [manifest.parent for manifest in sorted((state / "mlartifacts").rglob("stillroom.json"))]


def test_champion_is_handed_out_once_and_predicts(registered: tracking.Tracker, state: Path) -> None:
    promotion.promote("toy", 2, "ada", "first", tracker=registered)
    folder = champion_package("toy")
    package = Package.load(folder)
    assert package.labels[int(package.predict(["great"])[0].argmax())] == "good"
    assert folder.is_relative_to(state / "champion")
    shutil.rmtree(state / "mlartifacts")
    assert champion_package("toy") == folder


def hand_out_all(model: str, versions: int) -> None:
    """Fetch every version; raises the group of those that are refused."""
    refusals = []
    for version in range(1, versions + 1):
        try:
            champion_package(model, str(version))
        except InputError as error:
            refusals.append(error)
    if refusals:
        raise ExceptionGroup("refused", refusals)


@pytest.mark.parametrize("wanted", ["1", "3"])
def test_a_version_by_its_number(registered: tracking.Tracker, wanted: str) -> None:
    assert (champion_package("toy", wanted) / "model.onnx").is_file()


def test_the_alias_follows_the_champion(registered: tracking.Tracker) -> None:
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    first = champion_package("toy")
    promotion.promote("toy", 2, "ada", "second", tracker=registered)
    assert champion_package("toy") != first
    assert champion_package("toy", "1") == first


@pytest.mark.parametrize(
    ("model", "version"), [("toy", "champion"), ("toy", "challenger"), ("toy", "99"), ("nobody", "champion")]
)
def test_no_such_version_is_wrong_input(registered: tracking.Tracker, model: str, version: str) -> None:
    with pytest.raises(InputError, match=f"models:/{model}"):
        champion_package(model, version)


def test_damaged_copy_is_fetched_again(registered: tracking.Tracker) -> None:
    folder = champion_package("toy", "1")
    (folder / "model.onnx").write_bytes(b"half")
    Package.load(champion_package("toy", "1"))


def test_package_replaced_in_the_store_is_refused(registered: tracking.Tracker, state: Path) -> None:
    one, other, *_ = stored(state)
    promotion.promote("toy", 1, "ada", "first", tracker=registered)
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(ExceptionGroup) as refused:
        hand_out_all("toy", 4)
    [told] = refused.value.exceptions
    assert "was registered" in str(told)
    assert not list((state / "champion").glob(".*"))


def test_champion_set_by_hand_without_proof_is_refused(registered: tracking.Tracker) -> None:
    registered.client.set_registered_model_alias("toy", "champion", "3")
    with pytest.raises(GateRefused, match="verdict is FAIL"):
        champion_package("toy")


def test_champion_set_by_hand_without_approval_is_refused(
    tracker: tracking.Tracker, run: runs.Run, make_release: Callable[..., Path]
) -> None:
    asked = {"required": True, "because": "governance.ai_act is high", "four_eyes": False}
    release = read_release(make_release("guarded", approval=asked), "static")
    register(tracker, "toy", release, run, (), {})
    tracker.client.set_registered_model_alias("toy", "champion", "1")
    with pytest.raises(GateRefused, match="needs a person's approval"):
        champion_package("toy")
    assert champion_package("toy", "1").is_dir()
    promotion.promote("toy", 1, "ada", "looked at it", tracker=tracker)
    assert champion_package("toy") == champion_package("toy", "1")
    tracker.client.delete_model_version_tag("toy", "1", versions.APPROVER_TAG)
    assert champion_package("toy").is_dir()
