"""Compresses one shard: read → decode on threads → batches by size → tag, compress, check → write and commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from pipeline.attempts import WorkerContext
from pipeline.batches import BatchLimits, SizeBatches
from pipeline.commit import DATA, ShardCommit
from pipeline.errors import JobError, TransientError, Verdict, decide, describe
from pipeline.keys import Distinct
from pipeline.lanes import Lanes
from pipeline.prefetch import decoding_cost, map_ahead
from pipeline.protocols import Codec, CodecFactory, ImageDecoder
from pipeline.records import Failure, Sample, ShardReport, ShardSource
from pipeline.rows import DecodedSample, archive_row, decode_sample, psnr_db
from pipeline.shards import read_shard
from pipeline.steps import Steps
from pipeline.storage import Storage, UrlOpener
from pipeline.table import ARCHIVE_SCHEMA, PartWriter, TableRow, with_versions

Fidelity = Literal["preview", "none"]
Tags = Literal["tagger", "none"]

AHEAD_BYTES = 256 * 2**20
"""Bound on what a worker reads and decodes ahead, encoded bytes and decoding's own memory included."""
PARSED_BYTES = 4
"""What a byte of JSON takes once it is parsed, about: numbers of boxes take more, texts less."""
WAITING_PIXELS = 32 * 2**20
BATCH_PIXELS = {"cpu": 4 * 2**20, "cuda": 32 * 2**20}
"""Pixels of one batch: a processor's lanes together have no more in work than one tile of a large image; a GPU needs
many to be busy."""
DECODE_THREADS = 8


@dataclass(frozen=True)
class Coding:
    """How rows are made of images: the settings that decide what an archive holds.

    `tags` says where tags come from, the codec's tagger, or there are none; `fidelity` what is measured of the streams.
    """

    quality: int
    effort: int = 0
    fidelity: Fidelity = "preview"
    tags: Tags = "tagger"


@dataclass(frozen=True)
class CompressJob:
    """What the compression job writes: the images of shards, coded as `coding` says.

    As a WorkerFactory it is called once in each worker. `fingerprint` is the job's, `codec_fingerprint` what the codec
    that the worker loads must have. A batch holds `batch_size` images at most.
    """

    inputs: UrlOpener
    output: Storage
    fingerprint: str
    coding: Coding
    batch_size: int
    codec_fingerprint: str
    codec_factory: CodecFactory
    image_decoder: ImageDecoder

    def __call__(self, context: WorkerContext) -> CompressWorker:
        """Loads the codec and tries it; raises JobError where codec or quality are not as the job says."""
        codec = self.codec_factory(context.device)
        if codec.fingerprint != self.codec_fingerprint:
            found = f"a worker's weights are {codec.fingerprint}, the job's {self.codec_fingerprint}"
            raise JobError(f"{found}: install the same release")
        _try_codec(codec, self.coding)
        return CompressWorker(self, codec, context)


def _try_codec(codec: Codec, coding: Coding) -> None:
    """Compresses one small image, so that a wrong quality or a broken device ends the job before it rejects images.

    Tags it, too: a tagger that does not load would fail on every image.
    """
    image = np.zeros((64, 64, 3), np.uint8)
    try:
        if coding.tags == "tagger":
            codec.tag([image])
        codec.compress([image], quality=coding.quality, tags=[[]], effort=coding.effort)
    except ValueError as error:
        raise JobError(f"{codec.name} cannot compress: {error}") from error


class CompressWorker:
    """Compresses shards one after the other with one codec."""

    def __init__(self, job: CompressJob, codec: Codec, context: WorkerContext) -> None:
        self._job = job
        self._codec = codec
        self._context = context

    def process(self, source: ShardSource) -> ShardReport:
        """Compresses one shard and commits its part."""
        job, steps = self._job, Steps()
        schema = with_versions(ARCHIVE_SCHEMA, job.codec_fingerprint)
        with ShardCommit(job.output, source, job.fingerprint, self._context.tally) as commit:
            with (
                commit.output(f"{DATA}/{commit.name}.parquet") as file,
                PartWriter(file, schema) as part,
                Lanes(self._context) as lanes,
            ):
                maker = _RowMaker(job.coding, self._codec, steps, lanes)
                writer = _RowWriter(maker, part, commit, steps, self._context)
                for batch in self._batches(source, writer, steps):
                    writer.compress(batch)
            report = ShardReport(
                source.url,
                source,
                job.fingerprint,
                images=part.rows,
                skipped=writer.skipped,
                pixels=writer.pixels,
                bytes_in=writer.bytes_in,
                bytes_out=writer.bytes_out,
                seconds=steps.seconds,
            )
            return commit.finish(report)

    def _batches(self, source: ShardSource, writer: _RowWriter, steps: Steps) -> Iterator[list[DecodedSample]]:
        limits = BatchLimits(self._job.batch_size, BATCH_PIXELS[self._context.device], WAITING_PIXELS)
        batches: SizeBatches[DecodedSample] = SizeBatches(limits)
        threads = min(self._context.threads, DECODE_THREADS)
        decode = partial(_decode, decode_image=self._job.image_decoder, steps=steps)
        samples = steps.each("read", self._samples(source, writer))
        for result in map_ahead(samples, decode, _cost, threads, AHEAD_BYTES):
            if isinstance(result, Failure):
                writer.commit.reject(result)
                continue
            height, width, _ = result.image.shape
            yield from batches.add(result, height, width)
        yield from batches.drain()

    def _samples(self, source: ShardSource, writer: _RowWriter) -> Iterator[Sample | Failure]:
        distinct = Distinct()
        storage, name = self._job.inputs.locate(source.address)
        try:
            size, opened = storage.size(name), storage.open(name)
        except FileNotFoundError as error:  # a mount that was lost, say: it may come back, and nothing is wrong with it
            raise TransientError("the shard is not there any more: it was when the inputs were listed") from error
        with opened as file:
            if size != source.size:
                was = f"{source.size} bytes when listed, {size} now"
                raise TransientError(f"the shard changed while the job ran: {was}")
            shard = read_shard(file, source.url)
            for item in shard:
                yield replace(item, key=distinct(item.key)) if isinstance(item, Sample) else item
            writer.skipped = shard.skipped


def _cost(sample: Sample | Failure) -> int:
    if isinstance(sample, Failure):
        return len(sample.data)
    return decoding_cost(sample.image) + PARSED_BYTES * sample.metadata_bytes


def _decode(sample: Sample | Failure, decode_image: ImageDecoder, steps: Steps) -> DecodedSample | Failure:
    if isinstance(sample, Failure):
        return sample
    try:
        with steps("decode"):
            return decode_sample(sample, decode_image)
    except Exception as error:
        return _failure(sample, "decode", error)


def _failure(sample: Sample, stage: str, error: Exception) -> Failure:
    return Failure(sample.key, sample.shard, stage, describe(error), sample.image)


@dataclass(frozen=True)
class _RowMaker:
    """Has the codec make rows of images."""

    coding: Coding
    codec: Codec
    steps: Steps
    lanes: Lanes

    def __call__(self, batch: Sequence[DecodedSample]) -> list[TableRow]:
        return self.lanes.map(self._rows, batch)

    def _rows(self, batch: Sequence[DecodedSample]) -> list[TableRow]:
        images = [decoded.image for decoded in batch]
        with self.steps("tag"):
            tags = self.codec.tag(images) if self.coding.tags == "tagger" else [[]] * len(images)
        names = [[tag.name for tag in image_tags] for image_tags in tags]
        with self.steps("compress"):
            bitstreams = self.codec.compress(images, quality=self.coding.quality, tags=names, effort=self.coding.effort)
        with self.steps("fidelity"):
            fidelities = self._fidelities(batch, bitstreams)
        results = zip(batch, bitstreams, tags, fidelities, strict=True)
        return [archive_row(decoded, self.codec.name, stream, tag, psnr) for decoded, stream, tag, psnr in results]

    def _fidelities(self, batch: Sequence[DecodedSample], bitstreams: Sequence[bytes]) -> list[float | None]:
        """Measured on what the stored stream decodes to; a stream that does not decode fails its image."""
        if self.coding.fidelity == "none":
            return [None] * len(batch)
        previews = self.codec.decompress(bitstreams, mode="preview")
        return [psnr_db(decoded.image, preview) for decoded, preview in zip(batch, previews, strict=True)]


@dataclass
class _RowWriter:
    """Writes batches as rows of one part, and images that fail as rejects; counts the rows."""

    rows_of: _RowMaker
    part: PartWriter
    commit: ShardCommit
    steps: Steps
    context: WorkerContext
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    skipped: int = 0

    def compress(self, batch: Sequence[DecodedSample]) -> None:
        """Writes the batch; where it fails as a whole its images are tried one by one, and the bad ones rejected."""
        try:
            rows = self.rows_of(batch)
        except Exception as error:
            if decide(error) is not Verdict.REJECT:
                raise
            if len(batch) == 1:
                self.context.memory.failed(error, batch[0].pixels)
                self.commit.reject(_failure(batch[0].sample, "compress", error))
                return
        else:
            self.context.memory.enough(max(decoded.pixels for decoded in batch))
            for row in rows:
                self._write(row)
            return
        # Not above: an error's trace holds what the batch had in memory, which may have been too much.
        for decoded in batch:
            self.compress([decoded])

    def _write(self, row: TableRow) -> None:
        with self.steps("write"):
            self.part.write(vars(row))
        self.pixels += row.width * row.height
        self.bytes_in += row.original_bytes
        self.bytes_out += len(row.bitstream)
        self.context.tally.images += 1
