"""Bitstream v1: the frame around one image's coded symbols, byte by byte as `docs/bitstream.md` says.

No networks here: what this module reads, it reads from any stream, of any model.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from difficmh.errors import BitstreamError
from difficmh.range_coder import SymbolDecoder
from difficmh.tag_coder import TagPrior, decode_tags
from difficmh.tiling import padded_size

MAGIC = b"\xd1\xc3"
VERSION = 1
MAX_PADDED_PIXELS = 1 << 28
"""Largest image that is read, in pixels of its padded size: that is what decoding takes memory and time for."""

MAX_QUALITY = 15
SIZE_LIMIT = 1 << 32
FINGERPRINT_DIGITS = 8
"""How much of a capsule's fingerprint a stream carries: the first 4 of its bytes, 8 hexadecimal digits."""

GUIDANCE_UNITS = 100
MAX_GUIDANCE = 100
"""Guidance scales are stored in hundredths, up to this scale."""

_CRC_AT = len(MAGIC) + 1
_BODY_AT = _CRC_AT + 4
_OPTIONS_FLAG = 1
_OPTIONS_BYTES = 2
_SHORTEST = _BODY_AT + 4 + 1 + 1 + 1 + 3
_MAX_VARINT_BYTES = 5

Bytes = bytes | bytearray | memoryview
"""What a stream is read from, whatever gave its bytes."""


@dataclass(frozen=True)
class Header:
    """What a stream says about itself.

    `height` and `width` of the original image in pixels, below 2**32, `quality` in 1..15, `fingerprint` the first 8
    hexadecimal digits of the model's. `guidance`, in whole hundredths from 0 to 100, is the scale of classifier-free
    guidance that the picture is meant for; None leaves it to the model. Raises ValueError for other values.
    """

    height: int
    width: int
    quality: int
    fingerprint: str
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.height < SIZE_LIMIT or not 1 <= self.width < SIZE_LIMIT:
            raise ValueError(f"no image has {self.height} x {self.width} pixels")
        if not 1 <= self.quality <= MAX_QUALITY:
            raise ValueError(f"quality {self.quality} is not in 1..{MAX_QUALITY}")
        if not re.fullmatch(f"[0-9a-f]{{{FINGERPRINT_DIGITS}}}", self.fingerprint):
            raise ValueError(
                f"fingerprint {self.fingerprint!r} is not {FINGERPRINT_DIGITS} lower-case hexadecimal digits"
            )
        if self.guidance is not None:
            check_guidance(self.guidance)


@dataclass(frozen=True)
class BitstreamInfo:
    """What can be said of a stream without its model.

    `tags` is None where the vocabulary of the model is not at hand; `bytes` counts the whole stream, `bits_per_pixel`
    is over the pixels of the original image. `guidance` is None where the stream leaves it to its model.
    """

    version: int
    height: int
    width: int
    quality: int
    fingerprint: str
    tags: tuple[str, ...] | None
    bytes: int
    bits_per_pixel: float
    guidance: float | None = None


@dataclass(frozen=True)
class Frame:
    """What a stream's bytes are made of: `payload` for `SymbolDecoder`, and the checksum of its symbols, 24 bits.

    `seed`, 32 bits, is the checksum of all bytes, from which decoders make the noise of the picture.
    """

    header: Header
    payload: bytes
    symbol_checksum: int
    seed: int


def check_guidance(scale: float) -> None:
    """Raises ValueError for a guidance scale that no stream can carry, and for what is no number."""
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise ValueError(f"guidance must be a number, not {scale!r}")
    if not (0 <= scale <= MAX_GUIDANCE and scale == round(scale * GUIDANCE_UNITS) / GUIDANCE_UNITS):
        raise ValueError(f"guidance {scale} is not in 0..{MAX_GUIDANCE} with two decimals")


def pack(header: Header, payload: bytes, symbol_checksum: int) -> bytes:
    """The whole stream: `payload` from `SymbolEncoder.finish`, `symbol_checksum` (24 bits) from the same encoder."""
    body = b"".join(
        (
            bytes.fromhex(header.fingerprint),
            bytes([(0 if header.guidance is None else _OPTIONS_FLAG) << 4 | header.quality]),
            _varint(header.height),
            _varint(header.width),
            _options(header),
            symbol_checksum.to_bytes(3, "little"),
            payload,
        )
    )
    start = MAGIC + bytes([VERSION])
    return start + zlib.crc32(body, zlib.crc32(start)).to_bytes(4, "little") + body


def unpack(data: Bytes, *, fingerprint: str | None = None, max_pixels: int = MAX_PADDED_PIXELS) -> Frame:
    """The parts of a stream; nothing is believed before the checksum of all bytes agrees.

    `fingerprint` is that of the model about to decode, 8 digits or more. Raises BitstreamError for bytes that are no
    intact stream of a known version, of this model and of a padded size up to `max_pixels`, and for what is no bytes.
    """
    data = _as_bytes(data)
    _check_frame(data)
    flags, quality = divmod(data[_BODY_AT + 4], 1 << 4)
    if flags & ~_OPTIONS_FLAG:
        raise BitstreamError(f"made with options this version does not know (flags {flags})")
    height, at = _read_varint(data, _BODY_AT + 5)
    width, at = _read_varint(data, at)
    if height == 0 or width == 0 or quality == 0:
        raise BitstreamError(f"the header makes no sense: {height} x {width} pixels, quality {quality}")
    rows, columns = padded_size(height, width)
    if rows * columns > max_pixels:
        raise BitstreamError(f"{height} x {width} pixels are more than the limit of {max_pixels} when padded")
    guidance, at = _read_options(data, at) if flags & _OPTIONS_FLAG else (None, at)
    if at + 3 > len(data):
        raise BitstreamError("too short: the header is incomplete")
    header = Header(height, width, quality, data[_BODY_AT : _BODY_AT + 4].hex(), guidance)
    if fingerprint is not None and header.fingerprint != fingerprint[:FINGERPRINT_DIGITS]:
        made, here = header.fingerprint, fingerprint[:FINGERPRINT_DIGITS]
        raise BitstreamError(f"made with another model: {made}, this one is {here}")
    return Frame(header, data[at + 3 :], int.from_bytes(data[at : at + 3], "little"), _stored_crc(data))


def inspect(data: Bytes, priors: Callable[[str], TagPrior | None] | None = None) -> BitstreamInfo:
    """What a stream says without its model.

    `priors` maps the 8 digits of a fingerprint to the vocabulary of that model, or to None where it is not known.
    Raises BitstreamError as `unpack` does.
    """
    data = _as_bytes(data)
    frame = unpack(data)
    header = frame.header
    prior = priors(header.fingerprint) if priors else None
    return BitstreamInfo(
        version=VERSION,
        height=header.height,
        width=header.width,
        quality=header.quality,
        fingerprint=header.fingerprint,
        tags=None if prior is None else decode_tags(SymbolDecoder(frame.payload), prior),
        bytes=len(data),
        bits_per_pixel=8 * len(data) / (header.height * header.width),
        guidance=header.guidance,
    )


def _as_bytes(data: Bytes) -> bytes:
    if isinstance(data, Bytes):
        return bytes(data)  # no copy where they are bytes already
    raise BitstreamError(f"a bitstream is bytes, not {type(data).__name__}")


def _check_frame(data: bytes) -> None:
    if not data.startswith(MAGIC):
        raise BitstreamError("not a difficmh bitstream" if data else "too short: no bytes at all")
    if len(data) < _SHORTEST:
        raise BitstreamError(f"too short: {len(data)} bytes are not even a header")
    if data[len(MAGIC)] != VERSION:
        raise BitstreamError(f"version {data[len(MAGIC)]} of the format; this reader knows version {VERSION} only")
    if _stored_crc(data) != zlib.crc32(memoryview(data)[_BODY_AT:], zlib.crc32(data[:_CRC_AT])):
        raise BitstreamError("damaged: the checksum of the bytes does not agree")


def _stored_crc(data: bytes) -> int:
    return int.from_bytes(data[_CRC_AT:_BODY_AT], "little")


def _options(header: Header) -> bytes:
    """The block of decoding options, empty where all are the model's own."""
    if header.guidance is None:
        return b""
    return round(header.guidance * GUIDANCE_UNITS).to_bytes(_OPTIONS_BYTES, "little")


def _read_options(data: bytes, at: int) -> tuple[float, int]:
    """The guidance scale and the place after the block."""
    end = at + _OPTIONS_BYTES
    if end > len(data):
        raise BitstreamError("too short: the decoding options are incomplete")
    scale = int.from_bytes(data[at:end], "little") / GUIDANCE_UNITS
    if scale > MAX_GUIDANCE:
        raise BitstreamError(f"the header makes no sense: a guidance scale of {scale}")
    return scale, end


def _varint(number: int) -> bytes:
    groups = []
    while number >= 1 << 7:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number and the place after it; only the shortest form of a number is valid."""
    number = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if (byte == 0 and place) or number >= SIZE_LIMIT:
                break
            return number, at + place + 1
    raise BitstreamError("the header makes no sense: an image size is too large or not in its shortest form")
