import contextlib
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.bitstream import BitstreamInfo, Frame, Header, inspect, pack, unpack
from difficmh.cdf_tables import gaussian_tables
from difficmh.errors import BitstreamError
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.tag_coder import TagPrior, decode_tags, encode_tags

TABLES = gaussian_tables()
PRIOR = TagPrior(("bus", "car", "tree"), np.array([2000, 9000, 8000], np.uint16))
HEADER = Header(1024, 1000, 3, "89abcdef")
INDEXES = np.tile(np.arange(0, 40), 10)
SYMBOLS = np.round(np.random.default_rng(5).normal(size=400) * INDEXES).astype(np.int32)
PICTURE = (("car", "tree"), SYMBOLS.tolist())


def stream() -> bytes:
    encoder = SymbolEncoder()
    encode_tags(["tree", "car"], PRIOR, encoder)
    encoder.push(SYMBOLS, INDEXES, TABLES)
    return pack(HEADER, encoder.finish(), encoder.checksum)


def read(data: bytes) -> tuple[tuple[str, ...], list[int]]:
    """What a codec does with a stream, short of networks."""
    frame = unpack(data, fingerprint="89abcdef01234567")
    decoder = SymbolDecoder(frame.payload)
    found = decode_tags(decoder, PRIOR), decoder.pull(INDEXES, TABLES).tolist()
    if decoder.checksum != frame.symbol_checksum:
        raise BitstreamError("damaged: the checksum of the symbols does not agree")
    return found


def framed(body: bytes, version: int = 1) -> bytes:
    """Any body in a frame whose checksum agrees."""
    start = bytes([0xD1, 0xC3, version])
    return start + zlib.crc32(start + body).to_bytes(4, "little") + body


sizes = st.one_of(st.integers(1, 300), st.integers(1, 16384))
headers = st.builds(
    Header, sizes, sizes, st.integers(1, 15), st.binary(min_size=4, max_size=4).map(lambda data: data.hex())
)


@given(headers, st.binary(max_size=60), st.integers(0, 0xFFFFFF))
@settings(deadline=None)
def test_what_is_packed_comes_back(header: Header, payload: bytes, checksum: int) -> None:
    packed = pack(header, payload, checksum)
    seed = int.from_bytes(packed[3:7], "little")
    assert unpack(packed) == Frame(header, payload, checksum, seed)


def test_bytes_of_a_frame_never_change() -> None:
    packed = pack(Header(200, 16383, 6, "0123abcd"), b"payload", 0xABCDEF)
    assert packed.hex() == "d1c3019be50a830123abcd06c801ff7fefcdab7061796c6f6164"


@pytest.mark.parametrize(
    ("height", "width", "bound"), [(1024, 1024, 19), (1, 1, 17), (127, 128, 18), (8192, 12288, 19)]
)
def test_the_frame_is_small(height: int, width: int, bound: int) -> None:
    assert len(pack(Header(height, width, 1, "00000000"), b"", 0)) == bound


def test_a_stream_gives_tags_and_symbols() -> None:
    assert read(stream()) == PICTURE


@pytest.mark.parametrize("value", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_noticed(value: int) -> None:
    whole = stream()
    for place in range(len(whole)):
        with pytest.raises(BitstreamError):
            read(whole[:place] + bytes([whole[place] ^ value]) + whole[place + 1 :])


def test_every_truncation_is_noticed() -> None:
    whole = stream()
    for length in range(len(whole)):
        with pytest.raises(BitstreamError):
            read(whole[:length])


@given(st.binary(min_size=1, max_size=64))
@settings(max_examples=50, deadline=None)
def test_appended_bytes_are_noticed(more: bytes) -> None:
    with pytest.raises(BitstreamError, match="damaged"):
        read(stream() + more)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_random_bytes_are_no_stream(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        read(data)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bodies_under_a_valid_checksum_are_refused(body: bytes) -> None:
    with pytest.raises(BitstreamError):
        read(framed(body))


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_random_payloads_under_a_valid_frame_are_refused(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        read(pack(HEADER, payload, 0x123456))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_payloads_under_a_valid_frame_are_refused_or_harmless(data: st.DataObject) -> None:
    frame = unpack(stream())
    payload = frame.payload
    place = data.draw(st.integers(0, len(payload) - 1))
    cut = data.draw(st.sampled_from([len(payload), len(payload) - 4, 8]))
    crafted = bytearray(payload[:cut])
    crafted[min(place, cut - 1)] ^= data.draw(st.integers(0, 255))
    with contextlib.suppress(BitstreamError):
        assert read(pack(HEADER, bytes(crafted), frame.symbol_checksum)) == PICTURE


def test_errors_say_what_is_wrong() -> None:
    whole = stream()
    cases = {
        b"": "too short: no bytes",
        b"\xd1": "not a difficmh bitstream",
        whole[:10]: "too short: 10 bytes",
        b"\xff\xd8\xff\xe0" + bytes(100): "not a difficmh bitstream",
        framed(whole[7:], version=2): "version 2 of the format",
        whole[:-1]: "damaged",
        framed(bytes(4) + b"\x23\x01\x01" + bytes(9)): "options this version does not know",
        framed(bytes(4) + b"\x00\x01\x01" + bytes(9)): "quality 0",
        framed(bytes(4) + b"\x03\x00\x01" + bytes(9)): "0 x 1 pixels",
        framed(bytes(4) + b"\x03\x81\x00\x01" + bytes(9)): "shortest form",
        framed(bytes(4) + b"\x03\xff\xff\xff\xff\x7f\x01" + bytes(9)): "too large",
        framed(bytes(4) + b"\x03" + b"\x80" * 9): "too large or not",
        framed(bytes(4) + b"\x03\x80\x80\x80\x80\x80"): "too large or not",
        framed(bytes(4) + b"\x03\x81\x81\x01\x01\x00"): "incomplete",
        framed(bytes(4) + b"\x03\x80\x80\x40\x80\x80\x40" + bytes(11)): "more than the limit of 268435456",
    }
    for data, message in cases.items():
        with pytest.raises(BitstreamError, match=message):
            unpack(data)


def test_another_model_is_named() -> None:
    with pytest.raises(BitstreamError, match="another model: 89abcdef, this one is 00000000"):
        unpack(stream(), fingerprint="00000000aaaaaaaa")


@pytest.mark.parametrize("other", ["89abcdee01234567", "99abcdef01234567", "89abcdee", "89abcde"])
def test_every_digit_of_the_fingerprint_counts(other: str) -> None:
    with pytest.raises(BitstreamError, match=f"another model: 89abcdef, this one is {other[:8]}"):
        unpack(stream(), fingerprint=other)
    for same in ("89abcdef", "89abcdef" + "0" * 8):
        assert unpack(stream(), fingerprint=same).header.fingerprint == "89abcdef"


def test_huge_images_are_refused_unless_wanted() -> None:
    packed = pack(Header(100_000, 10_000, 1, "00000000"), bytes(8), 0)
    with pytest.raises(BitstreamError, match="limit"):
        unpack(packed)
    assert unpack(packed, max_pixels=2 * 10**9).header.height == 100_000


@pytest.mark.parametrize("size", [(1, 1 << 28), (1 << 28, 1), (1, (1 << 22) + 1)])
def test_images_that_padding_makes_huge_are_refused(size: tuple[int, int]) -> None:
    # 64 rows are decoded for one that is shown.
    with pytest.raises(BitstreamError, match="when padded"):
        unpack(pack(Header(*size, 1, "00000000"), bytes(8), 0))


def test_a_short_stream_for_a_huge_image_ends_before_its_symbols_are_read() -> None:
    frame = unpack(pack(Header(16384, 16384, 1, "00000000"), b"\x55" * 4 * 30, 0))
    decoder = SymbolDecoder(frame.payload)
    with pytest.raises(BitstreamError, match="end too early"):
        decoder.pull(np.full(16384 * 1024, 12, np.uint8), TABLES)


@pytest.mark.parametrize(
    ("height", "width", "quality", "fingerprint"),
    [(0, 1, 1, "0" * 8), (1, 1 << 32, 1, "0" * 8), (1, 1, 0, "0" * 8), (1, 1, 16, "0" * 8), (1, 1, 1, "0" * 16)],
)
def test_headers_hold_only_what_can_be_written(height: int, width: int, quality: int, fingerprint: str) -> None:
    with pytest.raises(ValueError, match=r"image|quality|fingerprint"):
        Header(height, width, quality, fingerprint)


def test_inspection_without_a_vocabulary() -> None:
    data = stream()
    assert inspect(data) == BitstreamInfo(1, 1024, 1000, 3, "89abcdef", None, len(data), 8 * len(data) / 1_024_000)
    assert inspect(data, lambda fingerprint: None).tags is None


def test_inspection_reads_the_tags_of_a_known_model() -> None:
    assert inspect(stream(), {"89abcdef": PRIOR}.get).tags == ("car", "tree")


def test_inspection_of_damage_is_an_error() -> None:
    with pytest.raises(BitstreamError, match="damaged"):
        inspect(stream()[:-4], {"89abcdef": PRIOR}.get)


# --- decoding options


GUIDED = Header(200, 16383, 6, "0123abcd", 4.2)


def test_bytes_of_a_frame_with_options_never_change() -> None:
    packed = pack(GUIDED, b"payload", 0xABCDEF)
    body = bytes.fromhex("0123abcd16c801ff7fa401efcdab7061796c6f6164")
    assert packed == framed(body)


@given(headers, st.integers(0, 10_000), st.binary(max_size=60), st.integers(0, 0xFFFFFF))
@settings(deadline=None)
def test_options_come_back(header: Header, hundredths: int, payload: bytes, checksum: int) -> None:
    guided = replace(header, guidance=hundredths / 100)
    packed = pack(guided, payload, checksum)
    frame = unpack(packed)
    assert (frame.header, frame.payload, frame.symbol_checksum) == (guided, payload, checksum)
    assert len(packed) == len(pack(header, payload, checksum)) + 2


def test_every_value_of_every_byte_of_the_options() -> None:
    """Under a checksum that agrees: a scale up to 100 is read as it stands, any other is refused."""
    start = bytes.fromhex("0123abcd16c801ff7f")
    for low in range(256):
        for high in range(256):
            hundredths = low + 256 * high
            if high not in (0, 1, 38, 39, 40, 255) and low not in (0, 16, 255):
                continue
            data = framed(start + bytes([low, high]) + bytes(3) + bytes(8))
            if hundredths <= 10_000:
                assert unpack(data).header.guidance == hundredths / 100
            else:
                with pytest.raises(BitstreamError, match="guidance"):
                    unpack(data)


@pytest.mark.parametrize("flags", range(2, 16))
def test_flags_that_nothing_has_defined(flags: int) -> None:
    body = bytearray(pack(GUIDED, bytes(8), 0)[7:])
    body[4] = flags << 4 | 6
    with pytest.raises(BitstreamError, match="options this version does not know"):
        unpack(framed(bytes(body)))


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5])
def test_options_that_are_cut(missing: int) -> None:
    whole = pack(Header(1 << 14, 1 << 13, 6, "0123abcd", 4.2), b"", 0)[7:]
    with pytest.raises(BitstreamError, match="too short"):
        unpack(framed(whole[:-missing]))


@pytest.mark.parametrize("scale", [-0.01, 100.01, 4.205, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_written(scale: float) -> None:
    with pytest.raises(ValueError, match="guidance"):
        Header(1, 1, 1, "0" * 8, scale)


@pytest.mark.parametrize("scale", [True, "5", [5.0]])
def test_a_scale_that_is_no_number(scale: Any) -> None:
    with pytest.raises(ValueError, match="guidance must be a number, not "):
        Header(1, 1, 1, "0" * 8, scale)


def test_inspection_tells_the_guidance() -> None:
    assert inspect(pack(GUIDED, bytes(8), 0)).guidance == 4.2
