import json
from pathlib import Path

import pytest

from stillroom.errors import InputError
from stillroom.export.package import relist
from stillroom.export.runtime import Package, PackageError, read_manifest
from stillroom.files import file_digests, write_json


def test_the_manifest_lists_every_file_with_its_digest(built: Path) -> None:
    manifest = read_manifest(built / "fp32")
    found = file_digests(built / "fp32")
    found.pop("stillroom.json")
    assert manifest["files"] == found
    assert manifest["task"] == "text-classification"


def test_equal_contents_make_equal_packages(built: Path, tmp_path: Path) -> None:
    from stillroom.export.package import write_package

    digests = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_package(
            tmp_path / name,
            model=built / "fp32" / "model.onnx",
            tokeniser=built / "fp32" / "tokenizer.json",
            name="toy",
            family="static",
            problem_type="single_label",
            labels=("delivery", "login", "refund"),
            max_length=24,
            temperature=1.0,
            quantisation="fp32",
            params=1,
            threads=1,
            lineage={},
        )
        digests.append(file_digests(tmp_path / name))
    assert digests[0] == digests[1]


def test_what_joins_a_package_is_listed_and_the_digest_stays(package: Path) -> None:
    before = read_manifest(package)
    (package / "MODEL_CARD.md").write_text("# Toy")
    (package / "plots").mkdir()
    (package / "plots" / "curve.png").write_bytes(b"png")
    write_json(package / "gate.json", {"verdict": "PASS"})
    after = relist(package, before)
    assert set(after["files"]) == {"model.onnx", "tokenizer.json", "MODEL_CARD.md", "plots/curve.png", "gate.json"}
    assert after["digest"] == before["digest"] == Package.load(package).digest
    assert json.loads((package / "stillroom.json").read_text()) == after
    assert {name: after[name] for name in before if name != "files"} == {
        name: before[name] for name in before if name != "files"
    }


def test_what_joined_a_package_is_verified_too(package: Path) -> None:
    (package / "gate.json").write_text('{"verdict": "PASS"}')
    relist(package, read_manifest(package))
    (package / "gate.json").write_text('{"verdict": "FAIL"}')
    with pytest.raises(PackageError, match=r"gate\.json: sha256 is"):
        Package.load(package)
    (package / "gate.json").unlink()
    with pytest.raises(InputError, match=r"gate\.json: no such file"):
        Package.load(package, verify=False)


def test_relisting_does_not_hide_a_changed_model(package: Path) -> None:
    manifest = read_manifest(package)
    model = package / "model.onnx"
    model.write_bytes(model.read_bytes() + b" ")
    relist(package, manifest)
    with pytest.raises(PackageError, match="digest is"):
        Package.load(package)
