"""Image files in, upright sRGB pixels out; pixels in, image files marked as reconstructions out.

    decode_image   bytes ─► header, size check ─► pixels ─► 8 bit ─► sRGB ─► over white ─► upright (H, W, 3) uint8
    encode_image   (H, W, 3) uint8, description ─► JPEG, PNG or WebP with EXIF and XMP
    to_pixels      what a codec has drawn, (3, H, W) float in [0, 1] ─► (H, W, 3) uint8

All are safe to call from several threads. Reading sets two switches of the whole process: Pillow's
`LOAD_TRUNCATED_IMAGES`, off from then on, and a filter of Pillow's warnings while it reads.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from difficmh.errors import ImageError
from difficmh.marks import reconstruction_marks

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 1 << 27
"""Largest image that is decoded, 134 megapixels: above the 102 MP of today's largest common sensors."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""What is read, by Pillow's names: the formats of cameras, never those that run programs (EPS). JPEG includes MPO; AVIF
and HEIF only where Pillow has the codec."""

MAX_JPEG_SCANS = 1000
"""Most scans of a JPEG that is decoded: cameras write ten at most, and each takes a pass over all pixels, though an
empty one has 200 bytes only."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white, as browsers and paper have it."""

Pixels = NDArray[np.uint8]

_ENCODERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {"compress_level": 4}),
    "webp": ("WEBP", {"quality": 92, "method": 4}),
}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE_TYPE, _DNG_VERSION = 258, 262, 254, 50706

try:  # HEIC needs a codec that not everybody may ship
    import pillow_heif
except ImportError:
    pass
else:
    pillow_heif.register_heif_opener()
Image.init()
_READABLE = tuple(name for name in FORMATS if name in Image.OPEN)

SUFFIXES = frozenset(
    {".mpo", *(suffix for suffix, name in Image.registered_extensions().items() if name in _READABLE)} - {".pfm"}
)
"""How the names of files end that are read here, in lower case: samples of PFM are floats, which have no white."""


def decode_image(data: bytes) -> Pixels:
    """The image in `data` as `(H, W, 3)` uint8 sRGB, upright as its EXIF orientation says.

    Of several frames the first counts. An ICC profile is applied where it fits the pixels, and ignored where it is
    broken; 16-bit samples are scaled to 8, CMYK is converted, alpha is composited over `BACKGROUND`. A JPEG that
    somebody cut and closed with an end marker passes as whole: nothing in the file tells.

    Raises ImageError, and nothing else, for anything that is no whole image of at most `MAX_PIXELS` pixels in one of
    `FORMATS`. Sizes are checked before pixels are allocated.
    """
    try:
        with _QUIET_PILLOW:
            return _decode(data)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image of a known format") from error
    except Exception as error:  # decoders raise anything on damaged input, from struct.error to AssertionError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"not a readable image: {reason[:200]}") from error


def _decode(data: bytes) -> Pixels:
    if not data:
        raise ImageError("not a readable image: zero bytes")
    _check_size(*_webp_canvas(data))
    # A flag of the whole process: another library that sets it would turn cut files into half-grey pictures.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with Image.open(io.BytesIO(data), formats=_READABLE) as image:
        _check_size(*image.size)
        _check_not_raw(image, data)
        _check_scans(image, data)
        profile = image.info.get("icc_profile")
        image.load()
        # Only now: Pillow itself turns TIFF and HEIC upright while it loads them.
        orientation = _orientation(image)
        pixels = np.asarray(_over_background(_eight_bit(image), profile))
    return np.ascontiguousarray(_upright(pixels, orientation))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"image of {width} x {height} pixels is larger than {MAX_PIXELS} pixels")


def _check_not_raw(image: Image.Image, data: bytes) -> None:
    """Raw files are TIFFs whose first image is a thumbnail: it must not pass for the picture."""
    if image.format != "TIFF":
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE, 0) & 1 or data[8:10] == b"CR":
        raise ImageError("a camera's raw file: only its preview could be read")


def _check_scans(image: Image.Image, data: bytes) -> None:
    """Bounds the time that a small file can take. FF DA marks a scan, and stands by chance in other data now and then,
    such as a film behind the picture: once in 65,536 bytes."""
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_JPEG_SCANS + (len(data) >> 14):
        raise ImageError(f"a JPEG of more than {MAX_JPEG_SCANS} scans")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP file, (0, 0) for others: its decoder allocates the canvas before Pillow looks."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or EXIF is damaged: that is no reason to lose the picture."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in range(1, 9) else 1
    except Exception:  # as in decode_image
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: `(H, W, 3)` as stored to `(H, W, 3)` or `(W, H, 3)` as seen."""
    if orientation >= 5:  # stored with rows and columns exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a sample. Pillow itself keeps the high byte of 16-bit colour, but not of grey."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ImageError(f"samples of mode {image.mode} have no defined white: only 8 and 16 bit are read")
    if not image.mode.startswith("I"):
        return image
    white = _white_level(image)
    samples = np.asarray(image).clip(0, white).astype(np.uint32)
    scaled = (samples * 255 + white // 2) // white
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        scaled = 255 - scaled  # PhotometricInterpretation WhiteIsZero, which Pillow applies to 8 bit only
    return Image.fromarray(scaled.astype(np.uint8))


def _white_level(image: Image.Image) -> int:
    """Largest sample of a deep grey image: TIFF says how many bits count, others fill 16."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0] if image.format == "TIFF" else 16  # type: ignore[attr-defined]
    return (1 << int(bits)) - 1


def _over_background(image: Image.Image, profile: bytes | None) -> Image.Image:
    """8-bit image of any mode to sRGB without alpha."""
    if not image.has_transparency_data:
        return _srgb(image.convert("RGB") if image.mode in ("P", "PA", "YCbCr", "HSV", "RGBX") else image, profile)
    grey = image.mode in ("L", "LA")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    colours = _srgb(image.convert("L" if grey else "RGB"), profile)
    if alpha.getextrema() == (255, 255):
        return colours
    canvas = Image.new("RGB", image.size, BACKGROUND)
    canvas.paste(colours, mask=alpha)
    return canvas


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """L, RGB, CMYK or LAB to RGB through its ICC profile; without one, as if it were sRGB (or plain ink)."""
    try:
        source = _fitting_profile(image, profile)
        if source is not None:
            if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert converted is not None  # only in-place conversion returns None
            return converted
    except ImageCms.PyCMSError:
        pass  # a profile that cannot be used is as good as none
    return image if image.mode == "RGB" else image.convert("RGB")


def _fitting_profile(image: Image.Image, data: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The embedded profile, where it is one for the image's kind of colour; LAB is its own."""
    if image.mode == "LAB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    except OSError as error:
        raise ImageCms.PyCMSError(error) from error
    fitting = {"L": ("GRAY", "RGB"), "RGB": ("RGB",), "CMYK": ("CMYK",)}.get(image.mode, ())
    return profile if profile.profile.xcolor_space.strip() in fitting else None


class _QuietPillow:
    """Keeps Pillow's warnings about odd files from the user, who gets an image or an ImageError.

    `warnings.catch_warnings` restores a list that all threads share, so threads would undo each other's work. Here the
    first one in adds one entry and the last one out takes it away; the remark in its pattern makes it like no other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._entry: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                warnings.filterwarnings("ignore", module=r"PIL\.(?#difficmh)")
                self._entry = warnings.filters[0]
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._entry in warnings.filters:
                warnings.filters.remove(self._entry)  # type: ignore[attr-defined]


_QUIET_PILLOW = _QuietPillow()


def encode_image(image: Pixels, format: str, description: Mapping[str, str], quality: int | None = None) -> bytes:
    """`image`, `(H, W, 3)` uint8 sRGB, as a file of `format` that says it is a reconstruction.

    `format` is `jpg`, `png` or `webp`; `quality` of JPEG and WebP, 1 to 100, is high where it is not given. The fields
    `Software` and `Description` of `description` go into EXIF (Software and ImageDescription) and XMP (CreatorTool and
    description), all fields into XMP; see `difficmh.marks`.

    Raises ValueError for another format, shape or dtype, and ImageError for a size that the format cannot hold.
    """
    if format not in _ENCODERS:
        raise ValueError(f"image format {format!r} is none of {', '.join(_ENCODERS)}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    name, options = _ENCODERS[format]
    chosen = {} if quality is None or "quality" not in options else {"quality": quality}
    file = io.BytesIO()
    try:
        Image.fromarray(image).save(file, name, **{**options, **chosen}, **reconstruction_marks(name, description))
    except (OSError, ValueError) as error:
        raise ImageError(f"{image.shape[1]} x {image.shape[0]} pixels as {name}: {error}") from error
    return file.getvalue()


def to_pixels(picture: Tensor) -> Pixels:
    """`(3, H, W)` float in [0, 1], on any device, to `(H, W, 3)` uint8 in memory; what lies outside is cut off."""
    pixels: Pixels = np.empty((*picture.shape[1:], 3), np.uint8)
    for channel in range(3):  # one after the other: a picture of 100 megapixels has 1.2 GB as floats
        pixels[..., channel] = (picture[channel].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return pixels
