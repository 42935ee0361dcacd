"""Files of the official implementation through our codec: read as they are written, drawn as our own streams are.

What the file does not say is chosen here: the picture keeps its padding, the noise follows from the file's bytes, and
guidance is the model's.
"""

from __future__ import annotations

import zlib

from difficmh.bitstream import FINGERPRINT_DIGITS, Header
from difficmh.codec import Codec, DecodedStream
from difficmh.errors import BitstreamError, CapsuleError
from difficmh.sd21.networks import Sd21Networks
from difficmh.sd21.official_coding import OfficialStrings, decode_strings
from difficmh.sd21.official_format import OfficialStream, read_official
from difficmh.sd21.tables import load_official_tables
from difficmh.surroundings import in_plain_precision


@in_plain_precision
def decode_official(codec: Codec, data: bytes) -> DecodedStream:
    """What an official file says, for `Codec.draw`; a file without tag section has no tags.

    Raises BitstreamError for bytes that are no official file or were not made by this model, as far as the coder can
    tell; CapsuleError where the codec is of another family, or its capsule has no tables for such files.
    """
    networks = codec.networks
    if not isinstance(networks, Sd21Networks):
        raise CapsuleError(f"{codec.name} is no model of the official implementation, whose files it cannot read")
    stream = read_official(data)
    tags = _names(stream, networks)
    strings = OfficialStrings(stream.y_string, (stream.z_string,))
    tables = load_official_tables(codec.capsule)
    (latents,) = decode_strings(networks.lfgcm, tables, strings, (stream.z_height, stream.z_width)).each()
    return DecodedStream(
        header=Header(*stream.padded_size, networks.default_quality, codec.fingerprint[:FINGERPRINT_DIGITS]),
        tags=tags,
        latents=latents,
        seed=zlib.crc32(data),
    )


def _names(stream: OfficialStream, networks: Sd21Networks) -> tuple[str, ...]:
    known = networks.tags.names
    numbers = stream.tags or ()
    if numbers and numbers[-1] >= len(known):
        raise BitstreamError(f"tag number {numbers[-1]} is none of this model's {len(known)}")
    return tuple(sorted(known[number] for number in numbers))
