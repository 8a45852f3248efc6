"""The sentinel as a process of its own beside a real MLflow server, and hands that change everything but the ledger."""

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from stillroom import layout
from stillroom.errors import GateRefused, InputError
from stillroom.files import write_json
from stillroom.registry import promotion, runs, tracking, versions
from stillroom.registry.champion import champion_package
from stillroom.registry.register import read_release, register
from tests.registry.conftest import OTHERS_WARNINGS, flip_a_byte, mlflow_server, replace_by_another, write_release

pytestmark = [pytest.mark.slow, pytest.mark.serial, *(pytest.mark.filterwarnings(w) for w in OTHERS_WARNINGS)]

SENTINEL = """
import json, sys, time
from pathlib import Path
from stillroom.errors import StillroomError
from stillroom.registry import promotion, tracking
promotion._SETTLE_S = 0.3
tracker, watched = tracking.connect(), Path(sys.argv[1])
while True:
    model = json.loads(watched.read_text()) if watched.exists() else None
    if model:
        try:
            found = promotion.reconcile(model, tracker=tracker)
            told = [model, found.outcome, found.champion, found.detail]
        except StillroomError as error:
            told = [model, type(error).__name__, None, str(error)]
        print(json.dumps(told), flush=True)
    time.sleep(0.1)
"""
VERDICTS = {1: "PASS", 2: "PASS", 3: "FAIL"}
WAIT_S = 90.0


@dataclass
class Site:
    """A server with versions to copy, and what the sentinel beside it says."""

    tracker: tracking.Tracker
    login: str
    sentinel: "subprocess.Popen[bytes]"
    root: Path

    def rest(self, method: str, path: str, **body: str) -> None:
        """A request as curl would send it: MLflow's API, and nothing of Stillroom's."""
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {self.login}"}
        url = f"{tracking.without_credentials(self.tracker.uri)}/api/2.0/mlflow/{path}"
        urlopen(Request(url, json.dumps(body).encode(), headers, method=method), timeout=30).close()


@dataclass
class Model:
    """A registered model of the test's own, whose version 1 is champion; 2 passed and 3 failed."""

    site: Site
    name: str
    mark: int = field(default=0)

    @property
    def champion(self) -> int | None:
        return versions.model(self.site.tracker, self.name).champion

    def tags(self, number: int) -> dict[str, str]:
        found = versions.get(self.site.tracker, self.name, number)
        assert found is not None
        return dict(found.tags)

    def move(self, number: int) -> None:
        body = {"name": self.name, "alias": "champion", "version": str(number)}
        self.site.rest("POST", "registered-models/alias", **body)

    def remove_alias(self) -> None:
        self.site.rest("DELETE", "registered-models/alias", name=self.name, alias="champion")

    def delete(self, number: int) -> None:
        self.site.rest("DELETE", "model-versions/delete", name=self.name, version=str(number))

    def edit(self, number: int, key: str, value: str) -> None:
        body = {"name": self.name, "version": str(number), "key": key, "value": value}
        self.site.rest("POST", "model-versions/set-tag", **body)

    def edit_applied(self, value: str) -> None:
        self.site.rest("POST", "registered-models/set-tag", name=self.name, key=versions.APPLIED_TAG, value=value)

    def package(self, number: int) -> Path:
        """Where the artefact store keeps a version's package."""
        digest = self.tags(number)[versions.DIGEST_TAG]
        manifests = (layout.state() / "mlartifacts").rglob("artifacts/package/stillroom.json")
        return next(path.parent for path in manifests if json.loads(path.read_text())["digest"] == digest)

    def told(self, outcome: str) -> str:
        """Wait until the sentinel says this of the model, from the last thing on that was waited for."""
        deadline = time.monotonic() + WAIT_S
        while True:
            lines = (self.site.root / "said").read_text().splitlines()
            for number, line in enumerate(lines[self.mark :], start=self.mark):
                name, found, _, detail = json.loads(line)
                if (name, found) == (self.name, outcome):
                    self.mark = number + 1
                    return str(detail)
            assert self.site.sentinel.poll() is None
            assert time.monotonic() < deadline, f"{outcome} is not among {lines[self.mark :][-20:]}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Site]:
    """The server, three versions of the model `origin`, and the sentinel."""
    root = tmp_path_factory.mktemp("site")
    state = root / "state"
    state.mkdir()
    shutil.copyfile(empty_store, state / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(layout.STATE_VARIABLE, str(state))
        patch.delenv(tracking.URI_VARIABLE, raising=False)
        with mlflow_server(patch), (root / "said").open("wb") as said:
            tracker = tracking.connect()
            experiment = runs.experiment(tracker, "toy")
            run = runs.find_or_create(tracker, experiment, {"kind": "test"}, name="test", start_ms=1, tags={})
            for number, verdict in VERDICTS.items():
                folder = root / str(number)
                write_release(folder, root / "scratch", bias=number / 10, verdict=verdict, lower=0.98)
                assert register(tracker, "origin", read_release(folder, "static"), run, (), {}) == number
            sentinel = subprocess.Popen([sys.executable, "-c", SENTINEL, str(root / "watched")], stdout=said)
            login = f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
            try:
                yield Site(tracker, b64encode(login.encode()).decode(), sentinel, root)
            finally:
                sentinel.kill()
                sentinel.wait()


@pytest.fixture
def model(site: Site, request: pytest.FixtureRequest) -> Model:
    made = Model(site, "m" + "".join(c if c.isalnum() else "-" for c in request.node.name))
    client = site.tracker.client
    client.create_registered_model(made.name)
    with tracking.as_global(site.tracker.uri):
        for number in VERDICTS:
            found = client.get_model_version("origin", str(number))
            told = {"run_id": found.run_id, "tags": found.tags, "model_id": found.source.rpartition("/")[2]}
            client.create_model_version(made.name, source=found.source, **told)
    promotion.promote(made.name, 1, "ada", "first", tracker=site.tracker)
    write_json(site.root / "watched", made.name)
    made.told("in step")
    return made


def test_a_move_to_a_version_that_passed_is_adopted(model: Model) -> None:
    model.move(2)
    model.told("adopted")
    assert model.champion == 2
    model.told("in step")


def test_a_move_to_a_failed_version_is_undone_and_told_there(model: Model) -> None:
    model.move(3)
    assert "verdict is FAIL" in model.told("moved back")
    assert model.champion == 1
    assert "verdict is FAIL" in model.tags(3)[versions.REFUSED_TAG]


def test_a_failed_version_that_is_tagged_as_passed_stays_refused(model: Model) -> None:
    for key, value in model.tags(1).items():
        model.edit(3, key, value)
    with pytest.raises(GateRefused, match="in the artefact store"):
        promotion.promote(model.name, 3, "mallory", "tags lie", tracker=model.site.tracker)
    model.move(3)
    assert "in the artefact store" in model.told("moved back")
    assert model.champion == 1


def test_a_removed_alias_is_put_back(model: Model) -> None:
    model.remove_alias()
    model.told("moved back")
    assert model.champion == 1


def test_a_deleted_champion_leaves_none_until_the_next(model: Model) -> None:
    model.delete(1)
    assert "not in the registry" in model.told("unresolved")
    assert model.champion is None
    assert promotion.promote(model.name, 2, "ada", "next", tracker=model.site.tracker).sequence == 2
    model.told("in step")
    assert model.champion == 2


def test_another_version_may_be_deleted_and_is_promoted_no_more(model: Model) -> None:
    model.delete(2)
    model.told("in step")
    assert model.champion == 1
    with pytest.raises(InputError, match="has no version 2"):
        promotion.promote(model.name, 2, "ada", "why", tracker=model.site.tracker)


@pytest.mark.parametrize("key", [versions.VERDICT_TAG, versions.DIGEST_TAG, versions.GATE_TAG])
@pytest.mark.parametrize("value", ["FAIL", "²"])
def test_edited_tags_of_the_champion_are_put_back(model: Model, key: str, value: str) -> None:
    before = model.tags(1)
    model.edit(1, key, value)
    assert f"tag {key} of version 1 was {value!r}" in model.told("mended")
    assert (model.champion, model.tags(1)) == (1, before)
    model.told("in step")


def test_a_failed_version_does_not_become_champion_in_the_clothes_of_the_champion(model: Model) -> None:
    genuine = model.tags(1)
    for key in (versions.DIGEST_TAG, versions.GATE_TAG, versions.MANIFEST_TAG):
        model.edit(3, key, genuine[key])
    model.edit(1, versions.DIGEST_TAG, "f" * 64)
    model.told("mended")
    assert model.champion == 1


@pytest.mark.parametrize("value", ["x", "-1", "²", "9" * 400], ids=["word", "negative", "superscript", "long"])
def test_nonsense_in_the_tag_of_the_last_applied_entry_is_put_back(model: Model, value: str) -> None:
    model.edit_applied(value)
    assert "tag ledger.applied was" in model.told("mended")
    assert model.champion == 1
    assert versions.model(model.site.tracker, model.name).applied.sequence == 1


def test_a_ledger_that_is_shorter_than_the_alias_has_followed_stops_everything(model: Model) -> None:
    model.edit_applied("7")
    told = model.told("InputError")
    assert "00000007.json" in told
    assert "set it to 1" in told
    model.move(2)
    model.told("InputError")
    with pytest.raises(InputError, match=r"00000007\.json"):
        promotion.promote(model.name, 2, "ada", "why", tracker=model.site.tracker)
    assert model.champion == 2
    model.edit_applied("1")
    model.told("adopted")


def edit_the_manifest(package: Path, other: Path) -> None:
    path = package / "stillroom.json"
    path.write_text(path.read_text().replace('"quantisation": "dynamic_int8"', '"quantisation": "fp32"'))


def remove(package: Path, other: Path) -> None:
    shutil.rmtree(package)


@pytest.mark.parametrize("tamper", [replace_by_another, flip_a_byte, edit_the_manifest, remove])
def test_a_champion_whose_package_was_changed_is_withdrawn_until_it_is_restored(
    model: Model, tmp_path: Path, tamper: Callable[[Path, Path], None]
) -> None:
    package = model.package(1)
    kept = shutil.copytree(package, tmp_path / "kept")
    tamper(package, model.package(2))
    try:
        detail = model.told("damaged")
        assert "version 1 is damaged" in detail
        assert model.champion is None
        assert model.tags(1)[versions.REFUSED_TAG] == detail
        with pytest.raises(InputError, match="has no alias 'champion'"):
            champion_package(model.name)
        model.told("damaged")
    finally:
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(kept, package)
    model.told("moved back")
    assert model.champion == 1
    assert versions.REFUSED_TAG not in model.tags(1)
    champion_package(model.name)


def test_a_store_that_is_out_of_reach_leaves_the_champion(model: Model) -> None:
    store = layout.state() / "mlartifacts"
    kept = store.rename(store.with_name("unmounted"))
    try:
        assert "the artefact store lists nothing" in model.told("TryAgain")
        assert model.champion == 1
        assert versions.REFUSED_TAG not in model.tags(1)
    finally:
        shutil.rmtree(store, ignore_errors=True)
        kept.rename(store)
    model.told("in step")


def test_another_version_takes_over_from_a_damaged_champion(model: Model, tmp_path: Path) -> None:
    package = model.package(1)
    kept = shutil.copytree(package, tmp_path / "kept")
    shutil.rmtree(package)
    try:
        model.told("damaged")
        promotion.promote(model.name, 2, "ada", "1 is damaged", tracker=model.site.tracker)
        model.told("in step")
        assert model.champion == 2
    finally:
        shutil.copytree(kept, package, dirs_exist_ok=True)
