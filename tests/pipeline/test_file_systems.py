"""What stores tell about objects, each in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import JobError
from pipeline.file_systems import can_be_listed, connect, first_entry, named_host, object_size, object_tag


@pytest.mark.parametrize(
    ("info", "tag"),
    [
        ({"ETag": '"abc"', "LastModified": "yesterday"}, "abc"),
        ({"md5Hash": "x", "mtime": 1.5}, "x"),
        ({"last_modified": "today", "created": 1}, "today"),
        ({"Last-Modified": "Mon, 1 Jan"}, "Mon, 1 Jan"),
        ({"ETag": "", "mtime": 1.5}, "1.5"),
        ({"name": "a", "size": 5}, ""),
    ],
)
def test_the_best_tag_there_is(info: dict[str, Any], tag: str) -> None:
    assert object_tag(info) == tag


def test_sizes() -> None:
    assert object_size({"size": 5, "type": "file"}, "x://a") == 5
    with pytest.raises(JobError, match=r"^x://a: its size is not known"):
        object_size({"size": None, "type": "file"}, "x://a")
    with pytest.raises(FileNotFoundError, match=r"^x://a is a folder"):
        object_size({"size": 0, "type": "directory"}, "x://a")


def test_hosts_that_addresses_name() -> None:
    assert named_host("webhdfs", "webhdfs://host:9870/a") == {"host": "host", "port": 9870}
    assert named_host("ftp", "ftp://me:secret@host/a") == {"host": "host"}
    assert [named_host(scheme, f"{scheme}://a/b") for scheme in ("s3", "https", "nosuch")] == [{}, {}, {}]


def test_libraries_do_not_repeat_requests_by_themselves() -> None:
    files, path = connect("s3://bucket/a", {"key": "k", "secret": "s", "config_kwargs": {"read_timeout": 9}})
    assert (path, files.retries) == ("bucket/a", 1)
    assert (files.config_kwargs["retries"], files.config_kwargs["read_timeout"]) == ({"max_attempts": 0}, 9)


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_stores_are_asked_anew_and_not_for_long(scheme: str) -> None:
    options = {"key": "k", "secret": "s"}
    (files, _), (others, _) = (connect(f"{scheme}://bucket/a", options) for _ in range(2))
    assert files is not others
    assert not files.dircache.use_listings_cache
    assert files.config_kwargs == {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 0}}


@pytest.mark.parametrize(
    ("url", "listed"), [("/a", True), ("memory://a", True), ("http://a/b", False), ("https://a/b", False)]
)
def test_what_can_be_listed(url: str, listed: bool) -> None:
    assert can_be_listed(connect(url, {})[0]) is listed


def test_the_first_entry_of_a_folder_is_none_that_is_hidden(tmp_path: Path) -> None:
    files, folder = connect(str(tmp_path), {})
    for name in (".DS_Store", ".git/config", "day/.DS_Store", "day/.git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        assert first_entry(files, folder) == ""
    (tmp_path / "day" / "a.jpg").touch()
    assert first_entry(files, folder) == first_entry(files, f"{folder}/") == "day/a.jpg"
    assert first_entry(files, f"{folder}/none") == ""
