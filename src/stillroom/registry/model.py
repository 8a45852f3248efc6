"""A package as an MLflow model: a pyfunc kept as code, so nothing is pickled and the runtime works."""

import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import stillroom
from stillroom.errors import Absent, TryAgain
from stillroom.registry.tracking import Tracker, error_code, redacted, translated

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

PACKAGE = "artifacts/package"
CODE = (
    "__init__.py",
    "batching.py",
    "cores.py",
    "errors.py",
    "export/__init__.py",
    "export/runtime.py",
    "export/words.py",
    "files.py",
    "problem.py",
)
"""The runtime and what it imports of Stillroom: the model brings them along, no index has to have them."""
_SERVED = Path(__file__).with_name("served.py")
_REQUIRED = ("onnxruntime", "tokenizers", "numpy")
_EXAMPLE = "Shares rose after the company reported higher profits."


def requirements() -> list[str]:
    """What an environment needs to serve a package, exact; MLflow would otherwise guess from imports."""
    return [f"{name}=={version(name)}" for name in _REQUIRED]


def signature() -> "ModelSignature":
    """Column `text` in; columns `label` and `probability` of the answer out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "text")]),
        outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.float, "probability")]),
    )


def save(folder: Path, package: Path, model: Any = None) -> None:
    """Write an MLflow model folder around a package folder, which keeps its name in there.

    model: the mlflow.models.Model to complete, which carries the identity of a logged model.
    """
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's about type hints of its own and of ours, which a signature replaces
        import mlflow.pyfunc
        import pandas as pd

        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(_SERVED),
            code_paths=[str(_code(Path(scratch)))],
            artifacts={"package": str(package)},
            signature=signature(),
            input_example=pd.DataFrame({"text": [_EXAMPLE]}),
            pip_requirements=requirements(),
            mlflow_model=model,
        )
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)


def _code(scratch: Path) -> Path:
    """A package `stillroom` below `scratch` that holds the runtime alone."""
    source = Path(stillroom.__file__).parent
    for name in CODE:
        target = scratch / source.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
    return scratch / source.name


def log(
    tracker: Tracker,
    package: Path,
    *,
    name: str,
    experiment_id: str,
    run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    scratch: Path,
) -> str:
    """Log a package as a LoggedModel of a run and return its id.

    This is what mlflow.pyfunc.log_model(name=...) does, by a client bound to one store instead of the
    thread's own state. `scratch` is an empty folder for the model's files on their way.
    """
    with translated(tracker.uri):
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        client = tracker.client
        logged = client.create_logged_model(
            experiment_id,
            name=name,
            source_run_id=run_id,
            params=dict(params),
            tags=dict(tags),
            model_type="text-classification",
        )
        try:
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            described = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            )
            source = shutil.copytree(package, scratch / Path(PACKAGE).name)
            save(scratch / "model", source, described)
            client.log_model_artifacts(logged.model_id, str(scratch / "model"))
        except BaseException:
            with suppress(Exception):
                client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def fetch(tracker: Tracker, model: str, version: int, scratch: Path) -> Path:
    """Download the package folder of a registered version below `scratch`; nothing in it is checked here.

    Raises Absent if the artefact store has the version's files without it, or knows nothing of them; TryAgain if it
    cannot be read, or lists no file at all of the version's, as a folder does whose disk is not mounted.
    """
    which = f"{model} version {version}"
    with translated(tracker.uri):
        from mlflow.artifacts import download_artifacts, list_artifacts

        try:
            root = tracker.client.get_model_version_download_uri(model, str(version)).rstrip("/")
            if not list_artifacts(artifact_uri=f"{root}/{PACKAGE}", tracking_uri=tracker.uri):
                if list_artifacts(artifact_uri=root, tracking_uri=tracker.uri):
                    raise Absent(f"{which}: the artefact store has no package at {root}")
                raise TryAgain(
                    f"{which}: the artefact store lists nothing at {root}; try again when it is to be reached, or "
                    "delete the version in MLflow if its files are gone for good"
                )
            found = download_artifacts(
                artifact_uri=f"{root}/{PACKAGE}",
                dst_path=str(scratch),
                tracking_uri=tracker.uri,
                registry_uri=tracker.uri,
            )
        except OSError as error:
            raise TryAgain(f"{which}: its package cannot be fetched now ({redacted(str(error))[:300]})") from error
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise Absent(f"{which}: MLflow does not know its files ({redacted(str(error))[:300]})") from error
    return Path(found)
