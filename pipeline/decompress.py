"""Rows of an archive to tensors, and tensors to picture files: the worker of the decode job.

    Part.rows ─► decode_rows (codec, batches) ─► pictures (encoder threads) ─► tar or files ─► report

Every picture says that it is a reconstruction: in its own EXIF and XMP, and in the JSON beside it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.archive import Archive
from pipeline.attempts import Tally, WorkerContext
from pipeline.commit import ShardCommit
from pipeline.errors import Verdict, decide, describe
from pipeline.lanes import Lanes
from pipeline.memory_watch import MemoryWatch
from pipeline.part import METADATA_SCHEMA
from pipeline.pictures import Picture, PictureOutput, PictureStyle
from pipeline.protocols import Decoder, Image, ImageEncoder
from pipeline.query import Where
from pipeline.records import Drawing, Failure, ShardReport, ShardSource
from pipeline.rows import strict_json
from pipeline.steps import Steps
from pipeline.storage import Storage

if TYPE_CHECKING:
    from torch import Tensor

BATCH_IMAGES = 32
BATCH_PIXELS = {"cpu": 4 * 2**20, "cuda": 2**24}
"""Pixels decoded at once, in all lanes of a processor; a larger image is a batch of its own."""

ENCODE_AHEAD_BYTES = 128 * 2**20
"""Pixels that wait for an encoder; with a batch just decoded on top, a worker stays within its memory."""

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Decoded:
    """A row of the archive and its image, `(3, H, W)` float32 in [0, 1] on the codec's device."""

    row: Row
    image: Tensor

    @property
    def pixels(self) -> int:
        return _pixels(self.row)


@dataclass(frozen=True)
class RowDecoder:
    """Makes images of rows. `name` is what the archive calls its codec, whatever folder the model lies in now.

    `memory` is the worker's.
    """

    codec: Decoder
    name: str
    drawing: Drawing
    memory: MemoryWatch

    def __call__(self, rows: Sequence[Row]) -> list[Decoded | Failure]:
        """All at once; one by one where that fails, so that a damaged row costs no other."""
        flaws = [self._flaw(row) for row in rows]
        if not any(flaws):
            try:
                images = self._images(rows)
                self.memory.enough(max(map(_pixels, rows)))
                return [Decoded(row, image) for row, image in zip(rows, images, strict=True)]
            except Exception as error:
                if decide(error) is not Verdict.REJECT:
                    raise
        pairs = zip(rows, flaws, strict=True)
        return [failure(row, "decompress", flaw) if flaw else self._one(row) for row, flaw in pairs]

    def _flaw(self, row: Row) -> str:
        """Why a row cannot be decoded, as far as shows before memory for its picture is taken; empty if it may be."""
        if row["codec"] != self.name:
            return f"made by the codec {row['codec']!r}, not {self.name!r}"
        try:
            height, width = self.codec.size(row["bitstream"])
        except ValueError as error:
            return describe(error)
        if (height, width) != (row["height"], row["width"]):
            return f"its stream is of {width} x {height} pixels, the table says {row['width']} x {row['height']}"
        return ""

    def _images(self, rows: Sequence[Row]) -> list[Tensor]:
        streams = [row["bitstream"] for row in rows]
        how = self.drawing
        return self.codec.decompress(streams, mode=how.mode, steps=how.steps, sampler=how.sampler)

    def _one(self, row: Row) -> Decoded | Failure:
        try:
            (image,) = self._images([row])
        except Exception as error:
            if decide(error) is not Verdict.REJECT:
                raise
            self.memory.failed(error, _pixels(row))
            return failure(row, "decompress", describe(error))
        self.memory.enough(_pixels(row))
        return Decoded(row, image)


def decode_rows(
    rows: Iterable[Row], decoder: RowDecoder, context: WorkerContext, steps: Steps
) -> Iterator[list[Decoded | Failure]]:
    """The rows as images, batch by batch and in order; a row that cannot be decoded becomes a Failure."""
    with Lanes(context) as lanes:
        for batch in _batches(steps.each("read", rows), BATCH_PIXELS[context.device]):
            with steps("decompress"):
                results = lanes.map(decoder, batch)
            yield results


def _batches(rows: Iterable[Row], pixels: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    waiting = 0
    for row in rows:
        area = _pixels(row)
        if batch and (waiting + area > pixels or len(batch) == BATCH_IMAGES):
            yield batch
            batch, waiting = [], 0
        batch.append(row)
        waiting += area
    if batch:
        yield batch


def _pixels(row: Row) -> int:
    return int(row["width"] * row["height"])


def failure(row: Row, stage: str, error: str) -> Failure:
    """A row set aside with its bitstream."""
    return Failure(row["key"], row["shard"], stage, error, row["bitstream"])


@dataclass
class Counts:
    """Adds up what a worker did of one part, and keeps the worker's tally."""

    tally: Tally
    images: int = 0
    rejects: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def image(self, row: Row, bytes_out: int = 0) -> None:
        self.images += 1
        self.tally.images += 1
        self.pixels += row["width"] * row["height"]
        self.bytes_in += len(row["bitstream"])
        self.bytes_out += bytes_out

    def reject(self) -> None:
        self.rejects += 1
        self.tally.rejects += 1

    def fill(self, report: ShardReport, rows: int) -> ShardReport:
        """`report` with the counts; what is left of the part's `rows` was skipped."""
        return replace(
            report,
            images=self.images,
            skipped=rows - self.images - self.rejects,
            pixels=self.pixels,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )


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
        return DecodeWorker(replace(self, archive=replace(self.archive, device=context.device)), context)


class DecodeWorker:
    """Turns parts of an archive into pictures, one part after the other."""

    def __init__(self, job: DecodeJob, context: WorkerContext) -> None:
        self._job = job
        self._context = context
        self._decoder = RowDecoder(job.archive.codec, job.archive.manifest.codec, job.drawing, context.memory)
        self._where = Where(job.where, METADATA_SCHEMA)

    def process(self, source: ShardSource, attempt: int) -> ShardReport:
        """Decodes one part and commits its pictures; `attempt` changes nothing in what is written."""
        job, steps = self._job, Steps()
        counts = Counts(self._context.tally)
        with job.archive.open_part(source) as part, ShardCommit(job.output, source, job.fingerprint) as commit:
            with (
                PictureOutput(commit, job.output, job.style) as output,
                closing(self._pictures(part.rows(self._where), steps)) as pictures,
            ):
                for result in pictures:
                    if isinstance(result, Failure):
                        commit.reject(result)
                        counts.reject()
                        continue
                    with steps("write"):
                        output.add(result)
                    counts.image(result.row, len(result.image))
            report = ShardReport(source.url, source, job.fingerprint, seconds=steps.seconds)
            return commit.finish(counts.fill(report, part.num_rows))

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
