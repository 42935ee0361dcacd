"""An archive, read: queries over its metadata, single frames, and the list of its parts.

    archive = Archive.open("s3://bucket/archive", codec_factory=difficmh.load)
    archive.query("list_contains(tags, 'car') AND captured_at > '2026-01-01'")   # pyarrow.Table, without pixels
    archive.get("000123", mode="preview")                                         # (3, H, W) float32 in [0, 1]

Only shards with a report count: a part without one belongs to a shard that is not done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.addresses import without_password
from pipeline.capsule import default_cache, load_codec
from pipeline.commit import DATA, REPORTS, output_name
from pipeline.errors import TransientError
from pipeline.explanations import reaching
from pipeline.manifest import Manifest, read_manifest
from pipeline.part import METADATA_SCHEMA, AmbiguousKeyError, ArchiveError, KeyRanges, Part, groups_holding
from pipeline.prefetch import PARALLEL_REQUESTS, requests
from pipeline.protocols import Decoder, DecoderFactory, Mode
from pipeline.query import Where
from pipeline.records import ShardReport, ShardSource
from pipeline.retry import BRIEF
from pipeline.rows import path_of_text
from pipeline.storage import ObjectInfo, Storage
from pipeline.table import SchemaError
from pipeline.totals import Totals

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive is and what its reports add up to."""

    url: str
    manifest: Manifest
    parts: int
    totals: Totals


@dataclass(frozen=True)
class Archive:
    """The archive under `storage`. Make one with `open`; picklable as long as `codec_factory` is."""

    storage: Storage
    manifest: Manifest
    codec_factory: DecoderFactory | None = None
    device: str = "cpu"
    cache: Path | None = None
    _ranges: dict[str, KeyRanges] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
        codec_factory: DecoderFactory | None = None,
        *,
        device: str = "cpu",
        cache: Path | None = None,
    ) -> Archive:
        """The archive at `url`, a local path or any URL that fsspec knows.

        `codec_factory` (such as `difficmh.load`) is needed for pixels only; it gets the archive's own model, copied
        into `cache` (by default in the user's own) and checked. Raises ArchiveError where there is no archive,
        JobError for one that is newer than this release.
        """
        url = os.fspath(url)
        storage = Storage.from_url(url, storage_options)
        with reaching(url):
            manifest = read_manifest(replace(storage, retry=BRIEF), "archive")
            if manifest is None:
                storage.check_bucket()
                raise ArchiveError(f"there is no archive at {url}: archive.json is missing")
        return cls(storage, manifest, codec_factory, device, cache)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @cached_property
    def _committed(self) -> tuple[Totals, dict[str, int]]:
        """What the reports add up to, and the parts they name with their sizes; the reports themselves are not kept."""
        totals, parts = Totals(), {}
        paths = [info.path for info in self.storage.scan(REPORTS, deep=False) if info.path.endswith(".json")]
        for report in requests(self._report, paths):
            totals += Totals.of(report)
            parts.update({path: size for path, size in report.outputs.items() if _is_part(path)})
        return totals, parts

    def _report(self, path: str) -> ShardReport:
        url = self.storage.path_url(path)
        try:
            report = ShardReport.from_json(self.storage.read(path).decode())
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(f"{url} is damaged: {error!r}") from error
        if report.job_fingerprint != self.manifest.job_fingerprint:
            raise ArchiveError(
                f"{url}: this shard was not done with the settings in archive.json: the archive is being overwritten, "
                "or two jobs were mixed"
            )
        return report

    @cached_property
    def parts(self) -> list[ShardSource]:
        """The committed parts, sorted by URL, as sources for a job.

        Raises ArchiveError where one that a report names is missing or has another size.
        """
        _, wanted = self._committed
        present = {info.path: info for info in self.storage.scan(DATA, deep=False)}
        for path, size in wanted.items():
            if path not in present or present[path].size != size:
                wrong = f"{self.storage.path_url(path)} is missing or not what its report says"
                raise ArchiveError(f"{wrong}; the job does this shard again when it is run again")
        return [self._source(present[path]) for path in sorted(wanted)]

    def _source(self, info: ObjectInfo) -> ShardSource:
        """A part by the name that may be stored: without the password of the archive's address, if there is one."""
        address = self.storage.path_url(info.path)
        name = without_password(address)
        return ShardSource(name, info.size, info.etag, "" if name == address else address)

    def info(self) -> ArchiveInfo:
        """Format, codec and totals; reads the reports."""
        totals, parts = self._committed
        return ArchiveInfo(self.storage.url, self.manifest, len(parts), totals)

    def query(self, where: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The metadata of all rows that pass the SQL expression `where`, or some columns of it.

        Raises QueryError for an expression that cannot be used, ArchiveError for an unknown column.
        """
        tables = list(self.scan(where, columns))
        return pa.concat_tables([_schema(columns).empty_table(), *tables])

    def scan(self, where: str | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Like `query`, one table per part: memory is bounded by the metadata of a few parts."""
        names = _schema(columns).names
        clause = Where(where, METADATA_SCHEMA)

        def read(source: ShardSource) -> pa.Table:
            with self._reading(source) as part:
                return part.select(clause, names or ["key"])

        for table in requests(read, self.parts, PARALLEL_REQUESTS):
            yield table.select(names).replace_schema_metadata(None)

    def keys(self, where: str | None = None) -> Iterator[str]:
        """The key of each row that passes `where`, part by part; a key in several shards comes several times."""
        for table in self.scan(where, ["key"]):
            yield from table["key"].to_pylist()

    def pictures(
        self, where: str | None = None, mode: Mode = "preview", batch: int = 8
    ) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """The metadata of each row that passes `where` and its image, as of `get`; `batch` are decoded together.

        Memory is bounded by a row group and a batch. Raises as `query` and `get` do: a damaged bitstream is the end of
        it (the decode job sets such rows aside).
        """
        clause = Where(where, METADATA_SCHEMA)
        for source in self.parts:
            with self._reading(source) as part:
                passing = part.rows(clause)
                while rows := list(islice(passing, batch)):
                    images = self.codec.decompress([row.pop("bitstream") for row in rows], mode=mode)
                    yield from zip(rows, images, strict=True)

    def get(self, key: str, mode: Mode = "preview", shard: str | None = None) -> Tensor:
        """The image of `key`: `(3, H, W)` float32 in [0, 1] on the archive's device.

        Raises KeyError for an unknown key or shard, AmbiguousKeyError for a key that several rows have (`shard`, the
        value of that column, may tell them apart), ValueError for a damaged bitstream.
        """
        (image,) = self.codec.decompress([self.bitstream(key, shard)], mode=mode)
        return image

    def bitstream(self, key: str, shard: str | None = None) -> bytes:
        """The stored bytes of `key`; reads the row groups that may hold it. Raises as `get` does."""
        sources = self._parts_of(shard)
        ranges = zip(sources, self._key_ranges(sources), strict=True)
        candidates = [(source, numbers) for source, each in ranges if (numbers := groups_holding(key, each))]
        counts = list(requests(lambda candidate: self._count(key, *candidate), candidates))
        found = [candidate for candidate, count in zip(candidates, counts, strict=True) if count]
        if not found:
            error = KeyError(key)
            error.add_note(f"not in {without_password(self.storage.url)}; keys hold the folders of the tar")
            raise error
        if sum(counts) > 1:
            named = found[: AmbiguousKeyError.NAMED]
            shards = ", ".join(requests(self._shard, [source for source, _ in named]))
            more = f" and {len(found) - len(named)} more" if len(found) > len(named) else ""
            raise AmbiguousKeyError(f"{sum(counts)} images have the key {key!r}, in {shards}{more}; say which shard")
        source, numbers = found[0]
        with self._reading(source) as part:  # finds the row again: this may be another file of the same shard
            return part.bitstream(key, numbers)

    def _parts_of(self, shard: str | None) -> list[ShardSource]:
        if shard is None:
            return self.parts
        wanted = {self.storage.path_url(_part_path(name)) for name in (shard, path_of_text(shard))}
        sources = [source for source in self.parts if source.address in wanted]
        if not sources:
            raise KeyError(f"no shard {shard!r} in {without_password(self.storage.url)}")
        return sources

    def _shard(self, source: ShardSource) -> str:
        """What the rows of a part, which has some, call their shard."""
        with self._reading(source) as part:
            return str(part.metadata(["shard"])["shard"][0].as_py())

    def _count(self, key: str, source: ShardSource, groups: Sequence[int]) -> int:
        with self._reading(source) as part:
            return part.count(key, groups)

    def _key_ranges(self, sources: Sequence[ShardSource]) -> list[KeyRanges]:
        """Of each part. Kept for later: two keys per row group, so that a second `get` opens the right part at once."""
        missing = [source for source in sources if source.url not in self._ranges]
        for source, ranges in zip(missing, requests(self._read_key_ranges, missing), strict=True):
            self._ranges[source.url] = ranges
        return [self._ranges[source.url] for source in sources]

    def _read_key_ranges(self, source: ShardSource) -> KeyRanges:
        with self._reading(source) as part:
            return part.key_ranges()

    @contextmanager
    def _reading(self, source: ShardSource) -> Iterator[Part]:
        """`open_part`; what goes wrong with the part says which one it is."""
        try:
            with self.open_part(source) as part:
                yield part
        except Exception as error:
            error.add_note(f"in {source.url}")
            raise

    def open_part(self, source: ShardSource) -> Part:
        """One of `parts`, for reading. Raises ArchiveError or SchemaError, which say which part it is.

        TransientError where it has another size by now, as another attempt at its shard may have made. Tags are not
        compared: some stores spell them otherwise in a list than for one object.
        """
        path = source.address.removeprefix(self.storage.path_url(""))
        with ExitStack() as failing:
            file = self.storage.open(path, buffer=0)
            failing.callback(file.close)
            if (size := file.seek(0, os.SEEK_END)) != source.size:
                raise TransientError(f"{source.url} was replaced: {source.size} bytes when listed, {size} now")
            try:
                part = Part(file, self.manifest.codec_fingerprint)
            except (ArchiveError, SchemaError) as error:
                raise type(error)(f"{source.url}: {error}") from error
            failing.pop_all()
            return part

    @cached_property
    def codec(self) -> Decoder:
        """The archive's codec, made from its own model at first use.

        Raises ArchiveError without a factory, or where the model is damaged or not the one the archive names.
        """
        if self.codec_factory is None:
            raise ArchiveError("this archive was opened without a codec: give Archive.open a codec_factory")
        codec = load_codec(self.storage, self.codec_factory, self.device, self.cache or default_cache())
        if codec.fingerprint != self.manifest.codec_fingerprint:
            raise ArchiveError(
                f"{self.storage.url} was made with the weights {self.manifest.codec_fingerprint}, but its model has "
                f"{codec.fingerprint}"
            )
        return codec


def _schema(columns: Sequence[str] | None) -> pa.Schema:
    """The metadata columns asked for, all by default."""
    unknown = [name for name in columns or () if name not in METADATA_SCHEMA.names]
    if unknown:
        known = ", ".join(METADATA_SCHEMA.names)
        raise ArchiveError(f"no metadata column {', '.join(unknown)}; columns: {known}")
    return METADATA_SCHEMA if columns is None else pa.schema([METADATA_SCHEMA.field(name) for name in columns])


def _part_path(shard: str) -> str:
    return f"{DATA}/{output_name(ShardSource(shard, 0, ''))}.parquet"


def _is_part(path: str) -> bool:
    return path.startswith(f"{DATA}/") and path.endswith(".parquet")
