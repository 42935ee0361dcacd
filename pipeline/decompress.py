"""Rows of an archive to picture files: the worker of the decode job.

    Part.rows ─► decode_rows (codec) ─► pictures (encoder threads) ─► tar or files ─► report

Every picture says that it is a reconstruction: in its own EXIF and XMP, and in the JSON beside it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from pipeline.archive import Archive
from pipeline.attempts import WorkerContext
from pipeline.commit import ShardCommit
from pipeline.errors import describe
from pipeline.part import METADATA_SCHEMA
from pipeline.pictures import Picture, PictureOutput, PictureStyle
from pipeline.protocols import Image, ImageEncoder
from pipeline.query import Where
from pipeline.records import Drawing, Failure, ShardReport, ShardSource
from pipeline.row_decoder import Counts, Decoded, Row, RowDecoder, decode_rows, failure
from pipeline.rows import strict_json
from pipeline.steps import Steps
from pipeline.storage import Storage

ENCODE_AHEAD_BYTES = 128 * 2**20
"""Pixels that wait for an encoder; with a batch just decoded on top, a worker stays within its memory."""


@dataclass(frozen=True)
class DecodeJob:
    """What the decode job writes: rows that pass `where`, drawn as `drawing` says, in this style.

    As a WorkerFactory it is called once in each worker. `fingerprint` is the job's, `encoder` makes image files.
    """

    archive: Archive
    output: Storage
    fingerprint: str
    where: str | None
    drawing: Drawing
    style: PictureStyle
    encoder: ImageEncoder

    def __call__(self, context: WorkerContext) -> DecodeWorker:
        """Loads the archive's codec; raises JobError."""
        return DecodeWorker(self, context)


class DecodeWorker:
    """Turns parts of an archive into pictures, one part after the other."""

    def __init__(self, job: DecodeJob, context: WorkerContext) -> None:
        self._job = job
        self._context = context
        self._decoder = RowDecoder.of(job.archive, job.drawing, context)
        self._where = Where(job.where, METADATA_SCHEMA)

    def process(self, source: ShardSource) -> ShardReport:
        """Decodes one part and commits its pictures."""
        job, steps = self._job, Steps()
        tally = self._context.tally
        counts = Counts(tally)
        with job.archive.open_part(source) as part, ShardCommit(job.output, source, job.fingerprint, tally) as commit:
            with (
                PictureOutput(commit, job.output, job.style) as output,
                closing(self._pictures(part.rows(self._where), steps)) as pictures,
            ):
                for result in pictures:
                    if isinstance(result, Failure):
                        commit.reject(result)
                        continue
                    with steps("write"):
                        output.add(result)
                    counts.image(result.row, len(result.image))
            report = ShardReport(source.url, source, job.fingerprint, seconds=steps.seconds)
            return commit.finish(counts.fill(report, part.num_rows, commit.rejects))

    def _pictures(self, rows: Iterable[Row], steps: Steps) -> Generator[Picture | Failure, None, None]:
        """Image files in the order of the rows, encoded on threads while the codec decodes what follows."""
        waiting: deque[tuple[Future[Picture | Failure], int]] = deque()
        threads = ThreadPoolExecutor(self._context.threads, "encode")
        try:
            for batch in decode_rows(rows, self._decoder, self._context, steps):
                for result in map(_on_host, batch):
                    waiting.append((threads.submit(self._encode, result, steps), _host_bytes(result)))
                while waiting and (waiting[0][0].done() or sum(cost for _, cost in waiting) > ENCODE_AHEAD_BYTES):
                    yield waiting.popleft()[0].result()
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _encode(self, result: tuple[Row, Image] | Failure, steps: Steps) -> Picture | Failure:
        if isinstance(result, Failure):
            return result
        row, pixels = result
        try:
            with steps("encode"):
                data = self._job.encoder(pixels, self._job.style.format, self._description(row))
        except ValueError as error:
            return failure(row, "encode", describe(error))
        return Picture(row, data, self._sidecar(row))

    def _description(self, row: Row) -> dict[str, str]:
        drawn = {name.capitalize(): str(value) for name, value in self._job.drawing.told.items()}
        return {
            "Software": f"difficmh, codec {self._decoder.name}",
            "Description": f"Reconstruction by a generative codec, not the original photograph: {row['key']}",
            "Codec": self._decoder.name,
            "Fingerprint": self._decoder.codec.fingerprint,
            **drawn,
            "Bits per pixel": f"{row['bits_per_pixel']:.4f}",
            "Original SHA-256": row["original_sha256"],
        }

    def _sidecar(self, row: Row) -> bytes:
        """The row without its bitstream, and what made the picture; `metadata` is the original sample's own."""
        known = {name: value for name, value in row.items() if name not in ("bitstream", "metadata")}
        made = {"reconstruction": True, "codec_fingerprint": self._decoder.codec.fingerprint}
        fields = {**known, **made, **self._job.drawing.told}
        try:
            text = strict_json({**fields, "metadata": json.loads(row["metadata"])})
        except (ValueError, RecursionError):  # no JSON, or nested too deeply: as it stands
            text = strict_json({**fields, "metadata": row["metadata"]})
        return text.encode()


def _on_host(result: Decoded | Failure) -> tuple[Row, Image] | Failure:
    """`(3, H, W)` float in [0, 1] anywhere to `(H, W, 3)` uint8 in memory."""
    if isinstance(result, Failure):
        return result
    rounded = (result.image.clamp(0, 1) * 255).round().byte()
    return result.row, rounded.permute(1, 2, 0).contiguous().cpu().numpy()


def _host_bytes(result: tuple[Row, Image] | Failure) -> int:
    return 0 if isinstance(result, Failure) else result[1].nbytes
