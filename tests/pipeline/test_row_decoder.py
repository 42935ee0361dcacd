"""Rows to images: which are decoded together, what is told of memory, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import row_decoder
from pipeline.archive import Archive
from pipeline.attempts import Tally, WorkerContext
from pipeline.errors import JobError, TransientError
from pipeline.memory_watch import MemoryWatch
from pipeline.protocols import Mode
from pipeline.records import Drawing, Failure, ShardReport, ShardSource
from pipeline.row_decoder import Counts, Decoded, RowDecoder, decode_rows
from pipeline.steps import Steps
from tests.corpora import picture
from tests.fakes import FakeCodec
from tests.pipeline.archives import fake_codec, row, write_archive

AREA = 24 * 32
PREVIEW = Drawing("preview")


@dataclass
class Recording(FakeCodec):
    """Notes how many are decoded at once, and finds too little memory for more than `most`."""

    most: int = 100
    batches: list[int] = field(default_factory=list)

    def decompress(self, bitstreams: Sequence[bytes], *, mode: Mode = "full", **how: Any) -> list[torch.Tensor]:
        self.batches.append(len(bitstreams))
        if len(bitstreams) > self.most:
            raise MemoryError("too many at once")
        return super().decompress(bitstreams, mode=mode, **how)


def rows(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    made = []
    for number, (height, width) in enumerate(sizes):
        (stream,) = FakeCodec(capsule=Path()).compress([picture(number, height, width)], quality=3)
        made.append(vars(row(str(number), bitstream=stream, width=width, height=height)))
    return made


def decoder(codec: FakeCodec, memory: MemoryWatch | None = None) -> RowDecoder:
    return RowDecoder(codec, "fake", PREVIEW, memory or MemoryWatch())


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([(24, 32)] * 4, [2, 2]),
        ([(24, 32)] * 3 + [(25, 32)], [2, 1, 1]),
        ([(48, 64), (24, 32), (24, 32), (48, 64)], [1, 2, 1]),
        ([], []),
    ],
)
def test_a_batch_holds_as_many_pixels_as_it_may(
    sizes: list[tuple[int, int]], batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_decoder, "BATCH_PIXELS", {"cpu": 2 * AREA})
    codec = Recording(Path())
    decoded = list(decode_rows(rows(*sizes), decoder(codec), WorkerContext(), Steps()))
    assert [len(batch) for batch in decoded] == codec.batches == batches
    shapes = [tuple(item.image.shape[1:]) for batch in decoded for item in batch if isinstance(item, Decoded)]
    assert shapes == sizes


@pytest.mark.parametrize("most", [100, 1])
def test_the_largest_image_that_was_decoded_is_remembered(most: int) -> None:
    memory = MemoryWatch(in_a_row=3)
    decoded = decoder(Recording(Path(), most=most), memory)(rows((24, 32), (48, 64), (8, 8)))
    assert all(isinstance(item, Decoded) for item in decoded)
    assert memory == MemoryWatch(largest=48 * 64, in_a_row=0)


def test_what_is_no_fault_of_the_rows_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, errors = Recording(Path()), [TransientError("the store is away")]
    real = RowDecoder._images
    monkeypatch.setattr(RowDecoder, "_images", lambda self, rows: real(self, rows) if not errors else raised(errors))
    with pytest.raises(TransientError):
        decoder(codec)(rows((24, 32), (24, 32)))
    assert codec.batches == []


def raised(errors: list[TransientError]) -> list[torch.Tensor]:
    raise errors.pop()


def test_images_that_fail_one_by_one_count_against_the_device() -> None:
    memory = MemoryWatch(in_a_row=18)
    full = decoder(Recording(Path(), most=0), memory)
    (failed,) = full(rows((24, 32)))
    assert isinstance(failed, Failure)
    with pytest.raises(JobError, match="too little memory"):
        full(rows((24, 32)))


def test_a_stream_of_another_shape_than_its_row_says_is_set_aside() -> None:
    (wrong, right) = rows((24, 32), (24, 32))
    wrong.update(width=24, height=32)
    failed, decoded = decoder(FakeCodec(Path()))([wrong, right])
    assert isinstance(decoded, Decoded)
    assert isinstance(failed, Failure)
    assert failed.error == "its stream is of 32 x 24 pixels, the table says 24 x 32"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_archive_s_codec_is_made_on_the_device_of_the_worker(tmp_path: Path, device: str) -> None:
    storage = write_archive(tmp_path / "archive", [row("a")])
    archive = Archive.open(storage.url, codec_factory=fake_codec, cache=tmp_path / "cache")
    context = WorkerContext(device)
    made = RowDecoder.of(archive, PREVIEW, context)
    assert isinstance(made.codec, FakeCodec)
    assert (made.codec.device, made.name, made.memory is context.memory) == (device, "fake", True)


def test_what_was_neither_decoded_nor_set_aside_was_skipped() -> None:
    counts = Counts(Tally())
    for each in rows((24, 32), (8, 8)):
        counts.image(each, bytes_out=100)
    source = ShardSource("data/a.parquet", 1, "")
    report = counts.fill(ShardReport("a", source, "f", rejects=3), rows=10, rejects=3)
    streams = sum(len(each["bitstream"]) for each in rows((24, 32), (8, 8)))
    assert (report.images, report.skipped, report.pixels) == (2, 5, AREA + 64)
    assert (report.bytes_in, report.bytes_out, counts.tally.images) == (streams, 200, 2)
