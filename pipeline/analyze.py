"""Rows of an archive straight to a model, answers to a table: the worker of the analyze job.

    Part.rows ─► decode_rows (codec) ─► analyzer, on the same device ─► Parquet with key, shard and the answers

Images never become files on the way. The result's rows join to the archive's by `key` and `shard`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from pipeline.archive import Archive
from pipeline.attempts import WorkerContext
from pipeline.commit import DATA, ShardCommit
from pipeline.errors import JobError, Verdict, decide, describe
from pipeline.memory_watch import MemoryWatch
from pipeline.part import METADATA_SCHEMA
from pipeline.protocols import Analyzer, AnalyzerFactory
from pipeline.query import Where
from pipeline.records import Drawing, Failure, ShardReport, ShardSource
from pipeline.row_decoder import Counts, Decoded, Row, RowDecoder, decode_rows, failure
from pipeline.steps import Steps
from pipeline.storage import Storage
from pipeline.table import PartWriter, with_versions

SCALARS: Mapping[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
JOIN_COLUMNS = ("key", "shard")

HOPELESS = 20
"""Images in a row that a worker's analyzer fails on with one kind of error before its first answer: it is the analyzer
that is broken, not the images."""


def result_schema(row_type: type) -> pa.Schema:
    """The table of an analyzer's rows: `key`, `shard`, then the fields of its dataclass.

    Fields are str, int, float, bool, a numpy number type, a list of one of these, or any of it `| None`. Raises
    JobError for anything else.
    """
    if not is_dataclass(row_type):
        raise JobError(f"an analyzer's row type has to be a dataclass, not {row_type!r}")
    try:
        hints = get_type_hints(row_type)
    except NameError as error:
        raise JobError(f"the fields of {row_type.__name__} cannot be read: {error}") from error
    own = [_column(row_type.__name__, field.name, hints[field.name]) for field in fields(row_type)]
    return pa.schema([*(pa.field(name, pa.string(), nullable=False) for name in JOIN_COLUMNS), *own])


def _column(owner: str, name: str, hint: Any) -> pa.Field:
    options = [hint]
    if get_origin(hint) in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not NoneType]
    kind = _arrow_type(options[0]) if len(options) == 1 else None
    if kind is None or name in JOIN_COLUMNS:
        raise JobError(f"{owner}.{name}: {hint} cannot be a column of the result")
    return pa.field(name, kind, nullable=options != [hint])


def _arrow_type(hint: Any) -> pa.DataType | None:
    if get_origin(hint) is list:
        (element,) = get_args(hint)
        kind = _scalar(element)
        return None if kind is None else pa.list_(kind)
    return _scalar(hint)


def _scalar(hint: Any) -> pa.DataType | None:
    if isinstance(hint, type) and issubclass(hint, np.number):
        return pa.from_numpy_dtype(np.dtype(hint))
    return SCALARS.get(hint)


@dataclass(frozen=True)
class AnalyzeJob:
    """What the analyze job writes: answers about rows that pass `where`, drawn as `drawing` says.

    As a WorkerFactory it is called once in each worker. `fingerprint` is the job's.
    """

    archive: Archive
    output: Storage
    fingerprint: str
    where: str | None
    drawing: Drawing
    analyzer_factory: AnalyzerFactory

    def __call__(self, context: WorkerContext) -> AnalyzeWorker:
        """Loads the archive's codec and the analyzer, on one device; raises JobError."""
        return AnalyzeWorker(self, self.analyzer_factory(context.device), context)


class AnalyzeWorker:
    """Answers an analyzer's question about the images of parts of an archive, one part after the other."""

    def __init__(self, job: AnalyzeJob, analyzer: Analyzer, context: WorkerContext) -> None:
        self._job = job
        self._analyzer = analyzer
        self._context = context
        self._decoder = RowDecoder.of(job.archive, job.drawing, context)
        self._where = Where(job.where, METADATA_SCHEMA)
        self._schema = with_versions(result_schema(analyzer.row_type), job.fingerprint)
        self._memory = MemoryWatch()  # of its own: what the codec finds room for says nothing about the analyzer
        self._answered = False
        self._failures = 0
        self._failure: type[Exception] | None = None

    def process(self, source: ShardSource) -> ShardReport:
        """Analyzes one part and commits the table of answers; a part without any makes an empty table."""
        job, steps = self._job, Steps()
        tally = self._context.tally
        counts = Counts(tally)
        with job.archive.open_part(source) as part, ShardCommit(job.output, source, job.fingerprint, tally) as commit:
            with commit.output(f"{DATA}/{commit.name}.parquet") as file:
                with PartWriter(file, self._schema) as table:
                    for result in self._answers(part.rows(self._where), steps):
                        if isinstance(result, Failure):
                            commit.reject(result)
                            continue
                        with steps("write"):
                            table.write(result.columns)
                        counts.image(result.row)
                counts.bytes_out = file.seek(0, 2)
            report = ShardReport(source.url, source, job.fingerprint, seconds=steps.seconds)
            return commit.finish(counts.fill(report, part.num_rows, commit.rejects))

    def _answers(self, rows: Iterable[Row], steps: Steps) -> Iterator[_Answer | Failure]:
        for batch in decode_rows(rows, self._decoder, self._context, steps):
            decoded = [result for result in batch if isinstance(result, Decoded)]
            with steps("analyze"):
                answers = self._ask(decoded) if decoded else []
            yield from (result for result in batch if isinstance(result, Failure))
            yield from answers

    def _ask(self, decoded: Sequence[Decoded]) -> list[_Answer | Failure]:
        """All images at once; one by one where that fails, so that one odd image costs no other."""
        try:
            answers = self._columns([each.row for each in decoded], self._analyzer([each.image for each in decoded]))
            self._answered = True
            self._memory.enough(max(each.pixels for each in decoded))
            return [_Answer(each.row, columns) for each, columns in zip(decoded, answers, strict=True)]
        except Exception as error:
            if decide(error) is not Verdict.REJECT:
                raise
            if len(decoded) == 1:
                self._memory.failed(error, decoded[0].pixels)
                told = describe(error) + self._place(error)
                self._note_failure(error, told)
                return [failure(decoded[0].row, "analyze", told)]
        return [result for each in decoded for result in self._ask([each])]

    def _place(self, error: Exception) -> str:
        """The innermost line of the analyzer's own code, in its file or beside it, that `error` came by."""
        module = sys.modules.get(type(self._analyzer).__module__)
        folder = os.path.dirname(getattr(module, "__file__", None) or "")
        frames = [
            each for each in traceback.extract_tb(error.__traceback__) if os.path.dirname(each.filename) == folder
        ]
        return f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""

    def _note_failure(self, error: Exception, told: str) -> None:
        """Raises JobError once the analyzer has failed too often without any answer, whatever the shard."""
        self._failures = self._failures + 1 if type(error) is self._failure else 1
        self._failure = type(error)
        if not self._answered and self._failures >= HOPELESS:
            times = f"on each of the last {HOPELESS} images and answered none"
            raise JobError(f"the analyzer {self._analyzer.name} failed {times}: {told}") from error

    def _columns(self, rows: Sequence[Row], answers: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of the result table; raises JobError for answers that are not what the analyzer declares."""
        row_type = self._analyzer.row_type
        if len(answers) != len(rows) or not all(isinstance(each, row_type) for each in answers):
            found = ", ".join(sorted({type(each).__name__ for each in answers})) or "nothing"
            wanted = f"not {len(rows)} of {row_type.__name__}"
            raise JobError(f"the analyzer {self._analyzer.name} answered {len(answers)} rows of {found}, {wanted}")
        names = [name for name in self._schema.names if name not in JOIN_COLUMNS]
        joins = ({name: row[name] for name in JOIN_COLUMNS} for row in rows)
        table = [
            join | {name: getattr(each, name) for name in names} for join, each in zip(joins, answers, strict=True)
        ]
        undeclared = f"the analyzer {self._analyzer.name} answers what it does not declare"
        try:  # the writer converts rows again, but only after megabytes of them: a broken word ends the job now
            answered = pa.Table.from_pylist(table, self._schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise JobError(f"{undeclared}: {error}") from error
        if missing := [name for name in names if answered[name].null_count and not self._schema.field(name).nullable]:
            raise JobError(f"{undeclared}: None in {', '.join(missing)}")
        return table


@dataclass(frozen=True)
class _Answer:
    row: Row
    columns: Mapping[str, Any]
