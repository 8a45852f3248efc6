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

import pytest

from stillroom.errors import InputError
from stillroom.params import read_yaml
from stillroom.registry import model, tracking

LOADS = """
import json, sys, warnings
import mlflow.pyfunc
import pandas as pd
warnings.simplefilter("error", UserWarning)
served = mlflow.pyfunc.load_model("models:/toy/1")
answers = [
    served.predict(pd.DataFrame({"text": ["great fine", "awful poor", ""]})),
    served.predict([{"text": "great"}]),
]
heavy = sorted({"torch", "transformers", "lightning", "prefect", "dvc"} & set(sys.modules))
print(json.dumps({"answers": [answer.to_dict("list") for answer in answers], "heavy": heavy}))
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


def test_loads_and_predicts_without_torch(registered: tracking.Tracker, state: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["heavy"] == []
    many, one = told["answers"]
    assert many["label"] == ["good", "bad", "bad"]
    assert many["probability"][2] == pytest.approx(0.5)
    assert one["label"] == ["good"]


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
        required = (folder / "requirements.txt").read_text().split()
        assert {line.partition("==")[0] for line in required} == {
            "mlflow",
            "stillroom",
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
