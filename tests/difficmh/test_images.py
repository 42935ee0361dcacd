"""Image files of every kind that cameras and their owners make, whole and broken."""

from __future__ import annotations

import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile

from difficmh import images
from difficmh.errors import ImageError
from difficmh.images import decode_image, encode_image
from tests.corpora import image_bytes, jpeg, picture

EXACT_FORMATS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "BMP": {}, "PPM": {}}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_16(samples: NDArray[np.uint16], colour_type: int) -> bytes:
    """A PNG with 16-bit samples, `(H, W, C)`, made by hand: Pillow writes none in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", EXACT_FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 17), (24, 32)])
def test_lossless_formats_give_the_pixels_back(format: str, size: tuple[int, int]) -> None:
    pixels = picture(1, *size)
    assert np.array_equal(decode_image(image_bytes(pixels, format, **EXACT_FORMATS[format])), pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_come_close(format: str) -> None:
    pixels = np.full((24, 32, 3), (200, 100, 50), np.uint8)
    decoded = decode_image(image_bytes(pixels, format, quality=95))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert np.abs(decoded.astype(int) - pixels).max() <= 4


def test_heif_where_its_codec_is_installed() -> None:
    pytest.importorskip("pillow_heif")
    pixels = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    assert np.abs(decode_image(image_bytes(pixels, "HEIF", quality=95)).astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(format: str, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[16:, 32:] = (255, 0, 0), (0, 255, 0)  # tells all eight apart
    # What a camera stores so that a viewer who applies the orientation sees `upright`.
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    undo |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode_image(saved(image, format, exif=exif, **EXACT_FORMATS.get(format, {"quality": 95})))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert decode_image(jpeg(exif=exif)).shape == (24, 32, 3)


def test_broken_exif_does_not_cost_the_picture() -> None:
    plain, damaged = jpeg(), jpeg(exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnonsense")
    assert np.array_equal(decode_image(damaged), decode_image(plain))


def test_grey_kinds() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(decode_image(image_bytes(grey, "PNG")), expected)
    assert np.array_equal(decode_image(image_bytes(grey, "TIFF")), expected)
    bits = saved(Image.fromarray(grey).point(lambda value: 255 * (value > 127), "1"), "PNG")
    assert np.array_equal(decode_image(bits), np.where(expected > 127, 255, 0))


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 1, 128, 129, 256, 0x1280, 32767, 32768, 65407, 65535]], np.uint16)
    expected = np.rint(levels / 257)[..., None].repeat(3, axis=2)
    assert np.array_equal(decode_image(png_16(levels[..., None], 0)), expected)
    assert np.array_equal(decode_image(image_bytes(levels, "TIFF")), expected)


def test_16_bit_colour_is_scaled_not_clipped() -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    assert np.abs(decode_image(png_16(samples, 2)) - samples / 257).max() <= 1
    opaque = np.concatenate([samples, np.full((8, 8, 1), 65535, np.uint16)], axis=2)
    assert np.array_equal(decode_image(png_16(opaque, 6)), decode_image(png_16(samples, 2)))


def test_12_bit_and_white_is_zero_tiff() -> None:
    grey = np.array([[0, 1000], [40000, 65535]], np.uint16)
    data = image_bytes(grey, "TIFF")
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)  # photometric interpretation: black is zero
    assert entry in data
    inverted = data.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert np.array_equal(decode_image(inverted), 255 - decode_image(data))
    packed = np.array([0xFF, 0xF0, 0x00], np.uint8)  # the 12-bit samples 4095 and 0
    twelve = image_bytes(np.zeros((1, 2), np.uint16), "TIFF")
    twelve = twelve.replace(struct.pack("<HHIHH", 258, 3, 1, 16, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0))
    offset = struct.unpack("<I", twelve[twelve.index(struct.pack("<HHI", 273, 4, 1)) + 8 :][:4])[0]
    twelve = twelve[:offset] + packed.tobytes() + twelve[offset + 3 :]
    assert decode_image(twelve)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_white_level_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="white"):
        decode_image(saved(Image.new(mode, (4, 4), 70), "TIFF"))


def test_transparency_shows_the_background() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)
    assert decode_image(image_bytes(rgba, "PNG"))[0, :, 0].tolist() == [255, 127, 0]
    assert decode_image(image_bytes(rgba[..., 2:], "PNG"))[0, :, 0].tolist() == [255, 127, 0]  # grey with alpha


def test_palettes() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[1, 1] = (255, 0, 0), (0, 0, 255)
    image = Image.fromarray(pixels).quantize(4)
    assert np.array_equal(decode_image(saved(image, "PNG")), pixels)
    assert np.array_equal(decode_image(saved(image, "GIF")), pixels)
    black = image.getpixel((1, 0))
    assert isinstance(black, int)
    expected = np.where((pixels == 0).all(axis=2, keepdims=True), 255, pixels)
    assert np.array_equal(decode_image(saved(image, "PNG", transparency=black)), expected)
    several = bytes(0 if index == black else 255 for index in range(4))
    assert np.array_equal(decode_image(saved(image, "PNG", transparency=several)), expected)


def test_first_of_several_frames() -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (255, 0)]
    for format in ("GIF", "TIFF", "WEBP", "PNG", "MPO"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert decode_image(data).min() >= 254, format


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format: str) -> None:
    # JPEG holds CMYK inverted, as Adobe does; TIFF as it is.
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_image(saved(image, format)).astype(int) - (255, 0, 0)).max() <= 6


def test_ycck_jpeg() -> None:
    # An Adobe marker with transform 2 says that C, M, Y are stored as YCbCr: here neutral, so all three alike.
    data = saved(Image.new("CMYK", (16, 16), (128, 128, 128, 0)), "JPEG")
    ycck = data.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")
    assert ycck != data
    assert np.abs(decode_image(ycck).astype(int) - 127).max() <= 4


def test_lab_tiff() -> None:
    decoded = decode_image(saved(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))
    assert decoded.min() >= 253


class TestColourProfiles:
    @staticmethod
    def swapped_profile() -> bytes:
        """sRGB with red and green exchanged, so that any use of it shows."""
        data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
        data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
        return bytes(data)

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_profile_is_applied(self, format: str) -> None:
        red = np.full((16, 16, 3), (255, 0, 0), np.uint8)
        options = {"icc_profile": self.swapped_profile(), **EXACT_FORMATS.get(format, {"quality": 95})}
        decoded = decode_image(image_bytes(red, format, **options))
        assert np.abs(decoded.astype(int) - (0, 255, 0)).max() <= 12

    def test_profile_is_applied_below_alpha_and_palette(self) -> None:
        profile = self.swapped_profile()
        rgba = np.array([[(255, 0, 0, 255), (255, 0, 0, 0)]], np.uint8)
        assert decode_image(image_bytes(rgba, "PNG", icc_profile=profile)).tolist() == [[[0, 255, 0], [255, 255, 255]]]
        palette = Image.fromarray(rgba[:, :1, :3]).quantize(2)
        assert decode_image(saved(palette, "PNG", icc_profile=profile)).tolist() == [[[0, 255, 0]]]

    def test_srgb_changes_nothing(self) -> None:
        pixels = picture(3)
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        decoded = decode_image(image_bytes(pixels, "PNG", icc_profile=profile))
        assert np.abs(decoded.astype(int) - pixels).max() <= 1

    @pytest.mark.parametrize("profile", [b"no profile", b"\0" * 200])
    def test_broken_profile_is_ignored(self, profile: bytes) -> None:
        pixels = picture(3)
        assert np.array_equal(decode_image(image_bytes(pixels, "PNG", icc_profile=profile)), pixels)

    def test_profile_for_other_colours(self) -> None:
        grey = np.full((4, 4), 100, np.uint8)
        assert (
            np.abs(decode_image(image_bytes(grey, "PNG", icc_profile=self.swapped_profile())).astype(int) - 100).max()
            <= 2
        )
        cmyk = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", icc_profile=self.swapped_profile())
        assert np.abs(decode_image(cmyk).astype(int) - (255, 0, 0)).max() <= 6


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


DESCRIPTION = {
    "Software": "difficmh 0.1.0",
    "Description": "Reconstruction <not> an original & più",
    "codec": "lite",
}


class TestEncode:
    @pytest.mark.parametrize(("format", "pillow_name"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
    def test_file_says_that_it_is_a_reconstruction(self, format: str, pillow_name: str) -> None:
        pixels = picture(2)
        data = encode_image(pixels, format, DESCRIPTION)
        image = Image.open(io.BytesIO(data))
        assert image.format == pillow_name
        exif = image.getexif()
        assert exif[ExifTags.Base.Software] == "difficmh 0.1.0"
        assert exif[ExifTags.Base.ImageDescription].startswith("Reconstruction <not> an original")
        image.load()
        xmp = image.info["xmp"]
        for text in ("compositeWithTrainedAlgorithmicMedia", "&lt;not&gt;", "più", "codec: lite", "difficmh 0.1.0"):
            assert text in xmp.decode(), text
        assert np.abs(decode_image(data).astype(int) - pixels).mean() < 8

    def test_png_is_lossless(self) -> None:
        assert np.array_equal(decode_image(encode_image(picture(2), "png", {})), picture(2))

    @given(st.dictionaries(st.text(max_size=30), st.text(max_size=3000), max_size=30))
    def test_any_description_fits(self, description: dict[str, str]) -> None:
        assert decode_image(encode_image(picture(2, 1, 1), "jpg", description)).shape == (1, 1, 3)

    def test_xmp_is_well_formed(self) -> None:
        from xml.etree import ElementTree

        fields = {"Description": "]]> <a b='&'> \x00 \ud800", "ke<y": "v"}
        xmp = Image.open(io.BytesIO(encode_image(picture(), "webp", fields))).info["xmp"]
        assert "ke<y: v" in "".join(ElementTree.fromstring(xmp).itertext())

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="gif"):
            encode_image(picture(), "gif", {})
        with pytest.raises(ValueError, match="uint8"):
            encode_image(picture().astype(np.float32), "png", {})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="uint8"):
            encode_image(picture()[..., :1], "png", {})

    def test_size_that_the_format_cannot_hold(self) -> None:
        with pytest.raises(ImageError, match="20000"):
            encode_image(np.zeros((1, 20_000, 3), np.uint8), "webp", {})
