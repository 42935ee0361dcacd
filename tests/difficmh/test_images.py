"""Image files of every kind that cameras and their owners make, whole and broken."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from difficmh import images
from difficmh.errors import ImageError
from difficmh.images import SUFFIXES, decode_image, to_pixels
from tests.corpora import image_bytes, jpeg, picture, saved

EXACT_FORMATS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "BMP": {}, "PPM": {}}


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


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    data = image_bytes(picture(1), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    decode_image(data[:-2] + 10 * last_scan + data[-2:])
    with pytest.raises(ImageError, match="scans"):
        decode_image(data[:-2] + 1000 * last_scan + data[-2:])


def test_a_film_behind_a_jpeg_is_not_counted_as_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """As phones make them: any two bytes stand in it once in 65,536 by chance."""
    monkeypatch.setattr(images, "MAX_JPEG_SCANS", 10)
    film = 20 * (b"\xff\xda" + bytes(65_534))
    assert np.array_equal(decode_image(jpeg() + film), decode_image(jpeg()))


def test_names_of_images() -> None:
    assert {".jpg", ".jpeg", ".mpo", ".png", ".webp", ".tif", ".tiff", ".ppm", ".avif"} <= SUFFIXES
    assert not {".pfm", ".eps", ".pdf", ".txt"} & SUFFIXES


def test_an_mpo_of_endless_scans_is_refused_at_once() -> None:
    """What cameras write that take several pictures at once: the first is a JPEG like any other."""
    first, second = (Image.fromarray(picture(seed)) for seed in (1, 2))
    data = saved(first, "MPO", save_all=True, append_images=[second], progressive=True)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "MPO"
    decode_image(data)
    end = data.index(b"\xff\xd9\xff\xd8")
    last_scan = data[data.rindex(b"\xff\xda", 0, end) : end]
    with pytest.raises(ImageError, match="scans"):
        decode_image(data[:end] + 1000 * last_scan + data[end:])


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


@pytest.mark.parametrize("exif", [b"MM\0*\xff\xff\xff\xffnonsense", b"XX no TIFF within", b"MM"])
def test_broken_exif_does_not_cost_the_picture(exif: bytes) -> None:
    plain, damaged = jpeg(), jpeg(exif=b"Exif\0\0" + exif)
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


def test_floating_point_samples_are_refused_in_any_format() -> None:
    """PFM is PPM to Pillow, whose 16-bit samples have a white; in [0, 1] they would all be black."""
    with pytest.raises(ImageError, match="no defined white"):
        decode_image(b"Pf\n2 1\n-1.0\n" + np.array([0.0, 1.0], "<f4").tobytes())


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_white_level_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="white"):
        decode_image(saved(Image.new(mode, (4, 4), 70), "TIFF"))


@pytest.mark.parametrize(("tag", "value"), [(254, 1), (50706, b"\1\4\0\0")])
def test_raw_file_does_not_pass_with_its_thumbnail(tag: int, value: Any) -> None:
    with pytest.raises(ImageError, match="raw file"):
        decode_image(image_bytes(picture(), "TIFF", tiffinfo={tag: value}))


def test_a_canon_raw_file_does_not_pass_with_its_thumbnail() -> None:
    """A TIFF whose tags say nothing of it: two letters behind the header do."""

    def tiff(behind_header: bytes) -> bytes:
        short, long, at = 3, 4, 16 + 2 + 9 * 12 + 4
        tags = [(256, long, 2), (257, long, 1), (258, short, 8), (259, short, 1), (262, short, 1)]
        tags += [(273, long, at), (277, short, 1), (278, long, 1), (279, long, 2)]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        directory = struct.pack("<H", len(tags)) + entries + bytes(4)
        return struct.pack("<2sHI4s4x", b"II", 42, 16, behind_header) + directory + b"\x10\x20"

    assert decode_image(tiff(bytes(4))).shape == (1, 2, 3)
    with pytest.raises(ImageError, match="raw file"):
        decode_image(tiff(b"CR\2\0"))


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

    def test_a_colour_profile_is_applied_to_grey(self) -> None:
        """Its curve, which is that of all three colours: here a straight line, so that all becomes lighter."""
        data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        curve = data.index(b"para") + 12
        assert data[curve : curve + 4] == (0x26666).to_bytes(4), "a power of 2.4"
        data[curve : curve + 4] = (0x10000).to_bytes(4)
        grey, profile = np.full((4, 4), 100, np.uint8), bytes(data)
        decoded = decode_image(image_bytes(grey, "PNG", icc_profile=profile))
        colour = decode_image(image_bytes(grey[..., None].repeat(3, axis=2), "PNG", icc_profile=profile))
        assert decoded.min() > 120
        assert np.abs(decoded.astype(int) - colour).max() <= 1

    def test_profile_for_other_colours(self) -> None:
        grey = np.full((4, 4), 100, np.uint8)
        assert (
            np.abs(decode_image(image_bytes(grey, "PNG", icc_profile=self.swapped_profile())).astype(int) - 100).max()
            <= 2
        )
        cmyk = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", icc_profile=self.swapped_profile())
        assert np.abs(decode_image(cmyk).astype(int) - (255, 0, 0)).max() <= 6


def test_what_a_codec_drew_is_rounded_and_cut_off() -> None:
    picture = torch.tensor([[[-0.5, 0.0]], [[0.4 / 255, 0.6 / 255]], [[1.0, 1.5]]])
    assert to_pixels(picture).tolist() == [[[0, 0, 255], [0, 1, 255]]]


def test_a_filter_of_the_program_itself_stays() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before = list(warnings.filters)
        decode_image(jpeg(1))
        assert list(warnings.filters) == before
