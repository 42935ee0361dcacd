"""Too little memory: an image that is too large is set aside, a device that has none left ends the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.attempts import WorkerContext
from pipeline.compress import Coding, CompressJob
from pipeline.errors import JobError
from pipeline.memory_watch import MOST_IN_A_ROW, MemoryWatch
from pipeline.protocols import Image
from pipeline.records import Drawing, Failure, ShardReport, ShardSource
from pipeline.row_decoder import RowDecoder
from pipeline.storage import Storage, UrlOpener
from tests import corpora
from tests.fakes import FakeCodec, decode_image


class OutOfMemoryError(RuntimeError):
    """Called as torch's own."""


@dataclass
class Crowded(FakeCodec):
    """Has memory for images of fewer pixels than `room`, until `images` of them are done."""

    room: int = 64 * 64 + 1
    images: int = 1000

    def compress(self, images: Sequence[Image], **how: Any) -> list[bytes]:
        self._occupy([image.shape[0] * image.shape[1] for image in images])
        return super().compress(images, **how)

    def size(self, bitstream: bytes) -> tuple[int, int]:
        return 24, 32

    def decompress(self, bitstreams: Sequence[bytes], **how: Any) -> list[Tensor]:
        self._occupy([int(stream) for stream in bitstreams])
        return [torch.zeros(3, 24, 32) for _ in bitstreams]

    def _occupy(self, pixels: Sequence[int]) -> None:
        self.images -= len(pixels)
        if self.images < 0 or max(pixels) >= self.room:
            raise OutOfMemoryError("CUDA out of memory")


class Untaggable(FakeCodec):
    def tag(self, images: Sequence[Image]) -> Any:
        raise OutOfMemoryError("CUDA out of memory")


def compress(codec: FakeCodec, folder: Path, widths: Sequence[int], tags: Any = "tagger") -> ShardReport:
    shard = folder / "shard.tar"
    members = [(f"{number:03}.png", corpora.png(number, 32, width)) for number, width in enumerate(widths)]
    shard.write_bytes(corpora.tar_bytes(members))
    archive = Storage.from_url(str(folder / "archive"))
    coding = Coding(3, fidelity="none", tags=tags)
    made_by = codec.fingerprint, lambda device: codec, decode_image
    job = CompressJob(UrlOpener(), archive, "j" * 16, coding, 4, *made_by)
    return job(WorkerContext()).process(ShardSource(str(shard), shard.stat().st_size, "tag"))


def test_images_that_are_too_large_are_set_aside(tmp_path: Path) -> None:
    widths = [40] * 4 + [200] * 2 * MOST_IN_A_ROW + [40] * 3
    report = compress(Crowded(tmp_path), tmp_path, widths)
    assert (report.images, report.rejects) == (7, 2 * MOST_IN_A_ROW)


@pytest.mark.parametrize("done", [0, 12])
def test_a_device_without_memory_ends_the_job(tmp_path: Path, done: int) -> None:
    codec = Crowded(tmp_path, images=1 + done)  # the first one is the worker's own trial
    with pytest.raises(JobError, match=r"in a row found too little memory.*CUDA out of memory"):
        compress(codec, tmp_path, [40] * (done + MOST_IN_A_ROW))
    report = compress(Crowded(tmp_path, images=1 + done), tmp_path, [40] * (done + MOST_IN_A_ROW - 1))
    assert (report.images, report.rejects) == (done, MOST_IN_A_ROW - 1)


def test_the_largest_image_of_a_batch_counts(tmp_path: Path) -> None:
    """Sizes of one batch differ by less than 64 pixels."""
    codec = Crowded(tmp_path, images=1 + 4)
    with pytest.raises(JobError, match="in a row found too little memory"):
        compress(codec, tmp_path, [40, 60, 40, 60] + [60] * MOST_IN_A_ROW)


def test_a_tagger_that_does_not_load_ends_the_job_before_it_rejects(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError):
        compress(Untaggable(tmp_path), tmp_path, [40])
    assert compress(Untaggable(tmp_path), tmp_path, [40], tags="none").images == 1


def rows(*pixels: int) -> list[dict[str, Any]]:
    size = {"width": 32, "height": 24, "codec": "fake", "key": "a", "shard": "b"}
    return [{**size, "bitstream": str(each).encode()} for each in pixels]


def test_decoding_ends_likewise(tmp_path: Path) -> None:
    decoder = RowDecoder(Crowded(tmp_path), "fake", Drawing("preview"), MemoryWatch())
    for _ in range(MOST_IN_A_ROW - 1):
        (failure,) = decoder(rows(9999))
        assert isinstance(failure, Failure)
    with pytest.raises(JobError, match="found too little memory"):
        decoder(rows(9999))
