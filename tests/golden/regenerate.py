"""Writes the golden streams of the built-in codec: `python -m tests.golden.regenerate`.

Run it when a release brings new weights, never to make a failing test pass: a stream that no longer decodes is a broken
archive. Goldens of weights that were released stay, in a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

import difficmh
from difficmh.codec import Codec
from tests.difficmh.tiny_capsule import photograph

GOLDEN = Path(__file__).parent / "v1"
CASES = {
    "one-pixel": ((1, 1), 3, ()),
    "odd-size": ((97, 131), 1, ("car", "road")),
    "portrait": ((192, 128), 4, ("person",)),
    "landscape": ((128, 256), 6, ()),
}
"""Name of each case: size, quality, tags."""


def digest(codec: Codec, stream: bytes) -> str:
    """SHA-256 of everything that a stream says exactly: tags and y_hat."""
    decoded = codec.read(stream)
    content = json.dumps(decoded.tags).encode() + np.ascontiguousarray(decoded.latents.y_hat.numpy()).tobytes()
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    codec = difficmh.load("lite")
    expected = {}
    for name, (size, quality, tags) in CASES.items():
        (stream,) = codec.compress([photograph(*size)], quality=quality, tags=[tags])
        (GOLDEN / f"{name}.dicm").write_bytes(stream)
        (decoded,) = codec.decompress([stream], mode="preview")
        pixels = (255 * decoded).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(GOLDEN / f"{name}.preview.png")
        expected[name] = {"sha256": digest(codec, stream), "tags": sorted(tags), "fingerprint": codec.fingerprint}
    (GOLDEN / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
