"""Input URLs to shards: on disk, in memory and on S3; and errors that say what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import listing
from pipeline.errors import JobError
from pipeline.listing import InputError, expand, expand_braces
from pipeline.retry import Retry
from pipeline.storage import UrlOpener
from tests.corpora import shard_bytes, write_corpus
from tests.http_server import WholeFiles, serving
from tests.s3_server import POWERLESS_KEY, POWERLESS_SECRET, Bucket, free_port

AT_ONCE = Retry(attempts=1)


def names(urls: list[str], folder: Path) -> list[str]:
    return [source.url.removeprefix(f"{folder}/") for source in expand(urls)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.tar",
        "a.tar",
        "day/c.tgz",
        "day/d.tar.gz",
        "day/deep/e.tar",
        "UP.TAR",
        "notes.txt",
        "day/.hidden.tar",
        "f.bin",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("url", ["day::one/a::b.tar", "day::one", "day::one/*.tar"])
def test_a_local_path_is_no_chain_of_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    shard = tmp_path / "day::one" / "a::b.tar"
    shard.parent.mkdir()
    shard.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert [source.url for source in expand([url])] == [str(shard)]


@pytest.mark.parametrize(
    "url", ["zip://*.tar::s3://b/x.zip", "zip://a.tar::/x.zip", "simplecache::s3://b/*.tar", "memory://b/a::b.tar"]
)
def test_a_chain_of_file_systems_is_refused_with_what_to_write(url: str) -> None:
    said = rf"^{re.escape(url)}: chained addresses \(::\) are not read; name the shards where they lie"
    with pytest.raises(InputError, match=said):
        expand([url])


def test_a_name_in_a_store_that_looks_like_a_chain_is_found_by_a_wildcard() -> None:
    fsspec.filesystem("memory").pipe("/colons/a::b.tar", b"x")
    (source,) = expand(["memory://colons/*.tar"])
    with UrlOpener().open(source.address) as file:
        assert file.read() == b"x"


class TestBraces:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("a.tar", ["a.tar"]),
            ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
            ("{8..11}", ["8", "9", "10", "11"]),
            ("{a,b}-{1..2}", ["a-1", "a-2", "b-1", "b-2"]),
            ("{a,b{1..2}}", ["a", "b1", "a", "b2"]),
            ("x{,y}", ["x", "xy"]),
        ],
    )
    def test_expansion(self, url: str, expected: list[str]) -> None:
        assert list(expand_braces(url)) == expected

    def test_backwards(self) -> None:
        with pytest.raises(InputError, match="backwards"):
            list(expand_braces("{3..1}"))

    def test_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listing, "MAX_NAMES", 100)
        assert len(list(expand_braces("{0..9}-{0..9}"))) == 100
        with pytest.raises(InputError, match="more than 100"):
            list(expand_braces("{0..9}-{0..10}"))


class TestLocal:
    def test_folder_is_searched_to_the_bottom(self, tree: Path) -> None:
        assert names([str(tree)], tree) == ["UP.TAR", "a.tar", "b.tar", "day/c.tgz", "day/d.tar.gz", "day/deep/e.tar"]

    def test_wildcards(self, tree: Path) -> None:
        assert names([f"{tree}/*.tar"], tree) == ["a.tar", "b.tar"]
        assert names([f"{tree}/**/*.t*"], tree) == ["a.tar", "b.tar", "day/c.tgz", "day/d.tar.gz", "day/deep/e.tar"]
        assert names([f"{tree}/?.*"], tree) == ["a.tar", "b.tar"]
        assert names([f"{tree}/d*"], tree) == ["day/c.tgz", "day/d.tar.gz", "day/deep/e.tar"]

    def test_named_files_may_have_any_name(self, tree: Path) -> None:
        assert names([f"{tree}/f.bin", f"file://{tree}/notes.txt"], tree) == ["f.bin", "notes.txt"]

    def test_braces_with_wildcards(self, tree: Path) -> None:
        assert names([f"{tree}/{{a,day/c}}.t*"], tree) == ["a.tar", "day/c.tgz"]

    def test_each_shard_once_however_it_is_spelt(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree)
        urls = ["a.tar", "./a.tar", f"{tree}/day/../a.tar", f"file://{tree}/a.tar", "*.tar"]
        assert names(urls, tree) == ["a.tar", "b.tar"]

    def test_size_and_etag_change_with_the_content(self, tree: Path) -> None:
        path = tree / "a.tar"
        before = expand([str(path)])[0]
        assert before.size == 5
        path.write_bytes(b"other content")
        after = expand([str(path)])[0]
        assert (after.size, after.etag != before.etag) == (13, True)
        assert expand([str(path)])[0] == after == expand([f"{tree}/a*"])[0]

    def test_missing_shard_of_a_range_is_an_error(self, tmp_path: Path) -> None:
        write_corpus(tmp_path, shards=8)
        assert len(expand([f"{tmp_path}/corpus-{{000000..000007}}.tar"])) == 8
        for last, missing in ((9, 2), (10, 3)):
            with pytest.raises(
                InputError, match=f"{missing} of {last + 1} are missing, first {tmp_path}/corpus-000008"
            ):
                expand([f"{tmp_path}/corpus-{{000000..{last:06d}}}.tar"])

    @pytest.mark.parametrize("url", ["nothing.tar", "nothing/", "no*.tar", "nothing/*.tar", "{x,y}.tar", "notes*"])
    def test_nothing_there(self, tree: Path, url: str) -> None:
        with pytest.raises(InputError) as caught:
            expand([f"{tree}/{url}"])
        assert str(caught.value).startswith(f"{tree}/{url}: ")
        assert "\n" not in str(caught.value)

    def test_folder_without_shards(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no shards there.*\.tar"):
            expand([str(tmp_path)])

    def test_error_is_for_the_user(self) -> None:
        assert issubclass(InputError, ValueError)
        assert issubclass(InputError, JobError)

    @pytest.mark.parametrize("name", ["cam[1].tar", "cam{1}.tar", "cam*.tar", "{0..9}.tar"])
    def test_a_file_that_is_called_like_a_pattern(self, tmp_path: Path, name: str) -> None:
        for each in (name, "cam1.tar"):
            (tmp_path / each).write_bytes(b"x")
        assert names([f"{tmp_path}/{name}"], tmp_path) == [name]

    def test_a_link_that_leads_nowhere_is_named(self, tree: Path) -> None:
        (tree / "day" / "notes.txt").symlink_to("nowhere")  # no shard: nobody asks
        assert len(expand([str(tree)])) == 6
        (tree / "day" / "lost.tar").symlink_to("nowhere")
        for url in (str(tree), f"{tree}/**/*.tar", f"{tree}/day/*.tar"):
            with pytest.raises(InputError, match=rf"^{tree}/day/lost\.tar: no such file"):
                expand([url])

    def test_unknown_kind_of_url(self) -> None:
        with pytest.raises(InputError, match="nosuch"):
            expand(["nosuch://x/y.tar"])


@pytest.mark.parametrize("empty", ["", " "])
def test_no_input_is_not_the_current_folder(tree: Path, monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(InputError, match=rf"^'{empty}' names no input$"):
        expand([empty])


PACK = r"; pack the pictures there first: tar -cf cam\.tar --sort=name DIR"


@pytest.mark.parametrize("place", ["", "/*", "/*.jpg", "/**"])
def test_pictures_are_to_be_packed(tmp_path: Path, place: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=rf"no shards there; .*{PACK}$"):
        expand([f"{tmp_path}{place}"])


def test_where_there_are_no_pictures_there_is_nothing_to_pack(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(InputError, match=r"no shards there; .*\.tgz$"):
        expand([str(tmp_path)])


@pytest.fixture
def web(tree: Path) -> Iterator[str]:
    with serving(tree) as url:
        yield url


class TestWeb:
    def test_each_name_is_asked_for(self, web: str, tree: Path) -> None:
        for number in range(6):
            (tree / f"cam-{number}.tar").write_bytes(b"x" * number)
        assert [source.size for source in expand([f"{web}/cam-{{0..5}}.tar"])] == list(range(6))
        with pytest.raises(InputError, match=r"1 of 7 are missing, first .*/cam-6\.tar"):
            expand([f"{web}/cam-{{0..6}}.tar"])

    def test_a_signature_is_no_part_of_a_name(self, web: str) -> None:
        signed = f"{web}/a.tar?signature=a/b#c"
        (source,) = expand([signed, signed])
        assert (source.url, source.address) == (f"{web}/a.tar", signed)
        assert "signature" not in repr(source)
        assert expand([f"{web}/a.tar?signature=anew"]) == [source]

    def test_inputs_that_only_a_query_tells_apart_are_refused(self, web: str) -> None:
        for urls in ([f"{web}/a.tar?id=1", f"{web}/a.tar?id=2"], [f"{web}/a.tar?id={{1..2}}"]):
            with pytest.raises(InputError, match=r"^http://[0-9.:]+/a\.tar: several inputs are called so"):
                expand(urls)

    def test_what_is_missing_is_named_without_its_signature(self, web: str) -> None:
        with pytest.raises(InputError, match=r"none\.tar: no such file or folder$"):
            expand([f"{web}/none.tar?signature=x"])

    @pytest.mark.parametrize("names", ["a.tar", "cam-{0..2}.tar"])
    @pytest.mark.parametrize(
        ("status", "line"), [(403, "access denied"), (500, "cannot be reached, check endpoint and network: .*500")]
    )
    def test_a_server_that_refuses_or_fails_is_no_missing_file(
        self, web: str, monkeypatch: pytest.MonkeyPatch, names: str, status: int, line: str
    ) -> None:
        asked = []
        monkeypatch.setattr(WholeFiles, "send_head", lambda self: asked.append(1) or self.send_error(status))
        with pytest.raises(InputError, match=line) as caught:
            expand([f"{web}/{names}"], retry=Retry(attempts=2, first=0.0))
        assert "missing" not in str(caught.value)
        if names == "a.tar":
            assert len(asked) == (4 if status == 500 else 2), "a HEAD and a GET each time"

    @pytest.mark.parametrize("names", ["a.tar", "{0..2}.tar"])
    def test_a_server_that_is_not_there_is_no_missing_file(self, names: str) -> None:
        for place in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid"):
            with pytest.raises(InputError, match=r"cannot be reached, check endpoint and network"):
                expand([f"{place}/{names}"], retry=AT_ONCE)

    def test_what_is_gone_is_missing(self, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(WholeFiles, "send_head", lambda self: self.send_error(410))
        with pytest.raises(InputError, match=r"a\.tar: no such file or folder$"):
            expand([f"{web}/a.tar"])

    def test_nothing_is_searched(self, web: str) -> None:
        with pytest.raises(InputError, match=r"wildcards need a store that can be listed"):
            expand([f"{web}/*.tar"])

    def test_a_shard_that_changed_at_equal_size(self, web: str, tree: Path) -> None:
        (before,) = expand([f"{web}/a.tar"])
        os.utime(tree / "a.tar", (0, 0))
        assert expand([f"{web}/a.tar"])[0].etag != before.etag


def test_a_listing_without_sizes_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    files = CountingFiles()
    monkeypatch.setattr(listing, "connect", lambda url, options: (files, "bucket"))
    monkeypatch.setattr(files, "ls", lambda *_, **__: [{"name": path, "type": "file"} for path in files.paths()])
    monkeypatch.setattr(files, "info", lambda path: {"type": "file", "size": int(path[-5])}, raising=False)
    assert [source.size for source in expand(["counting://bucket/cam-{000000..000006}.tar"])] == list(range(7))


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://user:secret@host1/day/*.tar", '{"host": "host1"}'),
        ("webhdfs://host1:9870/a.tar", '{"host": "host1", "port": 9870}'),
    ],
)
def test_a_host_in_an_address_would_be_lost(url: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "connect", lambda *_: pytest.fail("the address alone tells"))
    with pytest.raises(InputError) as caught:
        expand([url])
    scheme = url.partition("://")[0]
    assert str(caught.value) == f"{scheme}://host1: give --storage-options '{options}', and shards as {scheme}:///…"


def test_a_store_whose_host_is_among_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    files = CountingFiles()
    monkeypatch.setattr(listing, "connect", lambda url, options: (files, "bucket"))
    assert expand(["webhdfs:///bucket/cam-{000000..000009}.tar"], {"host": "host1"})[0].size == 1


def test_memory() -> None:
    files = fsspec.filesystem("memory")
    files.pipe({"/listing-test/a.tar": b"12345", "/listing-test/b/c.tgz": b"1"})
    try:
        sources = expand(["memory://listing-test"])
        assert [(source.url, source.size) for source in sources] == [
            ("memory:///listing-test/a.tar", 5),
            ("memory:///listing-test/b/c.tgz", 1),
        ]
        assert all(source.etag for source in sources)
        assert expand(["memory://listing-test/*.tar", "memory:///listing-test/b"]) == sources
    finally:
        files.rm("/listing-test", recursive=True)


class CountingFiles:
    """A store of 100,000 shards in one folder that counts what it is asked."""

    protocol = "counting"

    def __init__(self) -> None:
        self.requests: list[str] = []

    def _strip_protocol(self, url: str) -> str:
        return url.partition("://")[2].lstrip("/")

    def unstrip_protocol(self, path: str) -> str:
        return f"counting://{path}"

    def ls(self, folder: str, detail: bool) -> list[dict[str, Any]]:
        self.requests.append(f"ls {folder}")
        return [{"name": path, "type": "file", "size": 1, "ETag": '"x"'} for path in self.paths()]

    def paths(self) -> Iterator[str]:
        return (f"bucket/cam-{index:06d}.tar" for index in range(100_000))


def test_hundred_thousand_shards_take_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    files = CountingFiles()
    monkeypatch.setattr(listing, "connect", lambda url, options: (files, "bucket"))
    sources = expand(["counting://bucket/cam-{000000..099999}.tar"])
    assert len(sources) == 100_000
    assert sources[-1].url == "counting://bucket/cam-099999.tar"
    assert sources[0].etag == "x"
    assert files.requests == ["ls bucket"]


@pytest.mark.s3
class TestS3:
    def test_every_way_to_name_shards(self, s3: Bucket) -> None:
        content = shard_bytes(1)
        for name in ("day/a-000.tar", "day/a-001.tar", "day/b.tgz", "night/c.tar.gz", "day/labels.json"):
            s3.put(name, content)
        options = s3.storage_options

        def found(*paths: str) -> list[str]:
            return [
                source.url.removeprefix(f"{s3.url}/") for source in expand([s3.url + path for path in paths], options)
            ]

        everything = ["day/a-000.tar", "day/a-001.tar", "day/b.tgz", "night/c.tar.gz"]
        assert found("") == found("/**") == found("/{day,night}") == everything
        assert found("/day/a-{000..001}.tar", "/day/*") == everything[:3]
        assert found("/day/a-000.tar", "/*/a-*.tar") == everything[:2]

    def test_size_and_etag_are_the_stores(self, s3: Bucket) -> None:
        content = shard_bytes(2)
        url = s3.put("a.tar", content)
        (first,) = expand([url], s3.storage_options)
        (listed,) = expand([s3.url], s3.storage_options)
        head = s3.server.client().head_object(Bucket=s3.name, Key="a.tar")
        assert first == listed
        assert (first.size, first.etag) == (len(content), head["ETag"].strip('"'))

    def test_environment_is_enough(self, s3: Bucket) -> None:
        url = s3.put("a.tar", b"x")
        assert [source.url for source in expand([url])] == [url]

    @pytest.mark.parametrize("path", ["", "/a.tar", "/*.tar", "/{a,b}.tar", "/{0..9}.tar"])
    def test_no_such_bucket(self, s3: Bucket, path: str) -> None:
        with pytest.raises(InputError, match="there is no bucket 'no-such-bucket-here'; check its name"):
            expand([f"s3://no-such-bucket-here{path}"], s3.storage_options)

    @pytest.mark.parametrize("path", ["", "/a.tar", "/*.tar"])
    def test_nothing_in_the_bucket(self, s3: Bucket, path: str) -> None:
        with pytest.raises(InputError, match=r"no (shards there|such file or folder)"):
            expand([s3.url + path], s3.storage_options)

    @pytest.mark.parametrize("path", ["/", "/a.tar"])
    def test_no_credentials(self, s3: Bucket, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(InputError, match="no credentials; set AWS_ACCESS_KEY_ID"):
            expand([s3.url + path], {"endpoint_url": s3.server.endpoint})

    @pytest.mark.parametrize("path", ["/", "/a.tar", "/{0..9}.tar"])
    def test_access_denied(self, s3: Bucket, path: str) -> None:
        if s3.server.kind == "mock":
            pytest.skip("moto lets everybody do everything")
        options = {**s3.storage_options, "key": POWERLESS_KEY, "secret": POWERLESS_SECRET}
        with pytest.raises(InputError, match="access denied"):
            expand([s3.url + path], options)

    def test_wrong_secret(self, s3: Bucket) -> None:
        if s3.server.kind == "mock":
            pytest.skip("moto takes any credentials")
        with pytest.raises(InputError, match=r"does not accept these credentials|access denied"):
            expand([s3.url], {**s3.storage_options, "secret": "wrong"})

    def test_server_that_does_not_answer(self, s3: Bucket) -> None:
        options = {**s3.storage_options, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
        with pytest.raises(InputError, match="cannot be reached, check endpoint and network"):
            expand([s3.url], options, AT_ONCE)
