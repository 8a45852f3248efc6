from pathlib import Path

import pytest

from stillroom.data.sources import bucket as bucket_module
from stillroom.data.sources.fetching import fetch
from stillroom.errors import InputError


def test_an_object_is_fetched_once_until_it_changes(s3, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, bucket = s3
    client.put_object(Bucket=bucket, Key="a/rows.csv", Body=b"one")
    downloads: list[str] = []
    download = bucket_module.download
    monkeypatch.setattr(bucket_module, "download", lambda *given: (downloads.append("x"), download(*given))[1])
    uri = f"s3://{bucket}/a/rows.csv"
    first = fetch(uri, None, "data.source")
    assert fetch(uri, None, "data.source") == first
    assert (first.read_bytes(), len(downloads)) == (b"one", 1)
    client.put_object(Bucket=bucket, Key="a/rows.csv", Body=b"two")
    assert fetch(uri, None, "data.source").read_bytes() == b"two"
    assert len(downloads) == 2
    assert first.read_bytes() == b"one"


def test_a_prefix_is_a_folder(s3, state: Path) -> None:
    client, bucket = s3
    for key in (
        "models/teacher/config.json",
        "models/teacher/1_Pooling/config.json",
        "models/teacher/",
        "models/teacher2/x",
    ):
        client.put_object(Bucket=bucket, Key=key, Body=b"{}")
    for uri in (f"s3://{bucket}/models/teacher", f"s3://{bucket}/models/teacher/"):
        folder = fetch(uri, None, "teacher.source")
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == {"config.json", "1_Pooling/config.json"}


def test_what_is_pinned_needs_no_server(s3, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, bucket = s3
    client.put_object(Bucket=bucket, Key="rows.csv", Body=b"one")
    first = fetch(f"s3://{bucket}/rows.csv", None, "data.source")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert fetch(f"s3://{bucket}/rows.csv", first.parent.name, "data.source") == first
    with pytest.raises(InputError, match="no network: the S3 endpoint is not reachable"):
        fetch(f"s3://{bucket}/rows.csv", None, "data.source")


def test_keys_that_lead_out_are_refused(s3, state: Path, tmp_path: Path) -> None:
    client, bucket = s3
    client.put_object(Bucket=bucket, Key="model/../../escaped.json", Body=b"boo")
    with pytest.raises(InputError, match="leads out of its folder"):
        fetch(f"s3://{bucket}/model/", None, "teacher.source")
    assert not list(tmp_path.rglob("escaped.json"))


@pytest.mark.parametrize("uri", ["s3://{bucket}/none.csv", "s3://no-such-bucket-here/rows.csv"])
def test_missing_objects_and_buckets_are_wrong_input(s3, state: Path, uri: str) -> None:
    uri = uri.format(bucket=s3[1])
    with pytest.raises(InputError, match=f"^data.source: {uri}: ") as caught:
        fetch(uri, None, "data.source")
    assert "\n" not in str(caught.value)


def test_missing_credentials_say_what_to_set(s3, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(InputError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        fetch(f"s3://{s3[1]}/rows.csv", None, "data.source")
