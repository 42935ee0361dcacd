"""Image files that are cut, altered, absurd or no images: an ImageError or the right picture, and nothing else."""

from __future__ import annotations

import struct
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from difficmh import images
from difficmh.errors import ImageError
from difficmh.images import decode_image
from tests.corpora import image_bytes, jpeg, picture, saved

DAMAGED_FILES = {
    "jpeg": jpeg(5, 40, 56),
    "progressive": jpeg(5, 40, 56, progressive=True),
    "png": image_bytes(picture(5), "PNG"),
    "webp": image_bytes(picture(5), "WEBP"),
    "lossless-webp": image_bytes(picture(5), "WEBP", lossless=True),
    "tiff": image_bytes(picture(5), "TIFF"),
    "lzw-tiff": image_bytes(picture(5), "TIFF", compression="tiff_lzw"),
    "bmp": image_bytes(picture(5, 8, 9), "BMP"),
    "gif": saved(Image.fromarray(picture(5, 8, 9)).quantize(16), "GIF"),
    "jpeg2000": image_bytes(picture(5), "JPEG2000"),
    "avif": image_bytes(picture(5), "AVIF"),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGED_FILES)
    def test_truncated_anywhere_is_an_error_or_the_whole_picture(self, name: str) -> None:
        data = DAMAGED_FILES[name]
        whole = decode_image(data)
        for length in {*range(0, len(data), 1 + len(data) // 150), *range(len(data) - 40, len(data))}:
            try:
                decoded = decode_image(data[:length])
            except ImageError:
                continue
            assert np.array_equal(decoded, whole), f"{name} cut to {length} of {len(data)} bytes gave another picture"

    def test_truncated_although_another_library_asks_for_half_pictures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with pytest.raises(ImageError):
            decode_image(jpeg(5, 400, 560)[:2000])

    @given(st.sampled_from(sorted(DAMAGED_FILES)), st.data())
    def test_flipped_bytes_give_a_picture_or_an_image_error(self, name: str, data: st.DataObject) -> None:
        damaged = bytearray(DAMAGED_FILES[name])
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        self.decode_quietly(bytes(damaged))

    @given(
        st.binary(max_size=200),
        st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"BM"]),
    )
    def test_random_bytes(self, data: bytes, start: bytes) -> None:
        self.decode_quietly(start + data)

    @staticmethod
    def decode_quietly(data: bytes) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                decoded = decode_image(data)
            except ImageError:
                pass
            else:
                assert decoded.ndim == 3
                assert decoded.shape[2] == 3
        assert caught == []

    def test_message_is_one_short_line(self) -> None:
        with pytest.raises(ImageError) as caught:
            decode_image(b"no\nimage" * 1000)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_zero_bytes_say_so(self) -> None:
        with pytest.raises(ImageError, match="zero bytes"):
            decode_image(b"")

    def test_formats_that_run_programs_are_refused(self) -> None:
        with pytest.raises(ImageError):
            decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")


class TestSize:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0) + b"\0" * 20,
            b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x00\xff\xff\x00" + b"\0" * 20,
            b"RIFF\x20\0\0\0WEBPVP8L\x0a\0\0\0\x2f" + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little") + b"\0" * 20,
            b"RIFF\x20\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 0x3FFF, 0x3FFF) + b"\0" * 20,
            b"GIF89a\xff\xff\xff\xff\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0\x08\0\0;",
            b"P6 60000 60000 255\n",
        ],
        ids=["png", "webp", "webp-lossless", "webp-simple", "gif", "ppm"],
    )
    def test_huge_header_is_refused_before_allocating(self, data: bytes) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(ImageError):
                decode_image(data)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
    def test_the_size_of_a_webp_is_known_before_its_decoder_allocates(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 300 * 700)
        monkeypatch.setattr(Image, "open", None)
        data = image_bytes(picture(5, 301, 700), "WEBP", **options)
        with pytest.raises(ImageError, match="700 x 301 pixels is larger"):
            decode_image(data)

    def test_limit_is_on_pixels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 24 * 32)
        assert decode_image(jpeg()).shape == (24, 32, 3)
        with pytest.raises(ImageError, match="24 x 33"):
            decode_image(jpeg(height=33, width=24))

    def test_above_pillows_own_warning(self) -> None:
        data = saved(Image.new("1", (10_000, 9_000)), "PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode_image(data).shape == (9_000, 10_000, 3)


def test_warnings_are_kept_quiet_until_the_last_reader_has_left() -> None:
    before = list(warnings.filters)
    with images._QUIET_PILLOW:
        within = list(warnings.filters)
        with images._QUIET_PILLOW:
            assert warnings.filters == within != before
        assert warnings.filters == within
    assert warnings.filters == before


def test_many_threads_leave_the_warning_filters_as_they_were() -> None:
    files = [jpeg(seed) for seed in range(4)] + [jpeg(9)[:-300], b"II*\0" + bytes(60)]
    expected = [decode_image(file) for file in files[:4]]
    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(_: int) -> bool:
        barrier.wait()
        for file in files[4:]:
            with pytest.raises(ImageError):
                decode_image(file)
        return all(np.array_equal(decode_image(file), pixels) for file, pixels in zip(files, expected, strict=False))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))
    assert list(warnings.filters) == before
