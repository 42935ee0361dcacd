"""What `difficmh` does with files of the official implementation, which have neither magic number nor model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from difficmh.bitstream import MAGIC, BitstreamInfo
from difficmh.errors import BitstreamError, CapsuleError
from difficmh.sd21.official_format import read_official

if TYPE_CHECKING:
    from torch import Tensor

    from difficmh.codec import Codec


@dataclass(frozen=True)
class OfficialInfo:
    """What an official file says without its model. Sizes are those of the padded image; `tags` are numbers, None where
    the file has no tag section."""

    format: str
    height: int
    width: int
    y_bytes: int
    z_bytes: int
    tags: tuple[int, ...] | None
    bytes: int
    bits_per_padded_pixel: float


def describe_official(data: bytes) -> OfficialInfo | None:
    """What an official file says; None for bytes that are none."""
    if data.startswith(MAGIC):
        return None
    try:
        stream = read_official(data)
    except BitstreamError:
        return None
    height, width = stream.padded_size
    bits = 8 * len(data) / (height * width)
    return OfficialInfo(
        "official", height, width, len(stream.y_string), len(stream.z_string), stream.tags, len(data), bits
    )


def official_lines(name: str, info: OfficialInfo) -> str:
    """The description for people, two lines."""
    tags = "no tag section" if info.tags is None else f"tag numbers: {', '.join(map(str, info.tags)) or 'none'}"
    rate = f"{info.bytes:,} bytes, {info.bits_per_padded_pixel:.3f} bit/padded pixel"
    return (
        f"{name}: official Diff-ICMH file, {info.width} x {info.height} with padding, {rate}, {tags}\n"
        f"  latent {info.y_bytes:,} bytes, hyperprior {info.z_bytes:,} bytes; the model is not named in the file"
    )


def decompress_official(codec: Codec, data: bytes, **how: Any) -> tuple[BitstreamInfo, Tensor]:
    """What the file says, and its picture with the padding; `how` as for `Codec.draw`.

    Raises BitstreamError and CapsuleError as `decode_official` does, ValueError as `Codec.draw`.
    """
    try:
        from difficmh.sd21.official_decoding import decode_official
    except ModuleNotFoundError as error:
        raise CapsuleError(
            f"official files need the package {error.name}: pip install '.[sd21]' in the project's folder"
        ) from error
    stream = decode_official(codec, data)
    (picture,) = codec.draw([stream], **how)
    header = stream.header
    bits = 8 * len(data) / (header.height * header.width)
    described = BitstreamInfo(
        0, header.height, header.width, header.quality, header.fingerprint, stream.tags, len(data), bits
    )
    return described, picture
