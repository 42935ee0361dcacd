"""Streams of the built-in model, damaged: one typed error before any symbol is decoded, or the right picture.

That damage is noticed by the frame alone is what makes it cheap: no test here looks at a clock.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from difficmh import codec as codec_module
from difficmh.bitstream import Header, pack, unpack
from difficmh.codec import Codec
from difficmh.errors import BitstreamError
from tests.difficmh.tiny_capsule import photograph
from tests.golden.regenerate import CASES, GOLDEN

pytestmark = pytest.mark.usefixtures("one_torch_thread")
STREAMS = {name: (GOLDEN / f"{name}.dicm").read_bytes() for name in CASES}
MEMORY = 512 << 20


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may come as far as the symbols."""

    def decoder(payload: bytes) -> None:
        raise AssertionError("symbols were decoded")

    monkeypatch.setattr(codec_module, "SymbolDecoder", decoder)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """512 MiB of addresses beyond what the process has: a larger allocation fails, also one that is never touched."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def assert_refused(codec: Codec, stream: bytes, what: object) -> None:
    try:
        codec.decompress([stream], mode="preview")
    except BitstreamError:
        return
    pytest.fail(f"{what}: not refused")


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("name", CASES)
class TestTheFrameNotices:
    @pytest.mark.parametrize("value", [0x01, 0x10, 0x80, 0xFF])
    def test_every_altered_byte(self, lite: Codec, name: str, value: int) -> None:
        stream = STREAMS[name]
        for place in range(len(stream)):
            damaged = stream[:place] + bytes([stream[place] ^ value]) + stream[place + 1 :]
            assert_refused(lite, damaged, f"byte {place}")

    def test_every_value_of_every_byte_of_the_header(self, lite: Codec, name: str) -> None:
        stream = STREAMS[name]
        for place in range(20):
            for value in set(range(256)) - {stream[place]}:
                assert_refused(lite, stream[:place] + bytes([value]) + stream[place + 1 :], f"byte {place}")

    def test_every_truncation(self, lite: Codec, name: str) -> None:
        for length in range(len(STREAMS[name])):
            assert_refused(lite, STREAMS[name][:length], f"{length} bytes")

    def test_what_follows_or_is_missing_inside(self, lite: Codec, name: str) -> None:
        stream = STREAMS[name]
        for more in (b"\0", bytes(4), b"\xff" * 4, stream):
            assert_refused(lite, stream + more, more[:8])
        for place in range(0, len(stream) - 1, 1 + len(stream) // 100):
            assert_refused(lite, stream[:place] + stream[place + 4 :], f"4 bytes lost at {place}")
            assert_refused(lite, stream[:place] + bytes(4) + stream[place:], f"4 bytes more at {place}")

    def test_random_bytes_behind_the_first_ones(self, lite: Codec, name: str) -> None:
        noise = np.random.default_rng(0)
        for kept in (0, 3, 7, 11, 19):
            for _ in range(20):
                assert_refused(lite, STREAMS[name][:kept] + noise.bytes(400), f"{kept} bytes kept")


@pytest.mark.usefixtures("no_decoding")
def test_streams_of_other_weights(lite: Codec, tiny_codec: Codec) -> None:
    assert_refused(tiny_codec, STREAMS["portrait"], "a stream of lite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec_module, "SymbolDecoder", None)  # encoding needs none
        (other,) = tiny_codec.compress([photograph(64, 64)], quality=3, tags=[[]])
    with pytest.raises(BitstreamError, match="made with another model"):
        lite.decompress([other])


@pytest.mark.usefixtures("no_decoding", "little_memory")
@pytest.mark.parametrize("size", [(31_623, 31_623), (10**9, 1), (1, 10**9), (2**32 - 1, 2**32 - 1), (1, 2**28)])
def test_headers_that_ask_for_very_much(lite: Codec, size: tuple[int, int]) -> None:
    frame = unpack(STREAMS["portrait"])
    assert_refused(lite, pack(Header(*size, 3, lite.fingerprint[:8]), frame.payload, frame.symbol_checksum), size)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("size", [(16_000, 16_000), (1, 2**22), (2**22, 1), (129, 192), (192, 64)])
def test_other_sizes_under_a_valid_frame(lite: Codec, size: tuple[int, int]) -> None:
    frame = unpack(STREAMS["portrait"])
    assert_refused(lite, pack(Header(*size, 4, lite.fingerprint[:8]), frame.payload, frame.symbol_checksum), size)


@pytest.mark.parametrize("quality", range(1, 16))
def test_other_qualities_under_a_valid_frame(lite: Codec, quality: int) -> None:
    frame = unpack(STREAMS["odd-size"])
    header = frame.header
    if quality != header.quality:
        crafted = Header(header.height, header.width, quality, header.fingerprint)
        assert_refused(lite, pack(crafted, frame.payload, frame.symbol_checksum), quality)


@pytest.mark.parametrize("name", ["odd-size", "portrait"])
def test_damaged_symbols_under_a_valid_frame(lite: Codec, name: str) -> None:
    """Only the second checksum, over the symbols, can notice this."""
    frame = unpack(STREAMS[name])
    expected = lite.read(STREAMS[name])
    for place in np.linspace(0, len(frame.payload) - 1, 12).astype(int):
        damaged = bytearray(frame.payload)
        damaged[place] ^= 0x20
        with contextlib.suppress(BitstreamError):
            found = lite.read(pack(frame.header, bytes(damaged), frame.symbol_checksum))
            assert torch.equal(found.latents.y_hat, expected.latents.y_hat), f"byte {place}"
            assert found.tags == expected.tags
