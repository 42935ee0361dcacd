"""The archive's tables: Arrow schemas, and parts written in row groups of a few mebibytes.

A row group is what a reader fetches to get at one frame, so groups are cut by bytes, not by rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Verdict, decide

SCHEMA_VERSION = 1
ROW_GROUP_BYTES = 8 * 2**20

ARCHIVE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_name", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("bitstream", pa.large_binary(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("tag_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("original_bytes", pa.int64(), nullable=False),
        pa.field("original_sha256", pa.string(), nullable=False),
        pa.field("bits_per_pixel", pa.float64(), nullable=False),
        pa.field("psnr_db", pa.float32()),
        pa.field("captured_at", pa.timestamp("us")),
        pa.field("camera", pa.string()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class TableRow:
    """One image of the archive; the fields are the columns, explained in docs/archive.md."""

    key: str
    image_name: str
    shard: str
    bitstream: bytes
    codec: str
    width: int
    height: int
    original_bytes: int
    original_sha256: str
    bits_per_pixel: float
    tags: list[str] = field(default_factory=list)
    tag_scores: list[float] = field(default_factory=list)
    psnr_db: float | None = None
    captured_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    metadata: str = "{}"


class SchemaError(ValueError):
    """A Parquet file that is no part of an archive, or one of a version this release cannot read."""


def with_versions(schema: pa.Schema, fingerprint: str) -> pa.Schema:
    """`schema` with the schema version and the codec's (or job's) fingerprint in its key-value metadata."""
    return schema.with_metadata({"schema_version": str(SCHEMA_VERSION), "fingerprint": fingerprint})


class PartWriter:
    """Writes rows to one Parquet file; the same rows always make the same bytes.

    `rows` counts them. Leaving the `with` block by an exception leaves an unfinished file, which `atomic_write`
    discards.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self.rows = 0
        self._schema = schema
        self._limit = row_group_bytes
        self._pending: list[Mapping[str, Any]] = []
        self._pending_bytes = 0
        # Bitstreams and image files are compressed already.
        raw = [column.name for column in schema if pa.types.is_large_binary(column.type)]
        other = [path for path in _leaf_paths(schema) if path not in raw]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression={**dict.fromkeys(other, "zstd"), **dict.fromkeys(raw, "none")},
            use_dictionary=other,
            write_statistics=other,
            write_page_index=True,
            write_page_checksum=True,
        )

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row: a value for every column of the schema (`vars(row)` of a dataclass)."""
        self._pending.append(row)
        self._pending_bytes += row_bytes(row)
        self.rows += 1
        if self._pending_bytes >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, self._schema))
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def row_bytes(row: Mapping[str, Any]) -> int:
    """About how many bytes a row takes before compression; numbers count as 8 bytes each."""
    return sum(_value_bytes(value) for value in row.values())


def _value_bytes(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    return 8 * len(value) if hasattr(value, "__len__") else 8


def open_part(file: BinaryIO | str | os.PathLike[str]) -> pq.ParquetFile:
    """An archive part, checked: raises SchemaError for a damaged or foreign file or a newer schema version.

    What the store itself raises, being away or refusing, is passed on: it says nothing about the file.
    """
    try:
        # pre_buffer: neighbouring columns in one request
        part = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        if decide(error) is not Verdict.REJECT:
            raise
        raise SchemaError(f"not a readable Parquet file: {error}") from error
    version = (part.schema_arrow.metadata or {}).get(b"schema_version")
    if version is None:
        raise SchemaError("a Parquet file without a schema version: not a part of an archive")
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        raise SchemaError(
            f"schema version {version.decode(errors='replace')}: this release reads 1 to {SCHEMA_VERSION}"
        )
    return part


def part_fingerprint(part: pq.ParquetFile) -> str:
    """The fingerprint in a part's key-value metadata; empty where there is none."""
    return str((part.schema_arrow.metadata or {}).get(b"fingerprint", b"").decode())


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Parquet's column paths: lists are named by their element."""
    return [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
