"""What tests of the pipeline have in place of networks, of Ray and of a terminal: fast, exact and small."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from pipeline.attempts import Outcome, ShardWorker, Tally, Task, WorkerContext, WorkerFactory, attempt, build
from pipeline.driver import Summary
from pipeline.protocols import Image, Mode

FINGERPRINT = "0123456789abcdef"
"""Of the fake codec; jobs of a test may have it, too, as long as it is one."""


@dataclass(frozen=True)
class FakeTag:
    name: str
    score: float


@dataclass
class FakeCodec:
    """Keeps one mean colour per 8 x 8 block, as zlib bytes with a checksum; tags say what colour dominates."""

    capsule: Path
    device: str = "cpu"
    name: str = "fake"
    fingerprint: str = FINGERPRINT
    calls: list[int] = field(default_factory=list)
    drawn: list[tuple[Mode, int | None, str | None]] = field(default_factory=list)

    def tag(self, images: Sequence[Image]) -> list[list[FakeTag]]:
        names = ("red", "green", "blue")
        return [[FakeTag(names[int(image.mean(axis=(0, 1)).argmax())], 0.9)] for image in images]

    def compress(
        self, images: Sequence[Image], *, quality: int, tags: Sequence[Sequence[str]] | None = None, effort: int = 0
    ) -> list[bytes]:
        if not 1 <= quality <= 6:
            raise ValueError(f"quality {quality} is not in 1..6")
        self.calls.append(len(images))
        return [self._compress_one(image) for image in images]

    def size(self, bitstream: bytes) -> tuple[int, int]:
        if len(bitstream) < 16 or bitstream[:4] != b"FAKE":
            raise ValueError("not a fake bitstream")
        height, width = struct.unpack(">II", bitstream[4:12])
        return height, width

    def decompress(
        self, bitstreams: Sequence[bytes], *, mode: Mode = "full", steps: int | None = None, sampler: str | None = None
    ) -> list[torch.Tensor]:
        self.drawn.append((mode, steps, sampler))
        return [self._decompress_one(bitstream) for bitstream in bitstreams]

    @staticmethod
    def _compress_one(image: Image) -> bytes:
        height, width, _ = image.shape
        padded = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8, 3).mean(axis=(1, 3)).astype(np.uint8)
        payload = zlib.compress(blocks.tobytes())
        return struct.pack(">4sIII", b"FAKE", height, width, zlib.crc32(payload)) + payload

    def _decompress_one(self, bitstream: bytes) -> torch.Tensor:
        height, width = self.size(bitstream)
        (checksum,) = struct.unpack(">I", bitstream[12:16])
        if zlib.crc32(bitstream[16:]) != checksum:
            raise ValueError("fake bitstream is damaged")
        rows, columns = -(-height // 8), -(-width // 8)
        blocks = np.frombuffer(zlib.decompress(bitstream[16:]), np.uint8).reshape(rows, columns, 3)
        pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class FakeCodecFactory:
    """Picklable; the codecs say that `capsule` is their directory, whatever is there."""

    capsule: Path

    def __call__(self, device: str) -> FakeCodec:
        return FakeCodec(capsule=self.capsule, device=device)


def decode_image(data: bytes) -> Image:
    """Any file that Pillow reads, as RGB; raises ValueError for another."""
    try:
        return np.array(PillowImage.open(io.BytesIO(data)).convert("RGB"))
    except OSError as error:
        raise ValueError(f"no image: {error}") from error


class Silence:
    """Progress that shows nothing."""

    def update(self, summary: Summary, under_way: Tally) -> None: ...


class LocalPool:
    """One worker in this process, without Ray, in place of a `RayPool`."""

    def __init__(self, factory: WorkerFactory, context: WorkerContext | None = None) -> None:
        self._factory = factory
        self._context = context or WorkerContext()
        self._worker: ShardWorker | None = None
        self._task: Task | None = None

    @property
    def free(self) -> int:
        return 1 if self._worker is not None and self._task is None else 0

    @property
    def workers(self) -> int:
        return 1

    @property
    def under_way(self) -> Tally:
        return Tally()

    def submit(self, task: Task) -> None:
        self._task = task

    def wait(self, seconds: float) -> list[Outcome]:
        if self._worker is None:
            self._worker = build(self._factory, self._context)
        if self._task is None:
            return []
        task, self._task = self._task, None
        outcome = attempt(self._worker, task)
        if outcome.lost:
            self._worker = None
        return [outcome]

    def close(self) -> None:
        self._worker = None
