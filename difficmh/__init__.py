"""difficmh: a learned generative image codec, one bitstream for people and machines.

codec = difficmh.load("lite", device="cpu")
streams = codec.compress(images, quality=3)           # list[(H, W, 3) uint8] -> list[bytes]
images = codec.decompress(streams, mode="full")       # list[(3, H, W) float32 in [0, 1]]
info = difficmh.inspect(streams[0])                   # sizes, quality, tags, fingerprint; no networks needed

Importing this package does not import torch; `load` does, and so does the class `Codec`, for annotations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from difficmh.bitstream import BitstreamInfo
from difficmh.bitstream import inspect as _inspect
from difficmh.capsule import capsule_fingerprint, capsule_names, capsule_path
from difficmh.errors import AnalyzerError, BitstreamError, CapsuleError, DifficmhError, ImageError

if TYPE_CHECKING:
    from difficmh.codec import Codec
else:

    def __getattr__(name: str) -> type[Codec]:
        """The class that comes with torch, once somebody asks for it."""
        if name != "Codec":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from difficmh.codec import Codec

        return Codec


__all__ = [
    "AnalyzerError",
    "BitstreamError",
    "BitstreamInfo",
    "CapsuleError",
    "Codec",
    "DifficmhError",
    "ImageError",
    "capsule_fingerprint",
    "capsule_names",
    "capsule_path",
    "inspect",
    "load",
]


def load(name: str | Path, device: str = "cpu", *, dtype: str | None = None, compiled: bool = False) -> Codec:
    """The codec of a built-in or fetched capsule, such as `"lite"`, or of a directory, on a device (`"cpu"`, `"cuda"`).

    `dtype` is the precision of the denoiser where its family leaves a choice: for `sd21` float32, bfloat16 or float16.
    `compiled` puts that denoiser through torch.compile, which costs minutes for the first picture of each size.
    Raises CapsuleError where there is no such capsule, it is damaged, it needs packages that are not installed, or the
    device is a CUDA device that torch does not see here; ValueError for what is no device, a `dtype` that the family
    has not, and for `lite` compiled.
    """
    from difficmh.zoo import load

    return load(name, device, dtype=dtype, compiled=compiled)


def inspect(bitstream: bytes | bytearray | memoryview) -> BitstreamInfo:
    """What a bitstream says about itself; its tags too where its model is on this machine. Raises BitstreamError."""
    from difficmh.vocabulary import known_prior

    return _inspect(bitstream, known_prior)
