"""Run a package: text in, label probabilities out. Needs onnxruntime, tokenizers and numpy, and no torch."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from stillroom.batching import gather, in_batches, load_tokeniser
from stillroom.cores import available_cores
from stillroom.errors import InputError
from stillroom.export.words import Reader
from stillroom.files import sha256_file
from stillroom.problem import Probabilities, ProblemType, choices, confidence, named, probabilities

FORMAT = 1
MANIFEST = "stillroom.json"
MODEL = "model.onnx"
TOKENISER = "tokenizer.json"
_BATCH_TOKENS = 8192
_LOGITS = ["logits"]
_ONES = np.ones((1, 512), dtype=np.int64)


class PackageError(InputError):
    """A folder that is not a whole, unchanged package."""


class Unread(PackageError):
    """A package that this runtime cannot read, which does not say that anything is wrong with it."""


def package_digest(
    files: Mapping[str, str],
    labels: Sequence[str],
    max_length: int,
    temperature: float,
    problem_type: ProblemType = "single_label",
) -> str:
    """Identity of what a package predicts: its graph, its tokeniser and how their output is read."""
    core: dict[str, Any] = {
        "files": {name: files[name] for name in (MODEL, TOKENISER)},
        "labels": list(labels),
        "max_length": max_length,
        "temperature": temperature,
    }
    if problem_type != "single_label":  # of which packages of before say nothing
        core["problem_type"] = problem_type
    return hashlib.sha256(json.dumps(core, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_manifest(folder: Path, verify: bool = True) -> dict[str, Any]:
    """Read and check a package's manifest; with `verify`, every file's sha256 too.

    Raises PackageError naming the file or field that is wrong, Unread where a later Stillroom wrote it or a disk fails.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{folder}: not a package; it has no {MANIFEST}") from error
    except (ValueError, RecursionError, IsADirectoryError, NotADirectoryError) as error:
        raise PackageError(f"{path}: not readable as JSON ({error})") from error
    except OSError as error:
        raise Unread(f"{path}: not readable ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        told = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        later = type(told) is int and told > FORMAT
        raise (Unread if later else PackageError)(f"{path}: format is {told!r}; this runtime reads {FORMAT}")
    missing = {"labels", "files", "digest", "max_length", "temperature"} - manifest.keys()
    if missing:
        raise PackageError(f"{path}: lacks {', '.join(sorted(missing))}")
    for name, makes_sense in _FIELDS.items():
        if name in manifest and not makes_sense(manifest[name]):
            raise PackageError(
                f"{path}: {name} is {str(manifest[name])[:80]!r}, which makes no sense; fetch the package again"
            )
    for name in (MODEL, TOKENISER):
        if name not in manifest["files"]:
            raise PackageError(f"{path}: lists no {name}")
    for name, expected in manifest["files"].items():
        _check_file(folder, name, expected, verify)
    told = manifest["files"], manifest["labels"], manifest["max_length"], manifest["temperature"]
    digest = package_digest(*told, manifest.get("problem_type", "single_label"))
    if digest != manifest["digest"]:
        raise PackageError(f"{path}: digest is {manifest['digest']}, its contents give {digest}")
    return manifest


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "labels": lambda value: isinstance(value, list) and _all_text(value) and 0 < len(set(value)) == len(value),
    "files": lambda value: isinstance(value, dict) and _all_text(value.values()),
    "digest": lambda value: isinstance(value, str),
    "max_length": lambda value: type(value) is int and value >= 1,
    "temperature": lambda value: type(value) in (int, float) and 0 < value < float("inf"),
    "threads": lambda value: type(value) is int and value >= 0,
    "problem_type": lambda value: value in get_args(ProblemType),
}
"""What the fields that the runtime reads must be, whoever wrote them."""


def _check_file(folder: Path, name: str, expected: str, verify: bool) -> None:
    if "\0" in name or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise PackageError(f"{folder / MANIFEST}: {name!r} points outside the package")
    path = folder / name
    if not path.is_file() or path.is_symlink():
        raise PackageError(f"{path}: no such file, though {MANIFEST} lists it")
    try:
        found = sha256_file(path) if verify else expected
    except OSError as error:
        raise Unread(f"{path}: not readable ({error})") from error
    if found != expected:
        raise PackageError(f"{path}: sha256 is {found}, {MANIFEST} says {expected}; fetch the package again")


def checked_threshold(threshold: float, name: str = "threshold") -> float:
    """The threshold of abstention, if it is a probability; otherwise an InputError that calls it by this name."""
    if not 0 < threshold <= 1:
        raise InputError(f"{name} is {threshold}; it must be above 0 and at most 1")
    return threshold


def open_graph(path: Path, threads: int = 0) -> Any:
    """A session of onnxruntime on so many CPU threads, at most one for each core; 0 for every core."""
    import onnxruntime

    cores = available_cores()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, cores) or cores
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Package:
    """A loaded package. Safe to share between threads: no answer depends on what was asked before."""

    folder: Path
    labels: tuple[str, ...]
    digest: str
    manifest: Mapping[str, Any]
    session: Any
    tokeniser: Any
    reader: Reader

    @classmethod
    def load(cls, folder: Path | str, verify: bool = True, threads: int | None = None) -> "Package":
        """Load a package folder.

        threads: CPU threads of the graph, at most one for each core; default, what the package's manifest recommends
        (0: every core).
        """
        folder = Path(folder)
        manifest = read_manifest(folder, verify)
        try:
            session = open_graph(folder / MODEL, manifest.get("threads", 0) if threads is None else threads)
            tokeniser = load_tokeniser(folder / TOKENISER, manifest["max_length"])
            reader = Reader(tokeniser, manifest["max_length"])
        except Exception as error:
            raise PackageError(f"{folder}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error
        classes = session.get_outputs()[0].shape[-1]
        if isinstance(classes, int) and classes != len(manifest["labels"]):
            raise PackageError(
                f"{folder}: the graph gives {classes} classes, the manifest names {len(manifest['labels'])} labels"
            )
        return cls(folder, tuple(manifest["labels"]), manifest["digest"], manifest, session, tokeniser, reader)

    def predict(self, texts: Sequence[str]) -> Probabilities:
        """Probabilities of every label for every text, float32 [len(texts), len(labels)], in order."""
        if len(texts) == 1:
            return self._probabilities(self._logits_of_one(texts[0]))
        if not len(texts):
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        return self._probabilities(in_batches(gather(texts, self.reader.many), _BATCH_TOKENS, self._logits))

    @property
    def problem_type(self) -> ProblemType:
        """Whether a text has one label or any number of them."""
        told: ProblemType = self.manifest.get("problem_type", "single_label")
        return told

    def answer(self, texts: Sequence[str]) -> list[str]:
        """The label of every text or, where it may have several, those that apply with `separator` between them."""
        return self.named(self.predict(texts))

    def named(self, probabilities: Probabilities) -> list[str]:
        """The same for probabilities that are known already."""
        choice = choices(probabilities, self.problem_type)
        return named(choice, self.labels, self.problem_type, self.separator)

    @cached_property
    def separator(self) -> str:
        """What stands between the labels of a text: the first of ; | / and a line break that no label holds."""
        return next((mark for mark in ";|/" if not any(mark in label for label in self.labels)), "\n")

    def stream(
        self, texts: Iterator[str], threshold: float | None = None, chunk: int = 1024
    ) -> Iterator[tuple[str, str, float]]:
        """(text, label as in `answer`, probability) for texts that need not fit in memory, in order.

        threshold: below this probability the package abstains, and the label is empty. Where a text may have several
        labels, the probability is that of its least sure decision. Raises InputError for a threshold that is no
        probability.
        """
        return self._answers(texts, 0.0 if threshold is None else checked_threshold(threshold), chunk)

    def _answers(self, texts: Iterator[str], threshold: float, chunk: int) -> Iterator[tuple[str, str, float]]:
        while batch := list(islice(texts, chunk)):
            probabilities = self.predict(batch)
            sure = confidence(probabilities, self.problem_type).tolist()
            for text, label, probability in zip(batch, self.named(probabilities), sure, strict=True):
                yield text, "" if probability < threshold else label, probability

    def _logits_of_one(self, text: str) -> npt.NDArray[np.float32]:
        ids = self.reader.one(text)
        if not ids:  # nothing is known of this text: one padding cell that is masked out
            return self._logits(np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64))
        row = np.array([ids], dtype=np.int64)
        return self._logits(row, _ONES[:, : len(ids)] if len(ids) <= _ONES.size else np.ones_like(row))

    def _logits(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = self.session.run(_LOGITS, {"input_ids": ids, "attention_mask": mask})[0]
        return result

    def _probabilities(self, logits: Probabilities) -> Probabilities:
        if len(logits) != 1 or self.problem_type == "multi_label":
            return probabilities(logits, self.problem_type, self.manifest["temperature"])
        scaled: Probabilities = logits / self.manifest["temperature"]
        scaled -= scaled[0, scaled.argmax()]  # numpy reduces a whole array in less time than along an axis
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum()
        return scaled
