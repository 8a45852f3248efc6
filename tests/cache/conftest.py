"""Fixtures of the cache room."""

from pathlib import Path

import pytest

from tests.toys import publish_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A published teacher; leave it unchanged."""
    return publish_teacher(tmp_path_factory.mktemp("published") / "teacher", tiny_checkpoint)
