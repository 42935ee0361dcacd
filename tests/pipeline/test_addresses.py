"""Names of shards on the web, and messages about them."""

from __future__ import annotations

import pytest

from pipeline.addresses import public, redacted, without_password, without_query
from pipeline.errors import describe
from pipeline.explanations import explain
from pipeline.manifest import Plan
from pipeline.progress import plan_line
from pipeline.storage import UrlOpener


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a b/c.tar?X-Amz-Signature=1/2", "https://host/a b/c.tar"),
        ("http://host/c.tar#part?x", "http://host/c.tar"),
        ("https://user:secret@host:8080/c@d.tar", "https://host:8080/c@d.tar"),
        ("https://host?x=1", "https://host"),
        ("simplecache::https://host/c.tar?x", "simplecache::https://host/c.tar"),
        ("s3://bucket/what?.tar", "s3://bucket/what?.tar"),
        ("/data/what?#.tar", "/data/what?#.tar"),
    ],
)
def test_names_hold_no_secrets(url: str, name: str) -> None:
    assert public(url) == name
    assert public(name) == name


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("sftp://me:pass:word@host/a@b:c", "sftp://me@host/a@b:c"),
        ("sftp://me:p@ss word@host/a", "sftp://me@host/a"),
        ("https://me:secret@host/a?x", "https://host/a"),
        ("s3://bucket/key:1@2", "s3://bucket/key:1@2"),
        ("/data/a:b@c", "/data/a:b@c"),
    ],
)
def test_places_are_stored_without_passwords(url: str, stored: str) -> None:
    assert without_password(url) == stored


def test_a_query_with_slashes_stays_with_its_file() -> None:
    assert without_query("https://host/in/c.tar?a=/b//") == ("https://host/in/c.tar", "?a=/b//")
    storage, name = UrlOpener().locate("https://host/in/c.tar?a=/b//")
    assert (storage.url, name) == ("https://host/in", "c.tar?a=/b//")


def test_errors_are_told_without_secrets() -> None:
    error = OSError("403, message='Forbidden', url='https://me:pw@host/c.tar?X-Amz-Signature=1%2F2' (s3://b/c?d)")
    assert describe(error) == "OSError: 403, message='Forbidden', url='https://host/c.tar' (s3://b/c?d)"
    assert redacted("https://host/a.tar?x: gone; http://b/c#d e") == "https://host/a.tar gone; http://b/c e"
    assert redacted("s3://b: to me@x; see ftp://me:p@w@host/a, sftp://host:22/a@b") == (
        "s3://b: to me@x; see ftp://me@host/a, sftp://host:22/a@b"
    )


def test_a_user_is_told_of_places_without_passwords() -> None:
    url = "sftp://me:secret@host/archive"
    assert explain(PermissionError(f"{url}/a refused"), url).startswith("sftp://me@host/archive: access denied")
    assert (
        explain(OSError(f"{url}/a is odd"), url) == "sftp://me@host/archive: OSError: sftp://me@host/archive/a is odd"
    )
    assert plan_line(Plan("f", []), url).startswith("sftp://me@host/archive: 0 shards done")
