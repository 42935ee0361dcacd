"""Small images and tars for tests, ordinary and odd."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Member = tuple[str, bytes]
"""A file of a tar: name and content."""


def picture(seed: int = 0, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """`(height, width, 3)` uint8: two smooth colour gradients and a little noise, different for each seed."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 1, height)[:, None, None]
    columns = np.linspace(0, 1, width)[None, :, None]
    base, down, across = random.uniform(0, 100, (3, 3))
    noise = random.uniform(0, 16, (height, width, 3))
    pixels: NDArray[np.uint8] = (base + down * rows + across * columns + noise).clip(0, 255).astype(np.uint8)
    return pixels


def image_bytes(pixels: NDArray[Any], format: str = "JPEG", **options: Any) -> bytes:
    """`pixels` as an image file; `options` go to Pillow's `save`."""
    return saved(Image.fromarray(pixels), format, **options)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """A Pillow image as a file of Pillow's `format`."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg(seed: int = 0, height: int = 24, width: int = 32, **options: Any) -> bytes:
    return image_bytes(picture(seed, height, width), "JPEG", **options)


def png(seed: int = 0, height: int = 24, width: int = 32, **options: Any) -> bytes:
    return image_bytes(picture(seed, height, width), "PNG", **options)


def tar_bytes(
    members: Iterable[Member | tarfile.TarInfo], compress: bool = False, format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar of files in the order given; a `TarInfo` is added as it is, without content (links, folders)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0) if compress else file.getvalue()


def special_member(name: str, type: bytes, target: str = "") -> tarfile.TarInfo:
    """A tar member that is no file: `tarfile.DIRTYPE`, `SYMTYPE`, `LNKTYPE`, `FIFOTYPE`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, target
    return info


def sample_members(key: str, seed: int = 0, metadata: Any = None) -> list[Member]:
    """A JPEG and, where given, a JSON file beside it."""
    members = [(f"{key}.jpg", jpeg(seed))]
    return members if metadata is None else [*members, (f"{key}.json", json.dumps(metadata).encode())]


def shard_members(images: int, start: int = 0) -> list[Member]:
    """An ordinary shard's files: samples `000000`, … of an image, a JSON object and a class each."""
    members: list[Member] = []
    for index in range(start, start + images):
        members += sample_members(f"{index:06d}", seed=index, metadata={"index": index, "camera": f"cam-{index % 3}"})
        members.append((f"{index:06d}.cls", str(index % 10).encode()))
    return members


def shard_bytes(images: int, start: int = 0, compress: bool = False) -> bytes:
    return tar_bytes(shard_members(images, start), compress)


def write_corpus(directory: Path, shards: int = 2, images: int = 3) -> list[Path]:
    """`shards` tars of `images` images each, keys counting on from shard to shard; their paths in order."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"corpus-{shard:06d}.tar" for shard in range(shards)]
    for shard, path in enumerate(paths):
        path.write_bytes(shard_bytes(images, start=shard * images))
    return paths


def truncated(data: bytes, keep: float) -> bytes:
    """The first part of `data`, as an interrupted copy leaves it."""
    return data[: int(len(data) * keep)]


def odd_shards() -> dict[str, bytes]:
    """Tars as found in the wild, by what is odd about them. Each one reads without an exception."""
    good: Sequence[Member] = shard_members(2)
    return {
        "empty": tar_bytes([]),
        "zero-bytes": b"",
        "no-images": tar_bytes([("000000.json", b"{}"), ("000001.txt", b"text")]),
        "zero-byte-image": tar_bytes([*good, ("000009.jpg", b"")]),
        "not-an-image": tar_bytes([*good, ("000009.jpg", b"these bytes are no picture")]),
        "broken-image": tar_bytes([*good, ("000009.jpg", truncated(jpeg(9), 0.6))]),
        "twice-under-one-key": tar_bytes([("a.jpg", jpeg(1)), ("a.jpg", jpeg(2))]),
        "wrong-extension": tar_bytes([("a.png", jpeg(1)), ("b.bin", jpeg(2)), ("c", jpeg(3))]),
        "upper-case": tar_bytes([("a.JPG", jpeg(1)), ("a.JSON", b'{"camera": "x"}')]),
        "stereo": tar_bytes([("a.left.jpg", jpeg(1)), ("a.right.jpg", jpeg(2)), ("a.json", b"{}")]),
        "unsorted": tar_bytes([("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("a.json", b'{"late": 1}')]),
        "bad-json": tar_bytes([("a.jpg", jpeg(1)), ("a.json", b"{not json")]),
        "truncated": truncated(tar_bytes(good), 0.5),
        "not-a-tar": b"these bytes are no tar" * 100,
        "gzip": tar_bytes(good, compress=True),
        "broken-gzip": truncated(tar_bytes(good, compress=True), 0.5),
    }
