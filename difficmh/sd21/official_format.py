"""Files of the official implementation of Diff-ICMH: their frame, read and written without any network.

All integers are big-endian, 32 bits. There is no magic number, no version and no checksum:

    z height, z width     the padded image's sides / 64
    2                     number of strings
    length, y string
    length, z string
    then, only where the tagger was on:
    number of tags n
    13                    bits per tag
    length                of what follows, ceil(13 n / 8)
    ids                   13 bits each, most significant bit first, padded with zero bits

The official reader believes every length it finds and takes a missing or empty tag section for an error; this one
checks each field against the bytes that are there. No job writes such files yet (`write_official`, `pack_tags`).
Source: Diff-ICMH, official implementation (arXiv 2511.22549).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from difficmh.bitstream import MAX_PADDED_PIXELS
from difficmh.errors import BitstreamError
from difficmh.tiling import Z_STRIDE

STRINGS = 2
TAG_BITS = 13
SHORTEST_STRING = 8
"""Bytes of a string without symbols: the state of the coder, in words of 4."""


@dataclass(frozen=True)
class OfficialStream:
    """Contents of a file: size of z (padded image sides / 64), coded y and z, and the tag ids.

    `tags` is None where there is no tag section, and empty where the tagger found nothing; otherwise ids ascend, below
    2**13. The size of the original image is not in the file. Raises ValueError for contents that no file can have.
    """

    z_height: int
    z_width: int
    y_string: bytes
    z_string: bytes
    tags: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        pixels = self.z_height * self.z_width * Z_STRIDE**2
        if self.z_height < 1 or self.z_width < 1 or pixels > MAX_PADDED_PIXELS:
            raise ValueError(f"no image has a hyperprior of {self.z_height} x {self.z_width}")
        for name, string in (("y", self.y_string), ("z", self.z_string)):
            if len(string) < SHORTEST_STRING or len(string) % 4:
                raise ValueError(f"the {name} string has {len(string)} bytes: too few or not whole words")
        if self.tags is not None:
            _check_tags(self.tags)

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the padded image, in pixels."""
        return self.z_height * Z_STRIDE, self.z_width * Z_STRIDE


def read_official(data: bytes) -> OfficialStream:
    """The contents of an official file. Raises BitstreamError that says what is wrong for bytes that are none."""
    reader = _Reader(data)
    height, width, strings = reader.number("z height"), reader.number("z width"), reader.number("number of strings")
    if strings != STRINGS:
        raise BitstreamError(f"no official stream: {strings} strings, there must be {STRINGS}")
    y_string = reader.bytes(reader.number("length of y"), "y string")
    z_string = reader.bytes(reader.number("length of z"), "z string")
    tags = _read_tags(reader) if reader.left else None
    try:
        return OfficialStream(height, width, y_string, z_string, tags)
    except ValueError as error:
        raise BitstreamError(f"no official stream: {error}") from error


def write_official(stream: OfficialStream) -> bytes:
    """The file of these contents, as the official writer makes it."""
    parts = [struct.pack(">3I", stream.z_height, stream.z_width, STRINGS)]
    for string in (stream.y_string, stream.z_string):
        parts += [struct.pack(">I", len(string)), string]
    if stream.tags is not None:
        packed = pack_tags(stream.tags)
        parts += [struct.pack(">3I", len(stream.tags), TAG_BITS, len(packed)), packed]
    return b"".join(parts)


def pack_tags(tags: Sequence[int]) -> bytes:
    """Ids of 13 bits each, most significant bit first, padded with zero bits to whole bytes.

    Raises ValueError for ids that do not ascend or need more bits.
    """
    _check_tags(tags)
    bits = 0
    for tag in tags:
        bits = bits << TAG_BITS | tag
    length = _packed_length(len(tags))
    return (bits << 8 * length - TAG_BITS * len(tags)).to_bytes(length, "big")


def unpack_tags(packed: bytes, count: int) -> tuple[int, ...]:
    """Inverse of `pack_tags`. Raises BitstreamError for bytes that are not `count` ascending ids."""
    if len(packed) != _packed_length(count):
        raise BitstreamError(f"damaged: {count} tags do not take {len(packed)} bytes")
    bits = int.from_bytes(packed, "big")
    padding = 8 * len(packed) - TAG_BITS * count
    if bits & (1 << padding) - 1:
        raise BitstreamError("damaged: bits after the last tag")
    bits >>= padding
    tags = tuple(bits >> TAG_BITS * place & (1 << TAG_BITS) - 1 for place in reversed(range(count)))
    try:
        _check_tags(tags)
    except ValueError as error:
        raise BitstreamError(f"damaged: {error}") from error
    return tags


def _read_tags(reader: _Reader) -> tuple[int, ...]:
    count, bits = reader.number("number of tags"), reader.number("bits per tag")
    length = reader.number("length of the tags")
    if bits != TAG_BITS or count >= 1 << TAG_BITS:
        raise BitstreamError(f"damaged: {count} tags of {bits} bits, there may be {1 << TAG_BITS} of {TAG_BITS}")
    tags = unpack_tags(reader.bytes(length, "tags"), count)
    if reader.left:
        raise BitstreamError(f"damaged: {reader.left} bytes after the end")
    return tags


def _check_tags(tags: Sequence[int]) -> None:
    if any(not 0 <= tag < 1 << TAG_BITS for tag in tags) or any(a >= b for a, b in pairwise(tags)):
        raise ValueError(f"tag ids must ascend and lie below {1 << TAG_BITS}")


def _packed_length(count: int) -> int:
    return (TAG_BITS * count + 7) // 8


class _Reader:
    """Takes fields from the front of the bytes, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def bytes(self, length: int, what: str) -> bytes:
        if length > self.left:
            raise BitstreamError(f"too short: {what} needs {length} bytes, {self.left} are left")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, what: str) -> int:
        return int.from_bytes(self.bytes(4, what), "big")
