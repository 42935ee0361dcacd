"""One part of an archive, read: its metadata without its bitstreams, its rows one row group at a time, one frame."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.query import Where
from pipeline.rejects import JobError
from pipeline.table import ARCHIVE_SCHEMA, open_part, part_fingerprint

METADATA_SCHEMA = pa.schema([field for field in ARCHIVE_SCHEMA if field.name != "bitstream"])
"""What a query sees: every column but the bitstream."""

KeyRanges: TypeAlias = list[tuple[str, str] | None]
"""Smallest and largest key of each row group of a part, None where the file does not say."""


class ArchiveError(JobError):
    """An archive that cannot be read as asked: missing, damaged, newer than this release, made with other weights."""


@dataclass(frozen=True)
class Place:
    """Where a row lies in a part."""

    group: int
    row: int


class Part:
    """An open part. As a context manager it closes its file.

    Raises SchemaError for a damaged or newer file, ArchiveError for one made with other weights than `fingerprint`.
    """

    def __init__(self, file: BinaryIO, fingerprint: str) -> None:
        self._file = file
        self._table: pq.ParquetFile = open_part(file)
        # Bitstreams are checked one by one, by the codec: a damaged one must not cost its whole page.
        self._unchecked = pq.ParquetFile(file, metadata=self._table.metadata, pre_buffer=True)
        found = part_fingerprint(self._table)
        if found != fingerprint:
            raise ArchiveError(f"a part was made with other weights ({found}) than its archive says ({fingerprint})")

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_rows(self) -> int:
        return int(self._table.metadata.num_rows)

    def metadata(self, columns: Sequence[str]) -> pa.Table:
        """Some metadata columns of all rows; no other bytes of the part are needed."""
        return self._table.read(columns=list(columns))

    def rows(self, where: Where) -> Iterator[dict[str, Any]]:
        """The rows that pass `where` with all columns, one row group in memory at a time.

        Row groups without such a row are not read.
        """
        passing = where.rows(self.metadata(["key", *where.columns]))
        for group, numbers in self._by_group(passing):
            known = self._table.read_row_group(group, columns=METADATA_SCHEMA.names)
            streams = self._unchecked.read_row_group(group, columns=["bitstream"])["bitstream"]
            yield from known.append_column("bitstream", streams).take(numbers).to_pylist()

    def _by_group(self, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Row numbers of the part, sorted, as numbers within each row group; groups without any are left out."""
        start = done = 0
        for group in range(self._table.num_row_groups):
            end = start + self._table.metadata.row_group(group).num_rows
            here = rows[done : bisect_left(rows, end, done)]
            if here:
                yield group, [row - start for row in here]
            start, done = end, done + len(here)

    def key_ranges(self) -> KeyRanges:
        """What the file's footer says about its keys."""
        column = self._table.schema_arrow.get_field_index("key")
        groups = (self._table.metadata.row_group(group) for group in range(self._table.num_row_groups))
        return [_range(group.column(column).statistics) for group in groups]

    def places(self, key: str, groups: Sequence[int]) -> list[Place]:
        """Where `key` stands in those row groups; reads their key columns only."""
        found = []
        for group in groups:
            keys = self._table.read_row_group(group, columns=["key"])["key"]
            matches = pc.indices_nonzero(pc.equal(keys, key)).to_pylist()
            found += [Place(group, row) for row in matches]
        return found

    def bitstream(self, place: Place) -> bytes:
        """One frame's bytes; reads one column of one row group."""
        column = self._unchecked.read_row_group(place.group, columns=["bitstream"])["bitstream"]
        data: bytes = column[place.row].as_py()
        return data


def _range(statistics: Any) -> tuple[str, str] | None:
    if statistics is None or not statistics.has_min_max:
        return None
    return str(statistics.min), str(statistics.max)
