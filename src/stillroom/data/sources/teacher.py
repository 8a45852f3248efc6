"""The teacher's checkpoint: checked before any training, pinned by digest, found again from the pin."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.data.sources.address import parse
from stillroom.data.sources.fetching import fetch_into, source_store
from stillroom.errors import InputError
from stillroom.files import read_json

_TOKENISERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("spm.model",),
    ("tokenizer.model",),
)
"""Sets of files, each of which is enough for transformers to build a fast tokeniser."""
_PICKLES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.bin",
    "model.pt",
    "pytorch_model.pt",
    "tf_model.h5",
)


class TeacherPin(BaseModel):
    """sources/teacher.json: which checkpoint a run uses, by content."""

    model_config = ConfigDict(frozen=True)

    uri: str
    sha256: str
    """Tree digest of the folder."""
    licence: str | None
    files: dict[str, str]
    """sha256 of every file, by POSIX path."""


def teacher_folder(pin: Path) -> Path:
    """The folder of the teacher that sources/teacher.json pins; fetched again if the store has lost it.

    Raises InputError if the content is not to be had with the digest of the pin.
    """
    teacher = read_pin(pin)
    return checkpoint_folder(teacher.uri, teacher.sha256, str(pin))


def checkpoint_folder(uri: str, sha256: str, what: str) -> Path:
    """The folder with this tree digest; fetched again if the store has lost it. what: holds the address, for messages.

    Raises InputError if the content is not to be had.
    """
    store = source_store()
    found = store.find(sha256)
    if found is not None:
        return found.path
    with store.scratch() as scratch:
        return fetch_into(store, parse(uri, what), sha256, what, scratch).path


def read_pin(pin: Path) -> TeacherPin:
    """Read sources/teacher.json."""
    try:
        return TeacherPin.model_validate(read_json(pin))
    except ValidationError as error:
        raise InputError(f"{pin}: not the pin of a teacher; run `stillroom run` to write it anew") from error


def check_teacher(folder: Path, shown: str) -> None:
    """Raise InputError unless the folder holds config.json, a tokeniser and whole safetensors weights.

    Reads headers and sizes, never the weights, so it takes milliseconds for any size.
    """
    if not folder.is_dir():
        raise InputError(f"{shown}: is a file; a teacher is a checkpoint folder with config.json and model.safetensors")
    config = _json_object(folder / "config.json", shown)
    if "model_type" not in config:
        raise InputError(f"{shown}: config.json has no model_type; it is not a checkpoint in transformers' format")
    _check_tokeniser(folder, shown)
    for weights in _weight_files(folder, shown):
        _check_weights(weights, shown)


def labels_of(folder: Path) -> list[str]:
    """The labels that a checkpoint gives, by class id; none if its config names none."""
    named = read_json(folder / "config.json").get("id2label") or {}
    return [str(name) for _, name in sorted(named.items(), key=lambda entry: int(entry[0]))]


def _json_object(path: Path, shown: str) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{shown}: has no {path.name}; a teacher is a checkpoint folder of transformers") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: {path.name} is not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{shown}: {path.name} is no JSON object")
    return value


def _check_tokeniser(folder: Path, shown: str) -> None:
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{shown}: tokenizer.json is not a tokeniser ({error})") from error
        return
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENISERS):
        raise InputError(f"{shown}: has no tokeniser; add tokenizer.json, or vocab.txt, or vocab.json and merges.txt")


def _weight_files(folder: Path, shown: str) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = _json_object(index, shown).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise InputError(f"{shown}: {index.name} names the shard {name!r}, which is not in the folder")
        if names:
            return [folder / name for name in names]
    pickles = [name for name in _PICKLES if (folder / name).is_file()]
    if pickles:
        raise InputError(
            f"{shown}: its weights are {pickles[0]}, a format that can run code when it is loaded; "
            "save them as model.safetensors"
        )
    raise InputError(f"{shown}: has no model.safetensors")


def _check_weights(path: Path, shown: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            empty = not list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{shown}: {path.name} is not whole ({error}); fetch it again") from error
    if empty:
        raise InputError(f"{shown}: {path.name} holds no tensor; fetch it again")
