from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import pipeline
from pipeline.archive import Archive
from pipeline.errors import JobError, TransientError
from pipeline.part import METADATA_SCHEMA, AmbiguousKeyError, ArchiveError, Part
from pipeline.query import QueryError
from pipeline.records import ShardSource
from pipeline.retry import BRIEF, PATIENT
from pipeline.rows import plain_text
from pipeline.storage import Storage
from pipeline.table import SchemaError, TableRow
from tests.fakes import FakeCodec
from tests.pipeline.archives import fake_codec, put, row, write_archive, write_part
from tests.s3_server import Bucket

ROWS = [
    row("000", "in/a.tar", 0, tags=["car"], tag_scores=[0.9], captured_at=datetime(2026, 3, 1)),
    row("001", "in/a.tar", 1, tags=["car", "tree"], tag_scores=[0.9, 0.5], captured_at=datetime(2025, 3, 1)),
    row("002", "in/a.tar", 2),
    row("000", "in/b.tar", 3, tags=["tree"], tag_scores=[0.7], captured_at=datetime(2026, 4, 1)),
    row("100", "in/b.tar", 4, tags=["car"], tag_scores=[0.8], captured_at=datetime(2026, 5, 1)),
]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return write_archive(tmp_path / "archive", ROWS, row_group_bytes=1)


def open_archive(storage: Storage, tmp_path: Path) -> Archive:
    return Archive.open(storage.url, storage.options, fake_codec, cache=tmp_path / "cache")


@pytest.fixture
def archive(storage: Storage, tmp_path: Path) -> Archive:
    return open_archive(storage, tmp_path)


class Reads:
    """Counts the bytes that are read through a storage's files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        real = Storage.open

        def counted(storage: Storage, path: str, buffer: int = 0) -> Any:
            file = real(storage, path, buffer)
            return _Counted(file, self)

        monkeypatch.setattr(Storage, "open", counted)


class _Counted:
    def __init__(self, file: Any, reads: Reads) -> None:
        self._file, self._reads = file, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._reads.bytes += len(data)
        return data


def test_query_by_tag_and_time(archive: Archive) -> None:
    found = archive.query("list_contains(tags, 'car') AND captured_at > '2026-01-01'")
    assert found["key"].to_pylist() == ["000", "100"]
    assert found.schema.equals(METADATA_SCHEMA)
    assert "bitstream" not in found.schema.names


def test_query_some_columns_of_all_rows(archive: Archive) -> None:
    found = archive.query(columns=["shard", "key"])
    assert found.schema.names == ["shard", "key"]
    assert sorted(zip(*found.to_pydict().values(), strict=True)) == sorted((each.shard, each.key) for each in ROWS)


def test_query_that_nothing_passes(archive: Archive) -> None:
    found = archive.query("width > 1000", columns=["key"])
    assert (found.num_rows, found.schema.names) == (0, ["key"])


def test_keys_come_once_per_row(archive: Archive) -> None:
    assert sorted(archive.keys()) == ["000", "000", "001", "002", "100"]
    assert list(archive.keys("key = '002'")) == ["002"]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_pictures_come_with_their_rows(archive: Archive, batch: int) -> None:
    found = list(archive.pictures("list_contains(tags, 'car')", batch=batch))
    assert sorted((known["key"], known["shard"]) for known, _ in found) == [
        (each.key, each.shard) for each in ROWS if "car" in each.tags
    ]
    for known, image in found:
        assert torch.equal(image, archive.get(known["key"], shard=known["shard"]))
        assert known.keys() == set(METADATA_SCHEMA.names)


@pytest.mark.parametrize("columns", [["bitstream"], ["key", "nonsense"]])
def test_columns_that_a_query_has_not(archive: Archive, columns: list[str]) -> None:
    with pytest.raises(ArchiveError, match="columns: key, image_name, shard, codec"):
        archive.query(columns=columns)


def test_wrong_sql_is_one_clear_error(archive: Archive) -> None:
    with pytest.raises(QueryError, match="list_contain") as caught:
        archive.query("list_contain(tags, 'car')")
    assert "tag_scores" in str(caught.value)


def test_a_query_reads_no_bitstreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = [replace(row(f"{number:03}"), bitstream=bytes(2**20)) for number in range(6)]
    archive = open_archive(write_archive(tmp_path / "heavy", heavy), tmp_path)
    reads = Reads(monkeypatch)
    assert archive.query("width = 32").num_rows == 6
    assert 0 < reads.bytes < 2**18


def test_a_query_reads_the_columns_of_rows_that_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the others the clause's only; where nothing passes, what JSON there is stays where it is."""
    described = [
        replace(row(f"{n:03}"), camera=f"cam{n % 2}", metadata=json.dumps({"x": os.urandom(2**17).hex()}))
        for n in range(6)
    ]
    archive = open_archive(write_archive(tmp_path / "described", described, row_group_bytes=2**17), tmp_path)
    assert len(archive.parts) == 1  # its report is read
    reads = Reads(monkeypatch)
    assert archive.query("camera = 'cam7'").num_rows == 0
    assert 0 < reads.bytes < 2**17
    assert archive.query("camera = 'cam0'")["key"].to_pylist() == ["000", "002", "004"]
    assert reads.bytes < 5 * 2**17


def test_what_is_wrong_in_a_part_names_it(archive: Archive) -> None:
    (path,) = [each for each in Path(archive.storage.url, "data").iterdir() if each.name.startswith("b-")]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"in/b.tar")] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC checksum") as found:
        archive.query()
    assert found.value.__notes__ == [f"in {path}"]


def test_clauses_without_columns(archive: Archive) -> None:
    assert (archive.query("true").num_rows, archive.query("1 = 2").num_rows) == (5, 0)
    assert archive.query("true", columns=[]).schema.names == []


def test_get_reads_the_row_group_of_the_key_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = [replace(row(f"{number:03}"), bitstream=bytes([number]) * 2**20) for number in range(6)]
    archive = open_archive(write_archive(tmp_path / "heavy", heavy, row_group_bytes=2**20), tmp_path)
    reads = Reads(monkeypatch)
    assert archive.bitstream("004") == bytes([4]) * 2**20
    assert 2**20 <= reads.bytes < 1.5 * 2**20


def test_get_in_one_shard_asks_the_other_parts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_archive(write_archive(tmp_path / "many", [row("0", f"in/{n}.tar", n) for n in range(9)]), tmp_path)
    opened: list[str] = []
    real = Storage.open
    monkeypatch.setattr(Storage, "open", lambda self, path, buffer: opened.append(path) or real(self, path, buffer))
    assert archive.bitstream("0", shard="in/4.tar") == row("0", seed=4).bitstream
    assert {path.partition("-")[0] for path in opened} == {"data/4"}
    with pytest.raises(
        AmbiguousKeyError, match=r"9 images have the key '0', in (in/\d\.tar, ){4}in/\d\.tar and 4 more;"
    ):
        archive.bitstream("0")


def test_an_archive_is_opened_by_a_path_object(storage: Storage) -> None:
    assert Archive.open(Path(storage.url)).storage.url == storage.url


def test_first_contact_is_brief(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = []
    real = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, path: patience.append(self.retry) or real(self, path))
    archive = Archive.open(storage.url)
    archive.info()
    assert patience == [BRIEF, PATIENT, PATIENT]


def test_parts_are_named_without_the_password_of_the_archive(tmp_path: Path) -> None:
    place = f"host/{tmp_path.name}"
    storage = write_archive(f"memory://me:secret@{place}", ROWS)
    archive = pickle.loads(pickle.dumps(open_archive(storage, tmp_path)))
    assert {part.url.rpartition("/")[0] for part in archive.parts} == {f"memory://me@{place}/data"}
    assert archive.bitstream("000", shard="in/b.tar") == ROWS[3].bitstream
    assert sorted(archive.keys("key < '002'")) == ["000", "000", "001"]


def test_get_decodes_with_the_archive_s_own_model(archive: Archive, tmp_path: Path) -> None:
    (expected,) = FakeCodec(capsule=tmp_path).decompress([ROWS[1].bitstream])
    assert torch.equal(archive.get("001"), expected)
    assert archive.codec is archive.codec


def test_a_key_in_two_shards_needs_the_shard(archive: Archive) -> None:
    with pytest.raises(AmbiguousKeyError, match=r"2 images have the key '000'.*say which shard"):
        archive.bitstream("000")
    with pytest.raises(AmbiguousKeyError, match=r"in in/a\.tar, in/b\.tar; say which shard"):
        archive.bitstream("000")
    with pytest.raises(KeyError, match=r"no shard 'in/z\.tar' in "):
        archive.bitstream("000", shard="in/z.tar")
    assert archive.bitstream("000", shard="in/a.tar") == ROWS[0].bitstream
    assert archive.bitstream("000", shard="in/b.tar") == ROWS[3].bitstream


@pytest.mark.parametrize("row_group_bytes", [1, 2**20])
def test_a_key_twice_in_one_part_is_ambiguous(tmp_path: Path, row_group_bytes: int) -> None:
    rows = [row("000", seed=0), row("001", seed=1), row("000", seed=2)]
    archive = open_archive(write_archive(tmp_path / "archive", rows, row_group_bytes=row_group_bytes), tmp_path)
    for shard in (None, "in/a.tar"):
        with pytest.raises(AmbiguousKeyError, match=r"2 images have the key '000', in in/a\.tar"):
            archive.bitstream("000", shard=shard)
    assert archive.bitstream("001") == rows[1].bitstream


def test_a_shard_whose_path_is_no_text_is_asked_for_as_its_rows_call_it(tmp_path: Path) -> None:
    path = os.fsdecode(b"/in/caf\xe9.tar")
    storage = write_archive(tmp_path / "archive", ROWS)
    write_part(storage, path, [row("000", plain_text(path), 7)])
    archive = open_archive(storage, tmp_path)
    (shard,) = (name for name in archive.query(columns=["shard"])["shard"].to_pylist() if "caf" in name)
    assert shard == "/in/caf\\udce9.tar"
    assert archive.bitstream("000", shard=shard) == archive.bitstream("000", shard=path) == row("x", "y", 7).bitstream


SAME_SIZE = [row(str(number), seed=0, bitstream=bytes([number]) * 100) for number in range(4)]


@pytest.mark.parametrize("found", [True, False])
def test_a_part_that_is_replaced_meanwhile_gives_no_other_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    first, second, third, other = SAME_SIZE
    storage = write_archive(tmp_path / "archive", [first, second, third])
    archive = open_archive(storage, tmp_path)
    real = Archive.open_part
    opened: list[str] = []

    def replaced(self: Archive, source: ShardSource) -> Part:
        opened.append(source.url)
        if len(opened) == 3:  # after those for its range of keys and to count
            write_part(storage, "in/a.tar", [third, second if found else other, first])
        return real(self, source)

    monkeypatch.setattr(Archive, "open_part", replaced)
    if found:
        assert archive.bitstream("0") == first.bitstream
    else:
        with pytest.raises(TransientError, match="while '1' was read"):
            archive.bitstream("1")
    assert len(opened) == 3
    write_part(storage, "in/a.tar", [*SAME_SIZE, *SAME_SIZE])
    with pytest.raises(TransientError, match="was replaced"):
        archive.bitstream("0")


def test_a_part_that_changes_under_its_reader_gives_no_other_image(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an object of a store may, between the requests for its keys and for its bitstreams."""
    monkeypatch.setattr(Part, "_places", lambda part, key, groups: [(0, 0)])  # where "000" is by now
    with pytest.raises(TransientError, match="while '001' was read"):
        archive.bitstream("001", shard="in/a.tar")


def test_a_damaged_bitstream_costs_no_other_of_its_page(tmp_path: Path) -> None:
    storage = write_archive(tmp_path / "archive", SAME_SIZE)
    (path,) = storage.list("data")
    data = storage.read(path)
    assert data.count(bytes([1]) * 100) == 1
    put(storage, path, data.replace(bytes([1]) * 100, bytes([1]) * 99 + b"?"))
    archive = open_archive(storage, tmp_path)
    found = {key: archive.bitstream(key) for key in list(archive.keys())}
    assert found == {each.key: each.bitstream for each in SAME_SIZE} | {"1": bytes([1]) * 99 + b"?"}


def test_a_key_too_long_for_the_statistics_of_parquet_is_found(tmp_path: Path) -> None:
    rows = [row("k" * 5000, seed=1), row("a", seed=2)]
    archive = open_archive(write_archive(tmp_path / "archive", rows, row_group_bytes=1), tmp_path)
    for each in rows:
        assert archive.bitstream(each.key) == each.bitstream


def test_parts_are_closed(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Storage.open
    monkeypatch.setattr(Storage, "open", lambda *given, **options: opened.append(real(*given, **options)) or opened[-1])
    archive.query()
    archive.bitstream("001")
    assert len(list(archive.pictures())) == 5
    assert len(opened) >= 5
    assert all(file.closed for file in opened)


@pytest.mark.parametrize(("key", "shard"), [("999", None), ("", None), ("001", "in/b.tar")])
def test_unknown_keys(archive: Archive, key: str, shard: str | None) -> None:
    with pytest.raises(KeyError) as caught:
        archive.get(key, shard=shard)
    assert caught.value.args == (key,)
    assert archive.storage.url in caught.value.__notes__[0]


def test_errors_of_an_archive_can_be_caught_by_the_names_of_the_package() -> None:
    assert (pipeline.JobError, pipeline.SchemaError) == (JobError, SchemaError)
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)


def test_info_adds_up_the_reports(archive: Archive) -> None:
    info = archive.info()
    assert (info.parts, info.totals.shards, info.totals.images) == (2, 2, 5)
    assert info.manifest.codec_fingerprint == FakeCodec.fingerprint


def test_a_part_without_a_report_does_not_exist(storage: Storage, tmp_path: Path) -> None:
    (report,) = [path for path in storage.list("reports") if "/b-" in path]
    storage.delete(report)
    archive = open_archive(storage, tmp_path)
    assert sorted(archive.keys()) == ["000", "001", "002"]
    assert archive.bitstream("000") == ROWS[0].bitstream


def test_a_rejected_shard_s_leftover_part_does_not_exist(storage: Storage, tmp_path: Path) -> None:
    (path,) = [path for path in storage.list("reports") if "/b-" in path]
    put(storage, path, json.dumps({**json.loads(storage.read(path)), "outputs": {}, "error": "killed"}).encode())
    assert len(open_archive(storage, tmp_path).parts) == 1


def test_a_shard_of_another_job_is_an_error_and_not_a_mixture(storage: Storage, tmp_path: Path) -> None:
    (path,) = [path for path in storage.list("reports") if "/b-" in path]
    put(storage, path, json.dumps({**json.loads(storage.read(path)), "job_fingerprint": "f" * 16}).encode())
    with pytest.raises(ArchiveError, match=r"b-.*json: .* not done with the settings in archive\.json"):
        open_archive(storage, tmp_path).query()


def test_a_lost_part_is_an_error_and_not_a_shorter_answer(storage: Storage, tmp_path: Path) -> None:
    storage.delete(next(path for path in storage.list("data") if "/b-" in path))
    with pytest.raises(ArchiveError, match="missing"):
        open_archive(storage, tmp_path).query()


def test_a_part_of_another_size_than_its_report_says_is_an_error(storage: Storage, tmp_path: Path) -> None:
    path = next(path for path in storage.list("data") if "/b-" in path)
    put(storage, path, storage.read(next(other for other in storage.list("data") if "/a-" in other)))
    with pytest.raises(ArchiveError, match=r"b-.*parquet is missing or not what its report says"):
        open_archive(storage, tmp_path).query()


def test_an_archive_without_shards_is_empty(tmp_path: Path) -> None:
    archive = open_archive(write_archive(tmp_path / "empty", []), tmp_path)
    assert archive.query().num_rows == 0
    with pytest.raises(KeyError):
        archive.get("000")


@pytest.mark.s3
def test_no_bucket_there(s3: Bucket) -> None:
    with pytest.raises(JobError, match="no bucket 'there-is-no-such'"):
        Archive.open("s3://there-is-no-such/a", storage_options=s3.storage_options)


def test_no_archive_there(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no archive at .*archive\.json"):
        Archive.open(str(tmp_path))


@pytest.mark.parametrize("version", ["format_version", "schema_version"])
def test_a_newer_archive(storage: Storage, tmp_path: Path, version: str) -> None:
    fields = json.loads(storage.read("archive.json"))
    put(storage, "archive.json", json.dumps({**fields, version: 99, "news": 1}).encode())
    with pytest.raises(JobError, match="newer release"):
        open_archive(storage, tmp_path)


def test_a_newer_part(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.table.SCHEMA_VERSION", 99)
    write_part(storage, "in/new.tar", [row("900", "in/new.tar")])
    monkeypatch.undo()
    with pytest.raises(SchemaError, match=r"new-.*parquet: schema version 99"):
        open_archive(storage, tmp_path).query()


def test_a_part_made_with_other_weights(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.pipeline.archives.FINGERPRINT", "f" * 16)
    write_part(storage, "in/new.tar", [row("900", "in/new.tar")])
    with pytest.raises(ArchiveError, match=r"new-.*parquet: .*other weights"):
        open_archive(storage, tmp_path).query()


def test_a_codec_with_other_weights(storage: Storage, tmp_path: Path) -> None:
    def other(capsule: str, device: str) -> FakeCodec:
        return FakeCodec(capsule=Path(capsule), fingerprint="f" * 16)

    archive = Archive.open(storage.url, codec_factory=other, cache=tmp_path / "cache")
    with pytest.raises(ArchiveError, match="0123456789abcdef, but its model has ffffffffffffffff"):
        archive.get("001")


def test_pixels_need_a_codec(storage: Storage) -> None:
    archive = Archive.open(storage.url)
    assert archive.bitstream("001") == ROWS[1].bitstream
    with pytest.raises(ArchiveError, match="codec_factory"):
        archive.get("001")


def test_it_travels_to_a_worker(archive: Archive) -> None:
    archive.query()
    archive.get("001")
    copy = pickle.loads(pickle.dumps(archive))
    assert copy == archive
    assert list(copy.keys("key = '100'")) == ["100"]


def test_damaged_metadata_is_an_error_and_not_a_wrong_answer(storage: Storage, tmp_path: Path) -> None:
    path = storage.list("data")[0]
    data = storage.read(path)
    at = data.index(b"car")  # within a page of tags, which zstd leaves as it is when it is this short
    put(storage, path, data[:at] + b"cat" + data[at + 3 :])
    with pytest.raises(OSError, match="CRC"):
        open_archive(storage, tmp_path).query("list_contains(tags, 'cat')")


@pytest.mark.s3
def test_the_same_over_s3(s3: Any, tmp_path: Path) -> None:
    rows: list[TableRow] = [*ROWS, *(row(f"x{number}", "in/c.tar", number) for number in range(20))]
    storage = write_archive(f"{s3.url}/my archive", rows, s3.storage_options, row_group_bytes=1)
    archive = open_archive(storage, tmp_path)
    assert archive.query("list_contains(tags, 'tree')")["key"].to_pylist() == ["001", "000"]
    assert archive.query().num_rows == 25
    assert archive.get("x7").shape == (3, 24, 32)
    with pytest.raises(KeyError):
        archive.get("x99")
