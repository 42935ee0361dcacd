"""One part of an archive, read: its metadata without its bitstreams, its rows one row group at a time, one frame."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import JobError, TransientError
from pipeline.query import Where
from pipeline.table import ARCHIVE_SCHEMA, open_part, part_fingerprint

METADATA_SCHEMA = pa.schema([field for field in ARCHIVE_SCHEMA if field.name != "bitstream"])
"""What a query sees: every column but the bitstream."""

KeyRanges: TypeAlias = list[tuple[str, str] | None]
"""Smallest and largest key of each row group of a part, None where the file does not say."""


def groups_holding(key: str, ranges: KeyRanges) -> list[int]:
    """Row groups that may hold `key`."""
    return [group for group, keys in enumerate(ranges) if keys is None or keys[0] <= key <= keys[1]]


class ArchiveError(JobError):
    """An archive that cannot be read as asked: missing, damaged, newer than this release, made with other weights."""


class AmbiguousKeyError(KeyError):
    """A key that several rows have, as keys are unique within one shard at best. The message names `NAMED` shards."""

    NAMED = 5

    def __str__(self) -> str:
        return str(self.args[0])


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

    def select(self, where: Where, columns: Sequence[str]) -> pa.Table:
        """Some metadata columns, one at least, of the rows that pass `where`.

        Of row groups without such a row the clause's columns alone are read.
        """
        if where.passes_all:
            return self.metadata(columns)
        chosen = [
            self._table.read_row_group(group, columns=list(columns)).take(numbers)
            for group, numbers in self._by_group(self._passing(where))
        ]
        return pa.concat_tables(chosen) if chosen else self._table.schema_arrow.empty_table().select(list(columns))

    def rows(self, where: Where) -> Iterator[dict[str, Any]]:
        """The rows that pass `where` with all columns, one row group in memory at a time.

        Row groups without such a row are not read.
        """
        for group, numbers in self._by_group(self._passing(where)):
            known = self._table.read_row_group(group, columns=METADATA_SCHEMA.names)
            streams = self._unchecked.read_row_group(group, columns=["bitstream"])["bitstream"]
            yield from known.append_column("bitstream", streams).take(numbers).to_pylist()

    def _passing(self, where: Where) -> Sequence[int]:
        """Numbers of the rows that pass, ascending; reads the clause's columns only."""
        if where.passes_all:
            return range(self.num_rows)
        return where.rows(self.metadata(where.columns or ["key"]))  # a clause without columns wants rows all the same

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

    def count(self, key: str, groups: Sequence[int]) -> int:
        """How many rows of those row groups have `key`; reads their key columns only."""
        return len(list(self._places(key, groups)))

    def bitstream(self, key: str, groups: Sequence[int]) -> bytes:
        """The bytes of `key`, which one row of those row groups has; reads their key columns, and that group's streams.

        Raises TransientError where it is not so: another part of the same shard was there when its rows were counted.
        """
        places = list(self._places(key, groups))
        if len(places) == 1:
            ((group, row),) = places
            columns = self._unchecked.read_row_group(group, columns=["key", "bitstream"])
            if columns["key"][row].as_py() == key:
                data: bytes = columns["bitstream"][row].as_py()
                return data
        raise TransientError(f"the part was replaced while {key!r} was read from it; open the archive again")

    def _places(self, key: str, groups: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The row groups that hold `key`, and its rows there."""
        for group in groups:
            keys = self._table.read_row_group(group, columns=["key"])["key"]
            for row in pc.indices_nonzero(pc.equal(keys, key)).to_pylist():
                yield group, row


def _range(statistics: Any) -> tuple[str, str] | None:
    if statistics is None or not statistics.has_min_max:
        return None
    return str(statistics.min), str(statistics.max)
