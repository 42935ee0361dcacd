"""Rows of an archive to tensors: what the workers of the decode and the analyze job share.

Part.rows ─► batches within the memory of a device ─► codec ─► Decoded, or a Failure with the row's bitstream
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.archive import Archive
from pipeline.attempts import Tally, WorkerContext
from pipeline.errors import Verdict, decide, describe
from pipeline.lanes import Lanes
from pipeline.memory_watch import MemoryWatch
from pipeline.protocols import Decoder
from pipeline.records import Drawing, Failure, ShardReport
from pipeline.steps import Steps

if TYPE_CHECKING:
    from torch import Tensor

BATCH_IMAGES = 32
BATCH_PIXELS = {"cpu": 4 * 2**20, "cuda": 2**24}
"""Pixels decoded at once, in all lanes of a processor; a larger image is a batch of its own."""

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

    @classmethod
    def of(cls, archive: Archive, drawing: Drawing, context: WorkerContext) -> RowDecoder:
        """With the archive's own codec, on the worker's device. Raises JobError as `Archive.codec` does."""
        codec = replace(archive, device=context.device).codec
        return cls(codec, archive.manifest.codec, drawing, context.memory)

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
    """Adds up what a worker did of one part, but for the rejects, and keeps the worker's tally of images."""

    tally: Tally
    images: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def image(self, row: Row, bytes_out: int = 0) -> None:
        self.images += 1
        self.tally.images += 1
        self.pixels += row["width"] * row["height"]
        self.bytes_in += len(row["bitstream"])
        self.bytes_out += bytes_out

    def fill(self, report: ShardReport, rows: int, rejects: int) -> ShardReport:
        """`report` with the counts; what is left of the part's `rows` was skipped."""
        return replace(
            report,
            images=self.images,
            skipped=rows - self.images - rejects,
            pixels=self.pixels,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )
