"""Parts: schema, row groups by bytes, the same bytes for the same rows, and files that are none."""

import io
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError, TransientError
from pipeline.table import (
    ARCHIVE_SCHEMA,
    REJECT_SCHEMA,
    SCHEMA_VERSION,
    PartWriter,
    SchemaError,
    TableRow,
    open_part,
    part_fingerprint,
    row_bytes,
    with_versions,
)
from tests.fakes import FINGERPRINT


def row(number: int, size: int = 100) -> TableRow:
    return TableRow(
        key=f"k{number:06d}",
        image_name=f"k{number:06d}.jpg",
        shard="s3://bucket/shard.tar",
        bitstream=bytes([number % 256]) * size,
        codec="fake",
        width=640,
        height=480,
        original_bytes=12345,
        original_sha256="00" * 32,
        bits_per_pixel=0.25,
        tags=["car", "road"],
        tag_scores=[0.75, 0.5],
        psnr_db=30.5,
        captured_at=datetime(2026, 1, 2, 3, 4, 5, 678),
        camera="left",
        latitude=48.1,
        longitude=11.5,
        metadata='{"cls": 1}',
    )


def part(rows: list[TableRow], row_group_bytes: int = 2**20, schema: pa.Schema = ARCHIVE_SCHEMA) -> bytes:
    file = io.BytesIO()
    with PartWriter(file, with_versions(schema, FINGERPRINT), row_group_bytes) as writer:
        for entry in rows:
            writer.write(vars(entry))
    return file.getvalue()


def test_rows_come_back() -> None:
    rows = [row(number) for number in range(5)]
    opened = open_part(io.BytesIO(part(rows)))
    assert [TableRow(**fields) for fields in opened.read().to_pylist()] == rows
    assert part_fingerprint(opened) == FINGERPRINT
    assert opened.schema_arrow.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_the_rows_fields_are_the_columns() -> None:
    assert set(vars(row(0))) == set(ARCHIVE_SCHEMA.names)


def test_optional_columns_may_be_null_and_others_may_not() -> None:
    bare = TableRow("k", "k.jpg", "s", b"x", "fake", 1, 1, 1, "00", 8.0)
    (fields,) = open_part(io.BytesIO(part([bare]))).read().to_pylist()
    assert TableRow(**fields) == bare
    assert {field.name for field in ARCHIVE_SCHEMA if field.nullable} == {
        "psnr_db",
        "captured_at",
        "camera",
        "latitude",
        "longitude",
    }


def test_row_groups_are_cut_by_bytes() -> None:
    opened = open_part(io.BytesIO(part([row(number, size=1000) for number in range(100)], row_group_bytes=20_000)))
    groups = [opened.metadata.row_group(index) for index in range(opened.num_row_groups)]
    assert 4 < len(groups) < 20
    assert all(group.num_rows * 1000 <= 21_000 for group in groups)


def test_a_part_without_rows_is_a_part() -> None:
    opened = open_part(io.BytesIO(part([])))
    assert opened.read().to_pylist() == []
    assert opened.schema_arrow.names == ARCHIVE_SCHEMA.names


def test_bitstreams_are_stored_as_they_are_and_the_rest_with_statistics() -> None:
    data = part([row(0, size=5000), row(1, size=5000)])
    assert bytes([1]) * 5000 in data
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert columns.pop("bitstream").compression == "UNCOMPRESSED"
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["key"].statistics.min == "k000000"
    assert columns["captured_at"].has_offset_index
    assert columns["tags.list.element"].statistics.max == "road"


def test_text_is_compressed_whatever_its_column_is_called() -> None:
    schema = pa.schema([pa.field("data", pa.string()), pa.field("raw", pa.large_binary())])
    file = io.BytesIO()
    with PartWriter(file, with_versions(schema, FINGERPRINT)) as writer:
        writer.write({"data": "a", "raw": b"b"})
    group = pq.ParquetFile(file).metadata.row_group(0)
    text, raw = group.column(0), group.column(1)
    assert (text.compression, text.statistics.max, raw.compression, raw.statistics) == (
        "ZSTD",
        "a",
        "UNCOMPRESSED",
        None,
    )


def test_the_same_rows_make_the_same_bytes() -> None:
    rows = [row(number) for number in range(50)]
    assert part(rows, 3000) == part(rows, 3000)


def test_an_exception_does_not_write_pending_rows() -> None:
    file = io.BytesIO()

    def interrupted() -> None:
        with PartWriter(file, ARCHIVE_SCHEMA) as writer:
            writer.write(vars(row(0)))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert pq.ParquetFile(file).metadata.num_rows == 0


def test_rejects_have_their_own_schema() -> None:
    file = io.BytesIO()
    fields: dict[str, Any] = {"key": "k", "shard": "s", "stage": "decode", "error": "bad", "data": b"raw"}
    with PartWriter(file, with_versions(REJECT_SCHEMA, FINGERPRINT)) as writer:
        writer.write(fields)
    assert open_part(file).read().to_pylist() == [fields]


def test_rows_are_weighed_by_what_is_in_them() -> None:
    assert row_bytes({"a": b"123", "b": "45", "c": 1, "d": [1.0, 2.0], "e": None}) == 3 + 2 + 8 + 16 + 8


@pytest.mark.parametrize(
    "error", [TransientError("the store is away"), PermissionError("denied"), JobError("no parts")]
)
def test_trouble_with_the_store_is_no_damaged_file(error: Exception) -> None:
    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    with pytest.raises(type(error)):
        open_part(Away(part([row(0)])))


def test_files_that_are_no_parts() -> None:
    foreign = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), foreign)
    newer = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}).replace_schema_metadata({"schema_version": "999"}), newer)
    next_one = io.BytesIO()
    version = {"schema_version": str(SCHEMA_VERSION + 1)}
    pq.write_table(pa.table({"key": ["a"]}).replace_schema_metadata(version), next_one)
    whole = part([row(0)])
    for data, message in (
        (b"", "not a readable"),
        (b"PAR1" * 100, "not a readable"),
        (whole[: len(whole) // 2], "not a readable"),
        (foreign.getvalue(), "without a schema version"),
        (newer.getvalue(), "999"),
        (next_one.getvalue(), f"schema version {SCHEMA_VERSION + 1}"),
    ):
        with pytest.raises(SchemaError, match=message):
            open_part(io.BytesIO(data))
