"""Storage: one contract for local disk, memory and S3; injected faults on S3."""

import errno
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import JobError, TransientError, Verdict, decide
from pipeline.retry import Retry
from pipeline.storage import Storage, UrlOpener
from tests.http_server import serving
from tests.s3_server import Bucket

FAST = Retry(attempts=12, budget=60, first=0.01, ceiling=0.1)


@pytest.fixture(
    params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3), pytest.param("prefix", marks=pytest.mark.s3)]
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage.from_url(str(tmp_path / "new" / "folder"))
    if request.param == "memory":
        return Storage.from_url(f"memory://{uuid.uuid4().hex}")
    bucket: Bucket = request.getfixturevalue("s3")
    url = bucket.url if request.param == "s3" else f"{bucket.url}/some/prefix/"
    return Storage.from_url(url, bucket.storage_options)


def write(storage: Storage, path: str, data: bytes) -> None:
    with storage.atomic_write(path) as file:
        file.write(data)


def test_what_is_written_is_there(storage: Storage) -> None:
    write(storage, "a/b.bin", b"0123456789")
    assert storage.read("a/b.bin") == b"0123456789"
    assert storage.read("a/b.bin", 2, 5) == b"234"
    assert storage.read("a/b.bin", 8) == b"89"
    assert storage.read("a/b.bin", 4, 4) == b""
    assert storage.size("a/b.bin") == 10
    assert storage.exists("a/b.bin")
    assert storage.path_url("a/b.bin").endswith("/a/b.bin")


def test_a_store_that_shows_late_what_was_written(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    real, late = Storage._info, iter([FileNotFoundError("not yet")])

    def info(self: Storage, path: str) -> Any:
        for error in late:
            raise error
        return real(self, path)

    monkeypatch.setattr(Storage, "_info", info)
    write(replace(storage, retry=FAST), "a/b.bin", b"0123456789")
    assert storage.read("a/b.bin") == b"0123456789"


def test_a_folder_without_those_below_it(storage: Storage) -> None:
    for path in ("a/b.bin", "a/c/d.bin", "a/.hidden", "a.bin"):
        write(storage, path, b"01234")
    assert [(info.path, info.size) for info in storage.scan("a", deep=False)] == [("a/b.bin", 5)]
    assert storage.scan("nowhere", deep=False) == []


def test_what_is_not_there(storage: Storage) -> None:
    assert not storage.exists("a")
    assert storage.list("a") == []
    assert storage.list() == []
    for request in (storage.read, storage.size, storage.open):
        with pytest.raises(FileNotFoundError):
            request("a/b")
    storage.delete("a/b")


def test_an_exception_leaves_no_trace(storage: Storage) -> None:
    write(storage, "a", b"old")

    def interrupted(path: str) -> None:
        with storage.atomic_write(path) as file:
            file.write(b"new" * 1000)
            raise KeyError

    for path in ("a", "b"):
        with pytest.raises(KeyError):
            interrupted(path)
    assert storage.list() == ["a"]
    assert storage.read("a") == b"old"


def test_an_object_is_replaced_and_deleted(storage: Storage) -> None:
    write(storage, "a", b"old and long")
    before = storage.info("a")
    write(storage, "a", b"new")
    assert storage.read("a") == b"new"
    assert storage.info("a") != before
    storage.delete("a")
    assert not storage.exists("a")


def test_nothing_is_there_before_the_block_ends(storage: Storage) -> None:
    with storage.atomic_write("folder/a") as file:
        file.write(b"half")
        file.flush()
        assert storage.list() == []
    assert storage.list() == ["folder/a"]


def test_lists_are_sorted_and_below_the_folder_only(storage: Storage) -> None:
    for path in ("b/2", "a/1", "b/1", "bc/1", "b/c/3"):
        write(storage, path, path.encode())
    assert storage.list("b") == ["b/1", "b/2", "b/c/3"]
    assert storage.list() == ["a/1", "b/1", "b/2", "b/c/3", "bc/1"]
    assert [info.size for info in storage.scan("b")] == [3, 3, 5]
    assert all(info.etag for info in storage.scan("b"))


def test_streams_read_and_seek(storage: Storage) -> None:
    data = os.urandom(100_000)
    write(storage, "a", data)
    with storage.open("a") as file:
        assert file.read(10) == data[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(50_000)
        assert file.read() == data[50_000:]
    with storage.open("a", buffer=0) as file:
        assert file.read(100) == data[:100]


def test_it_can_be_pickled_after_use(storage: Storage) -> None:
    if storage.url.startswith("memory"):
        pytest.skip("memory is of one process; the copy would be the same")
    write(storage, "a", b"x")
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.read("a") == b"x"


def test_urls_are_opened_one_by_one(storage: Storage) -> None:
    write(storage, "a/1", b"one")
    write(storage, "b/2", b"two")
    opener = pickle.loads(pickle.dumps(UrlOpener(storage.options)))
    for path, data in (("a/1", b"one"), ("b/2", b"two"), ("a/1", b"one")):
        with opener.open(storage.path_url(path)) as file:
            assert file.read() == data


def test_a_relative_path_holds_in_other_working_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage.from_url("archive")
    monkeypatch.chdir("/")
    write(storage, "a", b"x")
    assert (tmp_path / "archive" / "a").read_bytes() == b"x"


def test_a_local_path_is_no_chain_of_file_systems(tmp_path: Path) -> None:
    for url in (str(tmp_path / "archive::v2"), f"{tmp_path}/tar::v3/deep"):
        storage = Storage.from_url(url)
        write(storage, "a::b", b"x")
        assert (Path(url) / "a::b").read_bytes() == b"x"
        with UrlOpener().open(storage.path_url("a::b")) as file:
            assert file.read() == b"x"
        assert storage.list() == ["a::b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive::v2", "tar::v3"]


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        ("s3://b/arc", "s3a://b/arc/data", True),
        ("s3a://b/arc", "s3://b/arc", True),
        ("s3://b/arc", "s3://b/arc2", False),
        ("s3://b/arc/data", "s3://b/arc", False),
        ("s3://b/arc", "memory://b/arc/data", False),
        ("ftp://one/arc", "ftp://one/arc/data", True),
        ("ftp://one/arc", "ftp://other/arc/data", False),
    ],
)
def test_places_inside_others(monkeypatch: pytest.MonkeyPatch, outer: str, inner: str, holds: bool) -> None:
    monkeypatch.setattr("fsspec.implementations.ftp.FTPFileSystem._connect", lambda files: None)
    monkeypatch.setattr("fsspec.implementations.ftp.FTPFileSystem.__del__", lambda files: None)
    assert Storage.from_url(outer).holds(Storage.from_url(inner)) is holds


def test_secrets_do_not_show() -> None:
    storage = Storage.from_url("s3://bucket", {"secret": "hidden"})
    assert "hidden" not in repr(storage)
    assert "hidden" not in repr(UrlOpener(storage.options))


def test_hidden_leftovers_of_a_kill_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".writing-1.tmp").write_bytes(b"half")
    assert Storage.from_url(str(tmp_path)).list("data") == []


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write(Storage.from_url(str(tmp_path)), "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.fixture
def plain_http(tmp_path: Path) -> Iterator[Storage]:
    with serving(tmp_path) as url:
        yield Storage.from_url(url)


def test_what_cannot_be_listed_says_so(plain_http: Storage) -> None:
    with pytest.raises(JobError, match=r"can be listed, not http"):
        plain_http.list("reports")


def test_an_object_whose_size_is_not_known(monkeypatch: pytest.MonkeyPatch, plain_http: Storage) -> None:
    monkeypatch.setattr(plain_http._fs, "info", lambda path: {"name": path, "size": None, "type": "file"})
    with pytest.raises(JobError, match="/a: its size is not known"):
        plain_http.info("a")


def test_an_object_that_has_only_a_time_changes_with_it(plain_http: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"type": "file", "size": 1}
    for name, time in (("LastModified", "1"), ("last_modified", "2"), ("Last-Modified", "3")):
        monkeypatch.setattr(plain_http._fs, "info", lambda _, known={name: time}: {**files, **known})
        assert plain_http.info("a").etag == time


def test_a_request_that_fails_after_the_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.from_url(str(tmp_path), retry=FAST)
    info, asked = storage._fs.info, []

    def stale_once(path: str, **options: Any) -> Any:
        asked.append(path)
        if len(asked) == 1:
            raise OSError(errno.ESTALE, "stale file handle")
        return info(path, **options)

    monkeypatch.setattr(storage._fs, "info", stale_once)
    write(storage, "a", b"0123456789")
    assert (len(asked), storage.read("a")) == (2, b"0123456789")


def test_a_name_may_begin_with_slashes() -> None:
    opener = UrlOpener()
    for url, folder, name in (
        ("s3://bucket/day//a.tar", "s3://bucket/day", "/a.tar"),
        ("s3://bucket//a.tar", "s3://bucket", "/a.tar"),
        ("s3://bucket/day/a.tar", "s3://bucket/day", "a.tar"),
        ("/a.tar", "/", "a.tar"),
    ):
        storage, found = opener.locate(url)
        assert (storage.url, found) == (folder, name)


@pytest.mark.s3
def test_keys_with_two_slashes_are_opened_as_they_are_listed(s3: Bucket) -> None:
    s3.put("day//a.tar", b"two slashes")
    s3.put("day/a.tar", b"one slash")
    with UrlOpener(s3.storage_options).open(f"{s3.url}/day//a.tar") as file:
        assert file.read() == b"two slashes"


def test_a_server_that_sends_whole_files_in_place_of_parts(plain_http: Storage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert plain_http.read("a") == b"0123456789"
    with pytest.raises(JobError, match="whole"):
        plain_http.read("a", 2, 5)
    with plain_http.open("a", buffer=4) as file, pytest.raises(JobError, match="whole"):
        file.read(3)


@pytest.mark.s3
@pytest.mark.parametrize(
    "faults",
    [("--slow-down", "0.3"), ("--error", "0.3"), ("--reset", "0.3"), ("--truncate", "0.3"), ("--lost-reply", "0.3")],
    ids=lambda faults: faults[0],
)
def test_faults_are_survived(s3: Bucket, faulty_s3: Callable[..., dict[str, object]], faults: tuple[str, ...]) -> None:
    storage = Storage.from_url(s3.url, faulty_s3("--seed", "1", *faults), FAST)
    data = os.urandom(300_000)
    for number in range(3):
        write(storage, f"data/{number}", data)
    assert storage.list("data") == ["data/0", "data/1", "data/2"]
    with storage.open("data/1", buffer=50_000) as file:
        assert file.read() == data
    assert s3.get("data/2") == data


@pytest.mark.s3
def test_bodies_that_come_short_are_noticed(s3: Bucket, faulty_s3: Callable[..., dict[str, object]]) -> None:
    s3.put("a", b"x" * 100_000)
    always = faulty_s3("--shorten", "1", "--match", "GET .*/a")
    with pytest.raises(TransientError):
        Storage.from_url(s3.url, always, Retry(attempts=2, budget=5, first=0.01)).read("a")


@pytest.mark.s3
def test_a_missing_bucket_and_wrong_credentials_abort_at_once(s3: Bucket) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        write(Storage.from_url("s3://there-is-no-such-bucket-here", s3.storage_options), "a", b"x")
    assert decide(missing.value) is Verdict.ABORT
    if s3.server.kind == "real":
        options = {**s3.storage_options, "secret": "wrong"}
        with pytest.raises(PermissionError) as refused:
            write(Storage.from_url(s3.url, options), "a", b"x")
        assert decide(refused.value) is Verdict.ABORT


@pytest.mark.parametrize("url", ["s3:/bucket/archive", "file:/archive", "gs:/b"])
def test_a_mistyped_url_is_no_folder(url: str) -> None:
    with pytest.raises(JobError, match=f"is {url.split(':')[0]}:// meant"):
        Storage.from_url(url)
    for meant in ("here:/archive", "./s3:/archive", "s3:", "s3:archive"):
        assert Storage.from_url(meant).url.endswith(meant.removeprefix("./"))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    storage = Storage.from_url(str(tmp_path / "archive"))
    named = pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/archive/data'")
    with named, storage.atomic_write("data/a.parquet"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list((tmp_path / "archive" / "data").iterdir()) == []
