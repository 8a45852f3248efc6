"""`stillroom doctor`: quick, complete, and never itself the patient."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillroom import doctor, layout
from stillroom.doctor import Finding


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that does not exist yet, and no services in the environment."""
    monkeypatch.setenv(layout.STATE_VARIABLE, str(tmp_path / "state"))
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", *doctor._S3_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "state"


def finding(name: str) -> Finding:
    """The finding of that name."""
    return next(found for found in doctor.check() if found.name == name)


def test_everything_is_looked_at_quickly_and_nothing_written(state: Path) -> None:
    began = time.monotonic()
    findings = doctor.check()
    assert time.monotonic() - began < 5
    names = {found.name for found in findings}
    assert names >= {"python", "runtime", "pipeline", "state folder", "disk", "mlflow", "s3", "prefect"}
    assert names >= {"git", "dvc", "cpu", "gpu"}
    assert all(found.remedy for found in findings if found.status == "fail")
    assert not state.exists()


@pytest.mark.parametrize("number", ["2.6.2", "2.6.3", "2.6.3+local"])
def test_malicious_lightning_is_named(number: str) -> None:
    [found] = doctor.blocked({"lightning": number})
    assert (found.status, found.name) == ("fail", "lightning")
    assert "change every key" in found.remedy


@pytest.mark.parametrize(
    ("versions", "status"),
    [
        ({"lightning": "2.6.5"}, ["warn"]),
        ({"lightning": "2.6.6", "pytorch-lightning": "2.6.6"}, []),
        ({"mlflow": "3.16.0"}, ["fail"]),
        ({"mlflow": "3.16.1"}, []),
        ({"fastapi": "0.151.0", "prefect": "3.8.8"}, ["fail"]),
        ({"fastapi": "0.165.0", "prefect": "3.8.8"}, ["fail"]),
        ({"fastapi": "0.150.0", "prefect": "3.8.8"}, []),
        ({"fastapi": "0.165.0"}, []),
        ({"fastapi": "0.165.0", "prefect": "3.9.2"}, []),
        ({"mlflow": "unknown"}, ["fail"]),
        ({}, []),
    ],
)
def test_blocked_versions(versions: dict[str, str], status: list[str]) -> None:
    assert [found.status for found in doctor.blocked(versions)] == status


def test_what_lacks_is_installed_by_a_task_of_the_makefile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda names: {})
    target = doctor._INSTALL.split()[-1]
    assert f"\n{target}:" in (Path(__file__).parents[1] / "Makefile").read_text()
    assert {finding(name).remedy for name in ("runtime", "pipeline", "dvc")} == {doctor._INSTALL}


def test_cpu_features_are_read() -> None:
    text = "processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_tile amx_bf16 xyz\nprocessor\t: 1\n"
    assert doctor.cpu_features(text) == ["avx2", "avx512f", "amx_tile", "amx_bf16"]
    assert doctor.cpu_features("Features : neon\n") == []


def test_file_in_place_of_the_state_folder(state: Path) -> None:
    state.write_text("in the way")
    found = finding("state folder")
    assert found.status == "fail"
    assert layout.STATE_VARIABLE in found.remedy


def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert finding("disk").status == "fail"


def test_services_that_are_down_are_told_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://me:hunter2@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        began = time.monotonic()
        findings = {found.name: found for found in doctor.check()}
        assert time.monotonic() - began < 5
    for name in ("mlflow", "prefect", "s3"):
        assert findings[name].status == "fail"
        assert findings[name].remedy
        assert "hunter2" not in findings[name].detail


def test_damaged_tracking_database(state: Path) -> None:
    state.mkdir()
    (state / "mlflow.db").write_bytes(b"no database" * 1000)
    assert finding("mlflow").status == "fail"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("boom")

    monkeypatch.setattr(doctor, "_cpu", broken)
    found = finding("cpu")
    assert (found.status, found.detail) == ("warn", "could not be looked at: boom")


def test_needs_the_base_install_alone() -> None:
    heavy = ("torch", "mlflow", "prefect", "dvc", "pydantic", "pandas")
    code = "import sys; from stillroom import doctor; doctor.check(); "
    code += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
