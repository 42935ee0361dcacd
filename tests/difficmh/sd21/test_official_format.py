"""Official files without networks: what is written is read, and every damage is named."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.errors import BitstreamError
from difficmh.sd21.official_format import OfficialStream, pack_tags, read_official, unpack_tags, write_official

tag_sets = st.none() | st.sets(st.integers(0, (1 << 13) - 1), max_size=40).map(lambda found: tuple(sorted(found)))
strings = st.integers(2, 30).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
STREAM = OfficialStream(2, 3, bytes(range(16)), bytes(8), (1, 17, 1034))


@given(st.integers(1, 100), st.integers(1, 100), strings, strings, tag_sets)
@settings(max_examples=80, deadline=None)
def test_what_is_written_is_read(height: int, width: int, y: bytes, z: bytes, tags: tuple[int, ...] | None) -> None:
    stream = OfficialStream(height, width, y, z, tags)
    assert read_official(write_official(stream)) == stream


def test_the_size_is_that_of_the_padded_image() -> None:
    assert STREAM.padded_size == (128, 192)


@pytest.mark.parametrize("length", range(len(write_official(STREAM))))
def test_every_cut_is_noticed(length: int) -> None:
    data = write_official(STREAM)[:length]
    if length == len(write_official(OfficialStream(2, 3, STREAM.y_string, STREAM.z_string))):
        assert read_official(data).tags is None  # what is left is a whole file without tags
    else:
        with pytest.raises(BitstreamError):
            read_official(data)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0, "no image"),
        (0, 0xFFFFFFFF, "no image"),
        (4, 1 << 20, "no image"),
        (8, 3, "3 strings"),
        (12, 0xFFFFFFFF, "too short"),
        (12, 0, "no official stream|too short"),
        (44, 0xFFFFFFFF, "tags of 13 bits"),
        (44, 2, "2 tags"),
        (48, 12, "of 12 bits"),
        (52, 4, "do not take 4|too short|after the end"),
    ],
)
def test_fields_that_make_no_sense_are_refused(at: int, value: int, message: str) -> None:
    data = bytearray(write_official(STREAM))
    struct.pack_into(">I", data, at, value)
    with pytest.raises(BitstreamError, match=message):
        read_official(bytes(data))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BitstreamError, match="1 bytes after the end"):
        read_official(write_official(STREAM) + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_stream_or_an_error(data: bytes) -> None:
    try:
        stream = read_official(data)
    except BitstreamError:
        return
    assert write_official(stream) == data


@pytest.mark.parametrize(("packed", "count"), [(b"\0\1", 1), (b"\0\x08\0\x40", 2), (b"", 1), (b"\0", 0)])
def test_packed_tags_that_no_writer_makes_are_refused(packed: bytes, count: int) -> None:
    with pytest.raises(BitstreamError):
        unpack_tags(packed, count)


@pytest.mark.parametrize("tags", [(1 << 13,), (-1,), (3, 3), (4, 2)])
def test_tags_without_a_code_are_refused(tags: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        pack_tags(tags)


@pytest.mark.parametrize("string", [b"", b"1234", b"123456789"])
def test_strings_that_no_coder_makes_are_refused(string: bytes) -> None:
    with pytest.raises(ValueError, match="too few or not whole words"):
        OfficialStream(1, 1, string, bytes(8))


def test_reading_needs_no_torch() -> None:
    code = "import sys, difficmh.sd21.official_format, difficmh.sd21.official_rans; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
