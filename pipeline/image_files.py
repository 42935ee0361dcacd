"""Which files of a shard are images: by their first bytes, or by their name where those say nothing."""

from __future__ import annotations

import re

HEAD_BYTES = 32
"""How many bytes `looks_like_image` needs to see."""

# fmt: off
IMAGE_EXTENSIONS = frozenset({
    "avif", "bmp", "dib", "gif", "heic", "heics", "heif", "heifs", "hif", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe",
    "jpeg", "jpeg2000", "jpf", "jpg", "jpx", "mpo", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp",
})
UNDECODED_EXTENSIONS = frozenset({
    "3fr", "arw", "cr2", "cr3", "dng", "iiq", "jxl", "nef", "nrw", "orf", "pef", "raf", "rw2", "srw",
})
# fmt: on
"""Raw files of cameras and JPEG XL: images that are not decoded, and that nobody shall take for labels."""

_BEGINNINGS = (
    rb"\xff\xd8\xff",  # JPEG
    rb"\x89PNG\r\n\x1a\n",
    rb"GIF8[79]a",
    rb"RIFF....WEBP",
    rb"II\*\0|MM\0\*|II\+\0|MM\0\+",  # TIFF and BigTIFF
    rb"BM.{8}....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",  # BMP, with the size of a known header: text may begin with BM
    rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",  # JPEG 2000
    rb"....ftyp(?:avif|avis|heic|heix|heim|heis|hevc|hevx|mif1|msf1|crx )",
    rb"\0\0\0\x0cJXL \r\n\x87\n",
)
_IMAGE = re.compile(rb"|".join(_BEGINNINGS), re.DOTALL)


def looks_like_image(head: bytes, extension: str) -> bool:
    """Whether a file that begins with `head` and whose name ends in `.extension` is to be treated as an image."""
    return bool(_IMAGE.match(head)) or extension.rpartition(".")[2] in IMAGE_EXTENSIONS | UNDECODED_EXTENSIONS


def named_like_image(path: str) -> bool:
    """Whether the name of a file is that of an image, whatever is in it."""
    return "." in path and looks_like_image(b"", path.lower())
