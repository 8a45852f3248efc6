"""Fixtures of the data room: a state folder of its own, params, tables and a tiny teacher."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from stillroom.layout import STATE_VARIABLE
from stillroom.params import Params

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROWS = [
    ("my card has not arrived yet", "arrival"),
    ("where is the card that I ordered last week", "arrival"),
    ("the new card still did not come", "arrival"),
    ("how long does delivery of a card take", "arrival"),
    ("I cannot log in to the app", "access"),
    ("my password is not accepted any more", "access"),
    ("how do I reset the code for the app", "access"),
    ("the app says that my account is locked", "access"),
]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def rows_csv(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "rows.csv", ROWS)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return make_teacher(tmp_path / "teacher")


@pytest.fixture
def make_params(rows_csv: Path, teacher: Path) -> Callable[..., Params]:
    def make(teacher_source: str = str(teacher), **data: Any) -> Params:
        given = {"data": {"source": str(rows_csv), **data}, "teacher": {"source": teacher_source}}
        return Params.model_validate({**given, "students": {"static": {"family": "static"}}})

    return make


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def make_teacher(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 4}))
    Tokenizer(WordLevel({"[UNK]": 0, "card": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    save_file({"embeddings": np.zeros((2, 4), np.float32)}, str(folder / "model.safetensors"))
    return folder
