"""The codec with tiny networks: everything that does not depend on training."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import difficmh
from difficmh import zoo
from difficmh.bitstream import Header, pack, unpack
from difficmh.codec import Codec, Tagger
from difficmh.errors import BitstreamError, CapsuleError, ImageError
from tests.difficmh.tiny_capsule import make_tiny_capsule, photograph


def psnr(decoded: torch.Tensor, image: np.ndarray) -> float:
    error = 255 * decoded.permute(1, 2, 0).numpy().astype(np.float64) - image
    return float(10 * np.log10(255**2 / np.square(error).mean()))


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (1, 5000), (5000, 1), (63, 65), (64, 64), (130, 200)])
@pytest.mark.parametrize("mode", ["preview", "full"])
def test_any_size_comes_back_in_its_size(tiny_codec: Codec, size: tuple[int, int], mode: str) -> None:
    image = photograph(*size)
    (stream,) = tiny_codec.compress([image], quality=3, tags=[["car"]])
    (decoded,) = tiny_codec.decompress([stream], mode=mode)
    assert decoded.shape == (3, *size)
    assert decoded.dtype == torch.float32
    assert 0 <= decoded.min() <= decoded.max() <= 1


def test_a_stream_says_its_size_before_it_is_decoded(tiny_codec: Codec, small_stream: bytes) -> None:
    (image,) = tiny_codec.decompress([small_stream], mode="preview")
    assert tiny_codec.size(small_stream) == tuple(image.shape[1:])
    with pytest.raises(BitstreamError):
        tiny_codec.size(small_stream[:-1])


def test_more_quality_is_more_bits_and_less_error(tiny_codec: Codec) -> None:
    image = photograph(192, 256)
    streams = [tiny_codec.compress([image], quality=q, tags=[[]])[0] for q in tiny_codec.qualities]
    errors = [psnr(decoded, image) for decoded in tiny_codec.decompress(streams, mode="preview")]
    assert sorted(map(len, streams)) == list(map(len, streams))
    assert sorted(errors) == errors
    assert errors[-1] > errors[0] + 2


def test_neighbours_do_not_change_a_stream(tiny_codec: Codec) -> None:
    images = [photograph(64, 128, seed) for seed in range(3)] + [photograph(70, 90, 3)]
    together = tiny_codec.compress(images, quality=4, tags=[[], ["car"], ["bus", "tree"], []])
    alone = [
        tiny_codec.compress([image], quality=4, tags=[tags])[0]
        for image, tags in zip(images, [[], ["car"], ["bus", "tree"], []], strict=True)
    ]
    assert together == alone


def test_tags_travel_with_the_stream(tiny_codec: Codec) -> None:
    (stream,) = tiny_codec.compress([photograph(64, 64)], quality=1, tags=[["tree", "bus", "tree"]])
    assert tiny_codec.read(stream).tags == ("bus", "tree")


def test_full_depends_on_tags_only_through_the_picture_it_draws(tiny_codec: Codec) -> None:
    image = photograph(128, 128)
    streams = tiny_codec.compress([image, image], quality=2, tags=[[], ["car"]])
    first, second = (tiny_codec.read(stream).latents.y_hat for stream in streams)
    assert torch.equal(first, second)


def test_decoding_is_a_function_of_the_stream(tiny_codec: Codec) -> None:
    streams = tiny_codec.compress([photograph(96, 128, seed) for seed in range(2)], quality=3, tags=[[], []])
    forward = tiny_codec.decompress(streams, mode="full")
    torch.manual_seed(99)
    backward = tiny_codec.decompress(streams[::-1], mode="full")[::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_tiles_meet_without_a_seam(tiny_capsule: Path, tiny_codec: Codec) -> None:
    image = photograph(300, 520)
    (stream,) = tiny_codec.compress([image], quality=6, tags=[[]])
    (decoded,) = tiny_codec.decompress([stream], mode="preview")
    error = np.abs(255 * decoded.permute(1, 2, 0).numpy() - image).mean(axis=2)
    # The tile edges of this size; errors beside them must be what they are elsewhere.
    edges = [c for c in range(64, 520, 64) if c in {192, 384}]
    beside = np.mean([error[:, c - 2 : c + 2].mean() for c in edges])
    assert beside < 1.25 * error.mean()


def test_overhead_is_at_most_twenty_bytes(tiny_codec: Codec) -> None:
    stream = pack(Header(1024, 1024, 3, tiny_codec.fingerprint[:8]), b"", 0)
    assert len(stream) <= 20


def test_wrong_arguments_are_value_errors(tiny_codec: Codec) -> None:
    image = photograph(64, 64)
    for arguments in ({"quality": 0}, {"quality": 7}, {"tags": [["unicorn"]]}, {"tags": [[], []]}):
        with pytest.raises(ValueError, match=r"quality|unicorn|tags"):
            tiny_codec.compress([image], **{"quality": 3, "tags": [[]], **arguments})
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            tiny_codec.compress([wrong], quality=3, tags=[[]])
    with pytest.raises(ValueError, match="mode"):
        tiny_codec.decompress([], mode="best")


@pytest.mark.parametrize("value", [3.0, True, "3", None])
def test_numbers_that_are_not_whole_are_refused_before_there_is_work(tiny_codec: Codec, value: Any) -> None:
    """Some of these would pass a comparison with the range, and fail or be stored as something else later."""
    images = [photograph(64, 64)]
    if value is not None:  # which is the model's own quality, and the mode's own number of steps
        with pytest.raises(ValueError, match=f"quality must be a whole number, not {value!r}"):
            tiny_codec.compress(images, quality=value, tags=[[]])
        with pytest.raises(ValueError, match=f"steps must be a whole number, not {value!r}"):
            tiny_codec.decompress([], steps=value)
    with pytest.raises(ValueError, match=f"effort must be a whole number, not {value!r}"):
        tiny_codec.compress(images, quality=3, tags=[[]], effort=value)


def test_integers_of_numpy_are_whole_numbers(tiny_codec: Codec) -> None:
    images = [photograph(64, 64)]
    with_numpy = tiny_codec.compress(images, quality=np.uint8(3), tags=[[]], effort=np.int64(1))  # type: ignore[arg-type]
    assert with_numpy == tiny_codec.compress(images, quality=3, tags=[[]], effort=1)


def test_streams_are_read_from_any_bytes(tiny_codec: Codec, small_stream: bytes) -> None:
    (expected,) = tiny_codec.decompress([small_stream], mode="preview")
    for same in (bytearray(small_stream), memoryview(small_stream), memoryview(bytearray(b"." + small_stream))[1:]):
        assert torch.equal(tiny_codec.decompress([same], mode="preview")[0], expected)
        assert tiny_codec.size(same) == (70, 90)
        assert difficmh.inspect(same) == difficmh.inspect(small_stream)
    with pytest.raises(BitstreamError, match="a bitstream is bytes, not int"):
        tiny_codec.decompress(small_stream)  # type: ignore[arg-type]  # the list around it forgotten
    with pytest.raises(BitstreamError, match="a bitstream is bytes, not str"):
        difficmh.inspect("photo.dicm")  # type: ignore[arg-type]


def test_wrong_arguments_are_refused_before_there_is_work(tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of tags by RAM++, or the groups before the one with an unknown tag, would be lost."""

    def work(*_: object) -> NoReturn:
        raise AssertionError("there was work before the arguments were checked")

    monkeypatch.setattr(Codec, "tag", work)
    monkeypatch.setattr(Codec, "_compress_group", work)
    images = [photograph(64, 64), photograph(64, 128)]
    with pytest.raises(ValueError, match="no guidance"):
        tiny_codec.compress(images, guidance=1.0)
    with pytest.raises(ValueError, match="unicorn"):
        tiny_codec.compress(images, tags=[[], ["unicorn"]])
    monkeypatch.setattr(tiny_codec.networks, "guidance", 5.0)
    with pytest.raises(ValueError, match=r"guidance 1\.234 is not in 0\.\.100"):
        tiny_codec.compress(images, guidance=1.234)


@pytest.mark.parametrize("how", [{"steps": 4}, {"steps": 1}, {"sampler": "ddim"}])
def test_preview_takes_neither_steps_nor_sampler(tiny_codec: Codec, small_stream: bytes, how: dict[str, Any]) -> None:
    """In silence they would seem to have had an effect."""
    with pytest.raises(ValueError, match="preview does not denoise"):
        tiny_codec.decompress([small_stream], mode="preview", **how)
    with pytest.raises(ValueError, match=r"steps of ddim must be in 1\.\.1000, not 0"):
        tiny_codec.decompress([small_stream], mode="reference", steps=0)


def test_an_image_that_no_decoder_would_accept_is_not_compressed(tiny_codec: Codec) -> None:
    thin = np.broadcast_to(np.zeros(3, np.uint8), (1, (1 << 22) + 1, 3))
    with pytest.raises(ImageError, match="64 x 4194368 when padded"):
        tiny_codec.compress([thin], quality=1, tags=[[]])


def test_another_model_is_refused(tiny_codec: Codec, tmp_path: Path) -> None:
    other = difficmh.load(make_tiny_capsule(tmp_path, seed=1))
    (stream,) = other.compress([photograph(64, 64)], quality=3, tags=[[]])
    with pytest.raises(BitstreamError, match="another model"):
        tiny_codec.decompress([stream])


@pytest.fixture(scope="module")
def small_stream(tiny_codec: Codec) -> bytes:
    return tiny_codec.compress([photograph(70, 90)], quality=2, tags=[["car"]])[0]


def test_every_flipped_byte_is_an_error(tiny_codec: Codec, small_stream: bytes) -> None:
    for position in range(len(small_stream)):
        for bit in (0x01, 0x80, 0xFF):
            damaged = bytearray(small_stream)
            damaged[position] ^= bit
            with pytest.raises(BitstreamError):
                tiny_codec.read(bytes(damaged))


def test_every_truncation_is_an_error(tiny_codec: Codec, small_stream: bytes) -> None:
    for length in range(len(small_stream)):
        with pytest.raises(BitstreamError):
            tiny_codec.read(small_stream[:length])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=400), size=st.tuples(st.integers(1, 300), st.integers(1, 300)), quality=st.integers(1, 8)
)
def test_a_crafted_payload_is_an_error(tiny_codec: Codec, data: bytes, size: tuple[int, int], quality: int) -> None:
    """Garbage under a valid frame: the checksum of all bytes is right, the symbols are nonsense."""
    crafted = pack(Header(*size, quality, tiny_codec.fingerprint[:8]), data, zlib.crc32(data) & 0xFFFFFF)
    with pytest.raises(BitstreamError):
        tiny_codec.read(crafted)


def test_a_huge_header_allocates_nothing(tiny_codec: Codec, small_stream: bytes) -> None:
    frame = unpack(small_stream)
    for height, width in ((10**9, 1), (31_623, 31_623), (16_000, 16_000)):
        header = Header(height, width, 2, tiny_codec.fingerprint[:8])
        with pytest.raises(BitstreamError):
            tiny_codec.read(pack(header, frame.payload, frame.symbol_checksum))


def test_an_altered_capsule_is_noticed(tmp_path: Path) -> None:
    capsule = make_tiny_capsule(tmp_path)
    difficmh.capsule.verify(capsule)
    weights = capsule / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01"[:1])
    with pytest.raises(CapsuleError, match=r"model\.safetensors"):
        difficmh.capsule.verify(capsule)
    with pytest.raises(CapsuleError, match=r"model\.safetensors"):
        difficmh.load(capsule)
    weights.write_bytes(b"no tensors")
    with pytest.raises(CapsuleError, match=r"model\.safetensors"):
        difficmh.load(capsule)


def test_what_is_no_codec_says_so(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="no codec 'nothing'"):
        difficmh.load("nothing")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CapsuleError):
        difficmh.load(tmp_path)


def test_threads_share_one_tagger(tiny_capsule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(*_: object) -> Tagger:
        made.append(threading.get_ident())
        started.wait(timeout=0.2)
        return lambda images: [[] for _ in images]

    started = threading.Event()
    monkeypatch.setattr(zoo, "load_tagger", make)
    codec = difficmh.load(tiny_capsule)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(codec.tag, [[photograph(64, 64)]] * 4))
    assert len(made) == 1
