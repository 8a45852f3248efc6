import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import InputError
from stillroom.export.build import Model
from stillroom.export.runtime import Package, PackageError, package_digest, read_manifest
from tests.conftest import SOURCE_ROOT
from tests.export.models import naive
from tests.toys import LABELS, toy_rows

TEXTS = [*toy_rows(80, seed=9).text, "", "   ", "☃", "my " * 500, "[PAD] my", "\x00\x01", "été 日本"]


@pytest.fixture(scope="module")
def loaded(built: Path) -> Package:
    return Package.load(built / "fp32")


def manifest_of(package: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((package / "stillroom.json").read_text())
    return raw


def rewrite(package: Path, change: Callable[[dict[str, Any]], Any], forge: bool = False) -> None:
    """Change the manifest; `forge` makes its digests fit again, as someone who means harm would."""
    raw = manifest_of(package)
    change(raw)
    if forge:
        core = {
            "files": {name: raw["files"][name] for name in ("model.onnx", "tokenizer.json")},
            **{name: raw[name] for name in ("labels", "max_length", "temperature")},
        }
        text = json.dumps(core, sort_keys=True, ensure_ascii=False)
        raw["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (package / "stillroom.json").write_text(json.dumps(raw))


def refused(package: Path, *parts: str, verify: bool = True) -> None:
    """Loading is refused in one line of exit code 2 that holds all parts."""
    with pytest.raises(PackageError) as caught:
        Package.load(package, verify=verify)
    told = str(caught.value)
    assert isinstance(caught.value, InputError)
    assert "\n" not in told
    assert all(part in told for part in parts), told


RUN = """
import sys
from stillroom.export.runtime import Package
package = Package.load(sys.argv[1])
print(package.labels[package.predict(["where is my parcel"])[0].argmax()])
print(*sorted(name.split(".")[0] for name in sys.modules))
"""


def test_a_package_runs_where_only_the_base_install_is(built: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(built / "int8")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCE_ROOT), "PATH": os.environ["PATH"]},
    )
    label, modules = done.stdout.splitlines()
    assert label in LABELS
    heavy = {"torch", "transformers", "pydantic", "pandas", "pyarrow", "scipy", "sklearn", "lightning", "onnx"}
    heavy |= {"mlflow", "prefect", "dvc", "safetensors", "filelock", "ruamel", "rich", "typer"}
    assert not heavy.intersection(modules.split())
    assert {"onnxruntime", "tokenizers", "numpy"} <= set(modules.split())


def test_predictions_are_those_of_the_model_in_order(loaded: Package, model: Model) -> None:
    found = loaded.predict(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    expected = np.stack([naive(model, text, loaded.manifest["temperature"]) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected[:80], axis=0).max() > 0.05, "texts differ, so that a mix-up would be seen"


def test_one_text_gives_what_many_give(loaded: Package) -> None:
    many = loaded.predict(TEXTS)
    alone = np.concatenate([loaded.predict([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, many, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_allclose(loaded.predict([TEXTS[row] for row in order]), many[order], atol=1e-5)


def test_int8_gives_nearly_what_fp32_gives_and_one_nearly_what_many_give(built: Path, loaded: Package) -> None:
    int8 = Package.load(built / "int8")
    texts = TEXTS[:80]
    many, alone = int8.predict(texts), np.concatenate([int8.predict([text]) for text in texts])
    assert np.abs(many - loaded.predict(texts)).max() < 0.1
    # onnxruntime scales a batch's activations together, so a text's neighbours move its probabilities a little
    assert np.abs(many - alone).max() < 0.1
    assert (many.argmax(1) == alone.argmax(1)).mean() > 0.95


def test_nothing_gives_nothing_and_empty_texts_an_answer(loaded: Package) -> None:
    assert loaded.predict([]).shape == (0, 3)
    empty = loaded.predict([""])
    assert np.isfinite(empty).all()
    np.testing.assert_allclose(loaded.predict(["", "my parcel", ""])[[0, 2]], np.concatenate([empty, empty]), atol=1e-6)
    np.testing.assert_allclose(loaded.predict([" \n "]), empty, atol=1e-6)


def test_a_large_batch_is_cut_by_tokens(loaded: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = loaded.predict(TEXTS)
    monkeypatch.setattr("stillroom.export.runtime._BATCH_TOKENS", 30)
    np.testing.assert_allclose(loaded.predict(TEXTS), expected, atol=1e-5)


def test_a_long_text_is_read_as_far_as_its_max_length(loaded: Package) -> None:
    start = "my parcel delayed " * 8
    np.testing.assert_array_equal(
        loaded.predict([start + "password " * 300_000]), loaded.predict([start + "refund " * 400])
    )


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_threads_share_a_package(built: Path, kind: str) -> None:
    """Single texts, batches and streams at once, from the first text on, give what one thread alone gets."""
    alone, shared = Package.load(built / kind), Package.load(built / kind)
    expected = [alone.predict([text]) for text in TEXTS]
    batches = [TEXTS[start::5] for start in range(5)]
    together = [alone.predict(batch) for batch in batches]
    streamed = list(alone.stream(iter(TEXTS), 0.5, chunk=7))

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(len(TEXTS))
        return (
            all(np.array_equal(shared.predict([TEXTS[row]]), expected[row]) for row in order)
            and all(np.array_equal(shared.predict(batches[row % 5]), together[row % 5]) for row in order[:20])
            and list(shared.stream(iter(TEXTS), 0.5, chunk=7)) == streamed
        )

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [True] * 8


def test_a_stream_is_answered_in_order_without_reading_ahead(loaded: Package) -> None:
    read = 0

    def texts() -> Any:
        nonlocal read
        for text in TEXTS:
            read += 1
            yield text

    answers = loaded.stream(texts(), chunk=10)
    first = next(answers)
    assert read == 10
    told = [first, *answers]
    assert [text for text, _, _ in told] == TEXTS
    probabilities = np.concatenate([loaded.predict(TEXTS[at : at + 10]) for at in range(0, len(TEXTS), 10)])
    assert [label for _, label, _ in told] == [LABELS[row.argmax()] for row in probabilities]
    assert [share for _, _, share in told] == pytest.approx(probabilities.max(axis=1).tolist())
    assert list(loaded.stream(iter([]))) == []


def test_logits_of_any_size_give_probabilities(loaded: Package) -> None:
    for logits in ([[1e4, -1e4, 0]], [[0, 0, 0]], [[-1e30, -1e30, -1e30]]):
        found = loaded._probabilities(np.array(logits, np.float32))
        assert np.isfinite(found).all()
        assert found.sum() == pytest.approx(1)


def test_the_temperature_scales_the_logits(package: Path) -> None:
    warm = Package.load(package)
    rewrite(package, lambda raw: raw.update(temperature=10 * raw["temperature"]), forge=True)
    tepid = Package.load(package)
    assert tepid.predict(TEXTS).max() < warm.predict(TEXTS).max()
    np.testing.assert_array_equal(tepid.predict(TEXTS).argmax(1), warm.predict(TEXTS).argmax(1))
    assert tepid.digest != warm.digest


def test_a_package_is_named_by_what_it_predicts(built: Path, package: Path) -> None:
    one, other = Package.load(built / "fp32"), Package.load(built / "int8")
    assert one.digest != other.digest
    assert one.labels == LABELS
    rewrite(package, lambda raw: raw.update(name="renamed", lineage={}, rungs=[]))
    assert Package.load(package).digest == one.digest


def test_the_digest_tells_graph_tokeniser_labels_length_and_temperature() -> None:
    files = {"model.onnx": "a" * 64, "tokenizer.json": "b" * 64, "MODEL_CARD.md": "c" * 64}
    one = package_digest(files, ["x", "y"], 16, 1.5)
    assert one == package_digest(files | {"MODEL_CARD.md": "d" * 64}, ("x", "y"), 16, 1.5)
    others = [
        package_digest(files | {"model.onnx": "d" * 64}, ["x", "y"], 16, 1.5),
        package_digest(files | {"tokenizer.json": "d" * 64}, ["x", "y"], 16, 1.5),
        package_digest(files, ["y", "x"], 16, 1.5),
        package_digest(files, ["x", "y"], 17, 1.5),
        package_digest(files, ["x", "y"], 16, 1.6),
    ]
    assert len({one, *others}) == 6


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_that_was_altered_lost_or_linked_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    path = package / name
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b" ", b"", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(content)
        refused(package, name, "fetch the package again")
    path.unlink()
    refused(package, name, "no such file, though stillroom.json lists it")
    (tmp_path / "elsewhere").write_bytes(whole)
    path.symlink_to(tmp_path / "elsewhere")
    refused(package, name, "points outside the package")
    path.unlink()
    (package / "beside").write_bytes(whole)
    path.symlink_to("beside")
    refused(package, name, "no such file, though stillroom.json lists it")
    path.unlink()
    path.mkdir()
    refused(package, name, "no such file, though stillroom.json lists it")


def test_every_flipped_bit_of_a_package_is_found(package: Path) -> None:
    generator = np.random.default_rng(6)
    for number in range(100):
        path = package / ("model.onnx", "tokenizer.json")[number % 2]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        path.write_bytes(content)
        with pytest.raises(PackageError, match=path.name):
            read_manifest(package)
        path.write_bytes(whole)
    assert read_manifest(package)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not a package; it has no stillroom.json"),
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "format is 'list'"),
        (b"null", "format is 'NoneType'"),
        (b"{}", "format is None; this runtime reads 1"),
        (b'{"format": 2}', "format is 2; this runtime reads 1"),
        (b'{"format": 1, "labels": []}', "lacks digest, files, max_length, temperature"),
    ],
)
def test_a_manifest_that_is_none_is_refused(package: Path, content: bytes | None, said: str) -> None:
    path = package / "stillroom.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    refused(package, said)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../outside", "..", "linked/outside", "", ".", "a\x00b"]
)
def test_a_name_that_leads_out_of_the_package_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("secret")
    (package / "linked").symlink_to(tmp_path)
    digest = hashlib.sha256(b"secret").hexdigest()
    rewrite(package, lambda raw: raw["files"].update({name: digest}))
    for verify in (True, False):
        refused(package, repr(name)[1:-1], verify=verify)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_manifest_that_does_not_list_what_is_run_is_refused(package: Path, name: str) -> None:
    rewrite(package, lambda raw: raw["files"].pop(name))
    refused(package, f"lists no {name}")


@pytest.mark.parametrize(
    "change",
    [{"digest": "0" * 64}, {"labels": list(reversed(LABELS))}, {"max_length": 5}, {"temperature": 9.0}],
)
def test_a_manifest_that_was_edited_is_refused_even_unverified(package: Path, change: dict[str, Any]) -> None:
    rewrite(package, lambda raw: raw.update(change))
    refused(package, "digest is", verify=False)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": []},
        {"labels": "abc"},
        {"labels": [1, 2, 3]},
        {"labels": ["a", "a", "b"]},
        {"labels": None},
        {"max_length": 0},
        {"max_length": -1},
        {"max_length": 1.5},
        {"max_length": "24"},
        {"max_length": True},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "1"},
        {"threads": -1},
        {"threads": "all"},
    ],
)
def test_a_field_that_makes_no_sense_is_named_even_if_the_digest_fits(package: Path, change: dict[str, Any]) -> None:
    rewrite(package, lambda raw: raw.update(change), forge=change.get("labels", ()) is not None)
    refused(package, f"{next(iter(change))} is ")


@pytest.mark.parametrize(
    "files", [None, [], ["model.onnx", "tokenizer.json"], "model.onnx tokenizer.json", {"model.onnx": 5}]
)
def test_a_list_of_files_that_is_none_is_refused(package: Path, files: Any) -> None:
    rewrite(package, lambda raw: raw.update(files=files))
    refused(package, "stillroom.json: ")


def test_a_graph_that_gives_other_classes_than_there_are_labels_is_refused(package: Path) -> None:
    rewrite(package, lambda raw: raw.update(labels=["a", "b"]), forge=True)
    refused(package, "the graph gives 3 classes, the manifest names 2 labels")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_forged_file_that_cannot_be_loaded_is_refused(package: Path, name: str) -> None:
    (package / name).write_bytes(b"no graph, and no tokeniser either")
    digest = hashlib.sha256((package / name).read_bytes()).hexdigest()
    rewrite(package, lambda raw: raw["files"].update({name: digest}), forge=True)
    refused(package, "cannot be loaded")


def test_without_verifying_the_files_are_not_read_twice(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.export.runtime.sha256_file", lambda path: pytest.fail("read"))
    assert len(Package.load(package, verify=False).predict(TEXTS[:3])) == 3


def test_threads_are_those_recommended_unless_told(package: Path) -> None:
    def threads(**options: Any) -> int:
        found: int = Package.load(package, **options).session.get_session_options().intra_op_num_threads
        return found

    rewrite(package, lambda raw: raw.update(threads=1))
    assert threads() == 1
    assert threads(threads=2) == min(2, len(os.sched_getaffinity(0)))
    assert threads(threads=1000) == len(os.sched_getaffinity(0))
    assert threads(threads=0) == len(os.sched_getaffinity(0))
    rewrite(package, lambda raw: raw.pop("threads"))
    assert threads() == len(os.sched_getaffinity(0))
