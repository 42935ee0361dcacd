"""What the compression job checks of its inputs before work is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.compress_request import InstalledCodec, check_images, describe_output, parse, resolved
from pipeline.errors import JobError
from pipeline.manifest import Plan
from pipeline.records import ShardSource
from pipeline.storage import UrlOpener
from pipeline.totals import Totals
from tests import corpora
from tests.fakes import FakeCodecFactory


def source(folder: Path, name: str, data: bytes) -> ShardSource:
    path = folder / name
    path.write_bytes(data)
    return ShardSource(str(path), len(data), "tag")


def test_inputs_follow_one_option_or_repeat_it() -> None:
    """As they do where a shell expands a pattern without quotes."""
    request, _ = parse("", "", ["--input", "a", "b", "--input", "c", "--archive", "d"])
    assert request.input == ["a", "b", "c"]


def test_what_is_stored_of_the_job_holds_no_secrets(tmp_path: Path) -> None:
    places = ["--input", "https://h/a.tar?Signature=1", "--archive", "sftp://me:secret@host/archive"]
    request, options = parse("", "", [*places, "--dry-run", "--storage-options", '{"secret": "s"}'])
    assert (options.dry_run, options.storage) == (True, {"secret": "s"})
    codec = InstalledCodec("fake", "f" * 16, tmp_path, FakeCodecFactory(tmp_path), range(1, 7), 3, 0)
    stored = describe_output(resolved(request, codec), codec).config
    assert (stored["input"], stored["archive"]) == (["https://h/a.tar"], "sftp://me@host/archive")
    assert not {"dry_run", "storage_options"} & stored.keys(), "how a run goes is not what the archive is"


def check(*sources: ShardSource, done: Totals | None = None) -> None:
    check_images(Plan("f" * 16, sources, done or Totals()), UrlOpener())


@pytest.fixture
def empty(tmp_path: Path) -> ShardSource:
    return source(tmp_path, "empty.tar", corpora.tar_bytes([("a.json", b"{}")]))


def test_shards_without_images_are_refused(tmp_path: Path, empty: ShardSource) -> None:
    with pytest.raises(JobError, match=r"no images in 3 of 3 shards looked into, such as .*empty\.tar$"):
        check(*[empty] * 3)
    check(empty, source(tmp_path, "good.tar", corpora.shard_bytes(1)))
    check()


def test_no_more_than_a_few_shards_are_looked_into(tmp_path: Path, empty: ShardSource) -> None:
    missing = [ShardSource(str(tmp_path / f"{number}.tar"), 1, "") for number in range(24)]
    missing[0] = missing[3] = empty
    with pytest.raises(JobError, match=r"6\.tar: no such file"):
        check(*missing)
    with pytest.raises(JobError, match="no images in 8 of 100 shards"):
        check(*[empty] * 100)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("not-a-tar", "not a tar header at byte 0"), ("zero-bytes", "empty file"), ("broken-gzip", "damaged gzip")],
)
def test_the_reason_is_given_where_there_is_one(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        check(source(tmp_path, "odd.tar", corpora.odd_shards()[name]))


def test_a_picture_in_place_of_a_shard_is_to_be_packed(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"not a tar header at byte 0.*\); pack pictures first: tar -cf cam\.tar --sort=name"
    ):
        check(source(tmp_path, "a.jpg", b"\xff\xd8\xff" + bytes(1000)))


def test_what_a_killed_run_left_over_may_be_without_images(empty: ShardSource) -> None:
    check(empty, done=Totals(shards=1, images=3))
    with pytest.raises(JobError):
        check(empty, done=Totals(shards=1))
