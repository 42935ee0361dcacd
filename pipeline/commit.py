"""The commit of one shard: data, then rejects, then the report, which is the done-marker.

    commit.output(f"data/{commit.name}.parquet")   whole or not at all, hashed
    commit.reject(failure)                         collected on disk, published by finish
    commit.finish(report)                          reads every output back, then writes the report

Names follow from the source's URL alone, and contents from the source and the job's configuration, so that a killed
or repeated attempt changes nothing and two workers on one shard write the same objects.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import BinaryIO

from pipeline.attempts import Tally
from pipeline.errors import TransientError
from pipeline.prefetch import requests
from pipeline.records import Failure, ShardReport, ShardSource
from pipeline.rows import plain_text
from pipeline.storage import Storage
from pipeline.table import REJECT_SCHEMA, PartWriter, with_versions

REPORTS = "reports"
REJECTS = "rejects"
DATA = "data"
REASONS = 10
"""How many reasons for its rejects, the commonest, a shard's report has."""

NAME_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".parquet")
"""What no output is called by, removed in this order; what is listed as a shard, `listing` says."""


def output_name(source: ShardSource) -> str:
    """`<shard name>-<12 digits of the URL's SHA-256>`: readable, unique, the same in every run."""
    name = source.url.rsplit("/", 1)[-1]
    for suffix in NAME_SUFFIXES:
        name = name.removesuffix(suffix)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:100] or "shard"
    url = source.url.encode(errors="surrogateescape")  # a local path may be no text: its bytes then
    return f"{name}-{hashlib.sha256(url).hexdigest()[:12]}"


def report_path(source: ShardSource) -> str:
    """Where the report of `source` lies, relative to the output."""
    return f"{REPORTS}/{output_name(source)}.json"


def set_aside(storage: Storage, source: ShardSource, fingerprint: str, error: str) -> ShardReport:
    """Rejects a shard as a whole: one reject row without bytes (they stay in the shard), and a report that says why.

    Not one that is done after all, by another job or by an attempt that was thought lost: its report is returned then.
    """
    present = _report(storage, source)
    if present and not present.error and (present.source, present.job_fingerprint) == (source, fingerprint):
        return present
    with ShardCommit(storage, source, fingerprint) as commit:
        commit.reject(Failure(key="", shard=source.url, stage="shard", error=error, data=b""))
        return commit.finish(ShardReport(source.url, source, fingerprint, error=error))


def _report(storage: Storage, source: ShardSource) -> ShardReport | None:
    """None where there is none that can be read."""
    try:
        return ShardReport.from_json(storage.read(report_path(source)).decode())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class _Written:
    path: str
    size: int
    sha256: str


class ShardCommit:
    """The outputs of one attempt at one shard, as a context manager.

    Nothing but the report makes the shard done. Leaving the block without `finish` leaves at most objects that the
    next attempt replaces by the same ones.
    """

    def __init__(self, storage: Storage, source: ShardSource, fingerprint: str, tally: Tally | None = None) -> None:
        """`fingerprint` of the job goes into the metadata of the rejects table; `tally` of a worker counts rejects."""
        self._storage = storage
        self._source = source
        self._fingerprint = fingerprint
        self._tally = tally or Tally()
        self.name = output_name(source)
        self._written: list[_Written] = []
        self._seconds = 0.0
        self._rejects: PartWriter | None = None
        self._reasons: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> ShardCommit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind or _Discard, error or _Discard(), trace)

    @contextmanager
    def output(self, path: str) -> Iterator[BinaryIO]:
        """A file that becomes `path` when the block ends and is dropped when it raises.

        `path` must follow from `name` or from the shard's content, so that a repeated attempt writes the same one.
        """
        with self._storage.atomic_write(path) as file:
            yield file
            start = time.perf_counter()
            file.flush()
            size = file.seek(0, 2)
            file.seek(0)
            digest = _sha256(file)
        self._seconds += time.perf_counter() - start
        self._written.append(_Written(path, size, digest))

    def reject(self, failure: Failure) -> None:
        """Sets a sample aside with its bytes; text that is not valid Unicode is escaped."""
        if self._rejects is None:
            file = self._stack.enter_context(self.output(self._rejects_path))
            schema = with_versions(REJECT_SCHEMA, self._fingerprint)
            self._rejects = self._stack.enter_context(PartWriter(file, schema))
        row = {name: plain_text(value) if isinstance(value, str) else value for name, value in vars(failure).items()}
        self._rejects.write(row)
        self._tally.rejects += 1
        self._reasons[f"{row['stage']} {row['error']}"] += 1

    @property
    def _rejects_path(self) -> str:
        return f"{REJECTS}/{self.name}.parquet"

    @property
    def rejects(self) -> int:
        return self._rejects.rows if self._rejects else 0

    def finish(self, report: ShardReport) -> ShardReport:
        """Publishes the rejects, verifies every output, writes the report with what it knows: outputs, rejects
        and the commonest reasons, time.

        Raises TransientError where an output does not read back as it was written.
        """
        if self._rejects is None:
            self._storage.delete(self._rejects_path)
        self._stack.close()
        start = time.perf_counter()
        for _ in requests(self._verify, self._written):  # many where each picture is a file of its own
            pass
        seconds = {**report.seconds, "commit": round(self._seconds + time.perf_counter() - start, 3)}
        outputs = {written.path: written.size for written in self._written}
        reasons = dict(self._reasons.most_common(REASONS))
        done = replace(report, outputs=outputs, rejects=self.rejects, seconds=seconds, reasons=reasons)
        with self._storage.atomic_write(report_path(self._source)) as file:
            file.write(done.to_json().encode())
        return done

    def _verify(self, written: _Written) -> None:
        verify(self._storage, written.path, written.size, written.sha256)


def verify(storage: Storage, path: str, size: int, sha256: str) -> None:
    """Reads `path`, just written, back; raises TransientError unless it is there with this size and checksum."""
    try:
        with storage.open(path) as file:
            digest = _sha256(file)
            found = file.tell()
    except FileNotFoundError as error:
        raise TransientError(f"{storage.path_url(path)} is not there to be read back") from error
    if (found, digest) != (size, sha256):
        raise TransientError(f"{storage.path_url(path)} does not read back as written ({found} bytes of {size})")


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


class _Discard(Exception):
    """Thrown into open outputs so that they drop what they hold."""
