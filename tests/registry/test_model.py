"""A package as an MLflow model: loads by the runtime alone, without torch and without unpickling."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import grimp
import pytest

import stillroom
from stillroom.errors import InputError
from stillroom.export.runtime import Package
from stillroom.params_file import read_yaml
from stillroom.registry import model, tracking

SOURCE = Path(stillroom.__file__).parents[1]
WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
"""
WITHOUT_STILLROOM = f"""
sys.path = [entry for entry in sys.path if entry != {str(SOURCE)!r}]
"""
LOADS = """
import importlib.util, json, warnings
importable = importlib.util.find_spec("stillroom") is not None
import mlflow.pyfunc
import pandas as pd
warnings.simplefilter("error", UserWarning)
served = mlflow.pyfunc.load_model("models:/toy/1")
answers = [
    served.predict(pd.DataFrame({"text": ["great fine", "awful poor", ""]})),
    served.predict([{"text": "great"}]),
]
heavy = sorted({"torch", "transformers", "lightning", "prefect", "dvc"} & set(sys.modules))
own = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "stillroom"}
print(json.dumps({
    "answers": [answer.to_dict("list") for answer in answers],
    "heavy": heavy,
    "own": own,
    "importable": importable,
}))
"""


def environment(state: Path) -> dict[str, str]:
    """An environment that finds the registry of the test and refuses to unpickle."""
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow.db",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def loaded(state: Path, code: str) -> Any:
    """What a process of its own tells at its end."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=state,
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("installed", [False, True])
def test_loads_and_predicts_without_torch(registered: tracking.Tracker, state: Path, installed: bool) -> None:
    told = loaded(state, WITHOUT_TORCH + ("" if installed else WITHOUT_STILLROOM) + LOADS)
    assert told["importable"] is installed
    assert told["heavy"] == []
    own = {Path(file) for file in told["own"].values()}
    if installed:
        assert own == {SOURCE / "stillroom" / name for name in model.CODE}
    else:
        (root,) = {file.parent for file in own if file.parent.name == "stillroom"}
        assert root.is_relative_to(state / "mlartifacts")
        assert own == {root / name for name in model.CODE}
    many, one = told["answers"]
    assert many["label"] == ["good", "bad", "bad"]
    assert many["probability"][2] == pytest.approx(0.5)
    assert one["label"] == ["good"]


def test_an_installed_stillroom_stays_whole(registered: tracking.Tracker, state: Path) -> None:
    code = """
import json, sys
import mlflow.pyfunc
mlflow.pyfunc.load_model("models:/toy/1")
mlflow.pyfunc.load_model("models:/toy/2")
import stillroom.registry.ledger as later
print(json.dumps([later.__file__, sys.path]))
"""
    file, path = loaded(state, code)
    assert file == str(SOURCE / "stillroom/registry/ledger.py")
    assert [Path(entry).name for entry in path[-2:]] == ["code", "code"]
    assert all(Path(entry).is_relative_to(state) for entry in path[-2:])


def test_modules_that_are_imported_already_stay(
    registered: tracking.Tracker, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    def own() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "stillroom"}

    before = own()
    monkeypatch.setattr(sys, "path", list(sys.path))
    with tracking.as_global(registered.uri):
        served = mlflow.pyfunc.load_model("models:/toy/1")
    assert own() == before
    assert isinstance(served.unwrap_python_model().package, Package)


def test_the_code_of_a_model_is_what_the_runtime_imports() -> None:
    imports = grimp.build_graph("stillroom", cache_dir=None)
    runtime = "stillroom.export.runtime"
    modules = {runtime, "stillroom", "stillroom.export", *imports.find_upstream_modules(runtime)}
    needed = []
    for module in modules:
        path = SOURCE / module.replace(".", "/")
        found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        needed.append(found.relative_to(SOURCE / "stillroom").as_posix())
    assert sorted(needed) == list(model.CODE)


def test_saving_leaves_the_path_alone(make_release: Any, tmp_path: Path) -> None:
    before = list(sys.path)
    model.save(tmp_path / "model", make_release("toy"))
    assert sys.path == before


def test_saved_folder_says_what_it_needs(registered: tracking.Tracker, state: Path) -> None:
    folders = list((state / "mlartifacts/models").glob("m-*/artifacts"))
    assert len(folders) == 4
    for folder in folders:
        described = read_yaml(folder / "MLmodel")
        assert json.loads(described["signature"]["inputs"])[0]["name"] == "text"
        assert [column["name"] for column in json.loads(described["signature"]["outputs"])] == [
            "label",
            "probability",
        ]
        assert (folder / "artifacts/package/stillroom.json").is_file()
        assert not list(folder.rglob("*.pkl"))
        assert not list(folder.rglob("__pycache__"))
        code = [path for path in (folder / "code").rglob("*") if path.is_file()]
        assert sorted(path.relative_to(folder / "code/stillroom").as_posix() for path in code) == list(model.CODE)
        required = (folder / "requirements.txt").read_text().split()
        assert {line.partition("==")[0] for line in required} == {
            "mlflow",
            "onnxruntime",
            "tokenizers",
            "numpy",
        }
        assert json.loads((folder / "serving_input_example.json").read_text())["dataframe_split"]["columns"] == ["text"]


def test_package_that_the_store_lost_is_named(registered: tracking.Tracker, state: Path, tmp_path: Path) -> None:
    for manifest in list((state / "mlartifacts").rglob("stillroom.json")):
        for file in manifest.parent.iterdir():
            file.unlink()
        manifest.parent.rmdir()
    with pytest.raises(InputError, match="toy version 1: the artefact store has no package"):
        model.fetch(registered, "toy", 1, tmp_path)


@pytest.mark.slow
@pytest.mark.serial
def test_mlflow_models_serve(registered: tracking.Tracker, state: Path, tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = str(reserved.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/toy/1"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--port", port],
            env=environment(state),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [["great"], ["awful"]]}}).encode()
        request = Request(f"http://127.0.0.1:{port}/invocations", body, {"content-type": "application/json"})
        answer = _answer(request, server, tmp_path / "log")
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=20)
    assert [row["label"] for row in answer["predictions"]] == ["good", "bad"]


def _answer(request: Request, server: "subprocess.Popen[bytes]", log: Path) -> Any:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(request, timeout=5) as response:
                return json.loads(response.read())
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())
