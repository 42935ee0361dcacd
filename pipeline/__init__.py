"""pipeline: image corpora through a codec, shard by shard, and the archives that come of it.

archive = pipeline.Archive.open("s3://bucket/archive", codec_factory=difficmh.load)
archive.query("list_contains(tags, 'car')")
archive.pictures("list_contains(tags, 'car')", mode="full")
archive.get("000123", mode="preview")
"""

from pipeline.archive import Archive, ArchiveInfo
from pipeline.errors import JobError
from pipeline.part import AmbiguousKeyError, ArchiveError
from pipeline.query import QueryError
from pipeline.table import SchemaError

__all__ = ["AmbiguousKeyError", "Archive", "ArchiveError", "ArchiveInfo", "JobError", "QueryError", "SchemaError"]
