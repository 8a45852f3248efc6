"""Fixtures of the cache room."""

from pathlib import Path
from typing import Any

import pytest

from stillroom.batching import load_tokeniser
from stillroom.teacher.model import TOKENISER
from tests.toys import publish_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A published teacher; leave it unchanged."""
    return publish_teacher(tmp_path_factory.mktemp("published") / "teacher", tiny_checkpoint)


@pytest.fixture(scope="session")
def tokeniser(teacher: Path) -> Any:
    """The teacher's, which reads 32 tokens of a text."""
    return load_tokeniser(teacher / TOKENISER, 32)
