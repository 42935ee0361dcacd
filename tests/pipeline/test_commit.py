"""The commit of a shard: names, order, what an exception or a bad store leaves, whole-shard rejects."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.commit import ShardCommit, output_name, report_path, set_aside
from pipeline.errors import TransientError
from pipeline.records import Failure, ShardReport, ShardSource
from pipeline.storage import Storage
from pipeline.table import open_part
from tests.fakes import FINGERPRINT

SOURCE = ShardSource("s3://bucket/folder/cam-000001.tar", 100, "tag")
NAME = output_name(SOURCE)
DATA, REJECTS, REPORT = f"data/{NAME}.parquet", f"rejects/{NAME}.parquet", f"reports/{NAME}.json"


class Recording(Storage):
    """Keeps the order of writes."""

    @contextmanager
    def atomic_write(self, path: str) -> Iterator[BinaryIO]:
        with super().atomic_write(path) as file:
            yield file
        self.options["written"].append(path)


class Damaging(Storage):
    """Stores other bytes than it was given, of the same number."""

    def _publish(self, spool: str, path: str, size: int) -> None:
        Path(spool).write_bytes(b"?" * size)
        super()._publish(spool, path, size)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Recording(str(tmp_path), {"written": []})


def failure(key: str) -> Failure:
    return Failure(key, SOURCE.url, "decode", "ValueError: bad", b"bytes of " + key.encode())


def report() -> ShardReport:
    return ShardReport(SOURCE.url, SOURCE, FINGERPRINT, images=1, seconds={"read": 1.0})


def write_part(commit: ShardCommit, data: bytes = b"part") -> None:
    with commit.output(f"data/{commit.name}.parquet") as file:
        file.write(data)


def rejected(storage: Storage) -> list[dict[str, object]]:
    return open_part(io.BytesIO(storage.read(REJECTS))).read().to_pylist()


def test_data_then_rejects_then_report(storage: Storage) -> None:
    with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
        commit.reject(failure("a"))
        write_part(commit)
        commit.reject(failure("b"))
        assert storage.list("rejects") == []
        done = commit.finish(report())
    assert storage.options["written"] == [DATA, REJECTS, REPORT]
    assert storage.read(DATA) == b"part"
    assert rejected(storage) == [vars(failure("a")), vars(failure("b"))]
    assert ShardReport.from_json(storage.read(REPORT).decode()) == done
    assert done.rejects == 2
    assert done.outputs == {DATA: 4, REJECTS: storage.size(REJECTS)}
    assert set(done.seconds) == {"read", "commit"}
    assert report_path(SOURCE) == REPORT


def test_a_path_that_is_no_text_has_a_name_too() -> None:
    path = b"/in/caf\xe9.tar"
    source = ShardSource(os.fsdecode(path), 100, "tag")
    assert output_name(source) == f"caf_-{hashlib.sha256(path).hexdigest()[:12]}"


def test_a_shard_whose_path_is_no_text_is_set_aside_under_an_escaped_one(storage: Storage) -> None:
    source = ShardSource(os.fsdecode(b"/in/caf\xe9.tar"), 100, "tag")
    done = set_aside(storage, source, FINGERPRINT, f"OSError: {source.url}")
    (row,) = open_part(io.BytesIO(storage.read(f"rejects/{output_name(source)}.parquet"))).read().to_pylist()
    assert (row["shard"], row["error"]) == ("/in/caf\\udce9.tar", "OSError: /in/caf\\udce9.tar")
    assert ShardReport.from_json(storage.read(report_path(source)).decode()) == done


def test_an_exception_leaves_no_report_and_no_open_part(storage: Storage) -> None:
    def interrupted() -> None:
        with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
            write_part(commit)
            commit.reject(failure("a"))
            with commit.output("data/second") as file:
                file.write(b"half")
                raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert storage.list() == [DATA]


def test_leaving_without_finishing_publishes_no_rejects(storage: Storage) -> None:
    with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
        commit.reject(failure("a"))
    assert storage.list() == []


def test_rejects_of_an_earlier_attempt_go(storage: Storage) -> None:
    for failures in (["a"], []):
        with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
            write_part(commit)
            for key in failures:
                commit.reject(failure(key))
            commit.finish(report())
    assert storage.list() == [DATA, REPORT]


def test_a_repeated_attempt_writes_the_same_objects(storage: Storage) -> None:
    contents = []
    for _ in range(2):
        with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
            write_part(commit)
            commit.reject(failure("a"))
            commit.finish(report())
        contents.append({path: storage.read(path) for path in storage.list() if path != REPORT})
    assert contents[0] == contents[1]


def test_what_does_not_read_back_is_not_reported(tmp_path: Path) -> None:
    storage = Damaging(str(tmp_path))
    with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
        write_part(commit)
        with pytest.raises(TransientError, match="read back"):
            commit.finish(report())
    assert storage.list("reports") == []


def test_what_is_not_there_to_be_read_back_may_come(storage: Storage) -> None:
    with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
        write_part(commit)
        storage.delete(DATA)
        with pytest.raises(TransientError, match="not there to be read back"):
            commit.finish(report())


def test_a_shard_is_set_aside_as_a_whole(storage: Storage) -> None:
    done = set_aside(storage, SOURCE, FINGERPRINT, "the worker died")
    assert (done.error, done.rejects, done.images) == ("the worker died", 1, 0)
    assert rejected(storage) == [
        {"key": "", "shard": SOURCE.url, "stage": "shard", "error": "the worker died", "data": b""}
    ]
    assert ShardReport.from_json(storage.read(REPORT).decode()) == done


def test_a_shard_that_is_done_after_all_is_not_set_aside(storage: Storage) -> None:
    with ShardCommit(storage, SOURCE, FINGERPRINT) as commit:
        write_part(commit)
        done = commit.finish(report())
    assert set_aside(storage, SOURCE, FINGERPRINT, "the worker died") == done
    assert storage.list() == [DATA, REPORT]
    for source, fingerprint in ((SOURCE, "f" * 16), (replace(SOURCE, etag="new"), FINGERPRINT)):
        assert set_aside(storage, source, fingerprint, "the worker died").error, "that was another content"


def test_a_shard_that_was_set_aside_is_set_aside_again_with_the_new_reason(storage: Storage) -> None:
    set_aside(storage, SOURCE, FINGERPRINT, "the worker died")
    assert set_aside(storage, SOURCE, FINGERPRINT, "it timed out").error == "it timed out"
    assert [row["error"] for row in rejected(storage)] == ["it timed out"]
    assert ShardReport.from_json(storage.read(REPORT).decode()).error == "it timed out"


@pytest.mark.parametrize("text", [b"{", b"{}", b"[]", b"\xff", b'{"source": {}}'])
def test_a_shard_whose_report_is_damaged_is_set_aside(storage: Storage, text: bytes) -> None:
    with storage.atomic_write(REPORT) as file:
        file.write(text)
    done = set_aside(storage, SOURCE, FINGERPRINT, "the worker died")
    assert ShardReport.from_json(storage.read(REPORT).decode()) == done


@pytest.mark.parametrize(
    ("name", "stem"), [("x.parquet.tar", "x"), ("x.tar.tar.gz", "x"), ("x.tar.parquet", "x.tar"), ("x.TAR", "x.TAR")]
)
def test_suffixes_go_in_their_order(name: str, stem: str) -> None:
    """As docs/archive.md has it: resume rests on every program giving a shard the same name."""
    assert output_name(ShardSource(f"s3://a/{name}", 1, "")).rpartition("-")[0] == stem


def test_names_are_readable_and_distinct() -> None:
    urls = ["s3://a/x.tar", "s3://b/x.tar", "/c/x.tar.gz", "/c/ÄÖ %$.TAR", "/c/.hidden.tar", "/c/" + "y" * 300, "/c/"]
    names = [output_name(ShardSource(url, 1, "")) for url in urls]
    assert len(set(names)) == len(names)
    assert [name.startswith("x-") for name in names[:3]] == [True] * 3
    assert all(len(name) < 120 and not name.startswith(".") and name.isascii() for name in names)
    assert output_name(ShardSource(urls[0], 2, "other")) == names[0]


def test_the_commonest_reasons_for_rejects_come_with_the_report_and_are_not_stored(storage: Storage) -> None:
    with ShardCommit(storage, SOURCE, "f") as commit:
        for number in range(30):
            error = "ValueError: odd" if number % 2 else f"ValueError: {number}"
            commit.reject(Failure(str(number), SOURCE.url, "decode", error, b""))
        report = commit.finish(ShardReport(SOURCE.url, SOURCE, "f"))
    assert len(report.reasons) == 10
    assert report.reasons["decode ValueError: odd"] == 15
    stored = storage.read(report_path(SOURCE)).decode()
    assert "odd" not in stored
    assert ShardReport.from_json(stored) == report, "reasons are no part of what a report says"
