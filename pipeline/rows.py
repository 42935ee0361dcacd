"""One image and its bitstream to one row of the archive."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metadata import CaptureMetadata, capture_metadata
from pipeline.protocols import Image, ImageDecoder, TagScore
from pipeline.records import Sample
from pipeline.table import TableRow

if TYPE_CHECKING:
    from torch import Tensor

PSNR_CEILING = 100.0
"""In dB: stands for a reconstruction without any error, whose PSNR is infinite."""
ROWS_AT_ONCE = 256

_ESCAPED_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


@dataclass(frozen=True)
class DecodedSample:
    """A sample, its `(H, W, 3)` uint8 pixels, the SHA-256 of its bytes, and what its EXIF and JSON say of the shot."""

    sample: Sample
    image: Image
    sha256: str
    capture: CaptureMetadata

    @property
    def pixels(self) -> int:
        return self.image.shape[0] * self.image.shape[1]


def decode_sample(sample: Sample, decode_image: ImageDecoder) -> DecodedSample:
    """Raises ValueError where the bytes are no image."""
    image = decode_image(sample.image)
    digest = hashlib.sha256(sample.image).hexdigest()
    return DecodedSample(sample, image, digest, capture_metadata(sample.image, sample.metadata))


def archive_row(
    decoded: DecodedSample, codec: str, bitstream: bytes, tags: Sequence[TagScore], psnr_db: float | None
) -> TableRow:
    """The row of one image; text that is not valid Unicode is escaped, so that any key can be stored."""
    sample, capture = decoded.sample, decoded.capture
    height, width, _ = decoded.image.shape
    return TableRow(
        key=plain_text(sample.key),
        image_name=plain_text(sample.image_name),
        shard=plain_text(sample.shard),
        bitstream=bitstream,
        codec=codec,
        width=width,
        height=height,
        original_bytes=len(sample.image),
        original_sha256=decoded.sha256,
        bits_per_pixel=8 * len(bitstream) / (width * height),
        tags=[tag.name for tag in tags],
        tag_scores=[tag.score for tag in tags],
        psnr_db=psnr_db,
        captured_at=capture.captured_at,
        camera=None if capture.camera is None else plain_text(capture.camera),
        latitude=capture.latitude,
        longitude=capture.longitude,
        metadata=strict_json(sample.metadata),
    )


def plain_text(text: str) -> str:
    """`text` with what UTF-8 cannot hold (undecodable bytes of a tar's names) written as `\\udc..`."""
    return text.encode("utf-8", "backslashreplace").decode()


def path_of_text(text: str) -> str:
    """The local path that `plain_text` made `text` of, as Python spells it: undecodable bytes as surrogates."""
    return _ESCAPED_BYTE.sub(lambda match: chr(int(match[1], 16)), text)


def strict_json(metadata: Mapping[str, Any]) -> str:
    """Strict JSON, keys sorted; NaN and infinities, which Python reads but JSON has not, become null."""
    try:
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(metadata), sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def psnr_db(original: Image, reconstruction: Tensor) -> float:
    """PSNR in dB of `(3, H, W)` float in [0, 1], rounded to 8 bits, against `(H, W, 3)` uint8; at most PSNR_CEILING.

    Raises ValueError where the sizes differ.
    """
    channels, height, width = reconstruction.shape
    if (height, width, channels) != original.shape:
        raise ValueError(
            f"the reconstruction is {width} x {height}, the original {original.shape[1]} x {original.shape[0]}"
        )
    squares = 0
    for top in range(0, height, ROWS_AT_ONCE):  # in strips: a whole camera image in float would take hundreds of MB
        strip = reconstruction[:, top : top + ROWS_AT_ONCE].cpu().numpy()
        pixels = np.clip(np.rint(strip * 255), 0, 255).astype(np.int32)
        difference = pixels.transpose(1, 2, 0) - original[top : top + ROWS_AT_ONCE]
        squares += int(np.square(difference).sum(dtype=np.int64))
    if squares == 0:
        return PSNR_CEILING
    return min(PSNR_CEILING, 10 * math.log10(255**2 * original.size / squares))
