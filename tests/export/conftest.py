"""Fixtures of the export room: a static student with random weights, exported and packaged."""

import shutil
from pathlib import Path

import pytest

from stillroom.export.build import Model, build_package
from stillroom.quantise_params import QuantiseParams
from tests.export.models import VALIDATION, static_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A static student that is to be packaged."""
    return static_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    """Packages `fp32` and `int8` of that student; leave them unchanged."""
    root = tmp_path_factory.mktemp("packages")
    for name, rungs in (("fp32", ("fp32",)), ("int8", ("dynamic_int8", "fp32"))):
        (root / name).mkdir()
        settings = QuantiseParams(rungs=rungs, allowed_drop=1.0)  # type: ignore[arg-type]
        build_package(root / name, model, VALIDATION, settings, {"data": "d" * 64})
    return root


@pytest.fixture
def package(built: Path, tmp_path: Path) -> Path:
    """A copy of the package `fp32`, to change as you like."""
    return Path(shutil.copytree(built / "fp32", tmp_path / "package"))
