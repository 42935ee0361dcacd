"""What `lite` gets wrong, as a picture for its model card: `python -m demo.failures docs/images/failures.jpg`.

Crops of photographs in the public domain, at rates where meaning is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import difficmh
from demo.photographs import PHOTOGRAPHS
from demo.sheet import sheet
from difficmh.codec import Codec
from difficmh.images import decode_image, to_pixels
from difficmh.limits import Mode
from pipeline.protocols import Image

SIDE, CAPTION = 288, 15


@dataclass(frozen=True)
class Failure:
    """A square of `side` pixels in a photograph of the demo, compressed at `quality`; what to look at there."""

    key: str
    left: int
    top: int
    side: int
    quality: int
    what: str


FAILURES = (
    Failure("astronaut", 160, 56, 128, 1, "a face"),
    Failure("astronaut", 125, 338, 96, 3, "lettering"),
    Failure("hubble", 420, 300, 144, 1, "dots and small shapes"),
)


def main(target: Path) -> None:
    codec = difficmh.load("lite")
    rows = [list(_cells(codec, failure)) for failure in FAILURES]
    sheet(rows, (SIDE, SIDE), CAPTION).save(target, "JPEG", quality=88)


def _cells(codec: Codec, failure: Failure) -> Iterator[tuple[Image, str]]:
    """Original, preview and full of the crop, with captions; the whole photograph is compressed."""
    photograph = next(one for one in PHOTOGRAPHS if one.key == failure.key)
    original = decode_image(photograph.read())
    (stream,) = codec.compress([original], quality=failure.quality)
    rate = difficmh.inspect(stream).bits_per_pixel
    rows = slice(failure.top, failure.top + failure.side)
    columns = slice(failure.left, failure.left + failure.side)
    yield original[rows, columns], f"{failure.what}: original"
    captions: dict[Mode, str] = {"preview": f"preview, {rate:.3f} bits per pixel", "full": "full, a reconstruction"}
    for mode, caption in captions.items():
        (decoded,) = codec.decompress([stream], mode=mode)
        yield to_pixels(decoded)[rows, columns], caption


if __name__ == "__main__":
    main(Path(sys.argv[1]))
