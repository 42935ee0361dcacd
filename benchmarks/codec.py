"""Speed of the codec beside networks of known cost, as JSON.

    python -m benchmarks.codec                  # preset lite, quality 3, one thread per core
    python -m benchmarks.codec --images 4 --rounds 3

The yardsticks are compressai's transforms with random weights, whose time does not depend on their values:
`bmshj2018_hyperprior(4)` (`g_a` encodes, `g_s` decodes) and `cheng2020_attn(3)`. Each round runs everything on the same
pictures, in the same batches, so that the ratios hold on any machine, also a busy one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

import difficmh
from benchmarks.images import HEIGHT, WIDTH, benchmark_images
from benchmarks.machine import describe_machine
from benchmarks.timing import Action, Timings, time_in_rounds
from difficmh.codec import Codec, Image
from difficmh.third_party import quiet_torchscript
from difficmh.tiling import tiles

T = TypeVar("T")

MEGAPIXELS = WIDTH * HEIGHT / 1e6
RATIOS = {
    "encode / bmshj2018_hyperprior(4).g_a": ("encode", "bmshj2018.g_a", 3.0),
    "preview / bmshj2018_hyperprior(4).g_s": ("preview", "bmshj2018.g_s", 2.0),
    "full / cheng2020_attn(3).g_s": ("full", "cheng2020.g_s", 1.5),
}
"""Name of a ratio: action, yardstick, and the most it should be."""


@dataclass(frozen=True)
class Setting:
    """What to measure."""

    codec: str
    quality: int
    images: int
    batch_size: int
    rounds: int


def main() -> None:
    setting = parse_arguments()
    codec = difficmh.load(setting.codec)
    images = benchmark_images(setting.images)
    with torch.inference_mode():
        timings = time_in_rounds({**codec_actions(codec, images, setting), **yardsticks(setting)}, setting.rounds)
    print(json.dumps(summary(setting, timings), indent=2))


def parse_arguments() -> Setting:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="lite")
    parser.add_argument("--quality", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    return Setting(**vars(parser.parse_args()))


def codec_actions(codec: Codec, images: Sequence[Image], setting: Setting) -> dict[str, Action]:
    """Encode and both decodes over all images, and what they spend on tagger, transforms and entropy coding."""
    batches = split(images, setting.batch_size)
    tags = [[[tag.name for tag in one] for one in codec.tag(batch)] for batch in batches]
    streams = [codec.compress(batch, quality=setting.quality) for batch in batches]
    return {
        "encode": lambda: [codec.compress(batch, quality=setting.quality) for batch in batches],
        "tagger": lambda: [codec.tag(batch) for batch in batches],
        "encode, tags given": lambda: [
            codec.compress(batch, quality=setting.quality, tags=known)
            for batch, known in zip(batches, tags, strict=True)
        ],
        "transforms of encode": lambda: [transform(codec, image, setting.quality) for image in images],
        "entropy decoding": lambda: [codec.read_all(batch) for batch in streams],
        "preview": lambda: [codec.decompress(batch, mode="preview") for batch in streams],
        "full": lambda: [codec.decompress(batch, mode="full") for batch in streams],
    }


def transform(codec: Codec, image: Image, quality: int) -> object:
    """y and z of one image: the networks of encode before any entropy coding."""
    pixels = torch.from_numpy(image)[None].to(codec.device).permute(0, 3, 1, 2).float() / 255
    height, width, _ = image.shape
    (tile,) = tiles(height, width, codec.networks.tile, 0)
    return codec.networks.analyze(pixels, tile, torch.tensor([quality - 1], device=codec.device))


def yardsticks(setting: Setting) -> dict[str, Action]:
    """compressai's transforms over as many pictures, in the same batches."""
    with quiet_torchscript():
        import compressai.zoo
    hyperprior = compressai.zoo.bmshj2018_hyperprior(4, pretrained=False).eval()
    cheng = compressai.zoo.cheng2020_attn(3, pretrained=False).eval()
    sizes = [len(batch) for batch in split(range(setting.images), setting.batch_size)]
    pictures = [torch.rand(size, 3, HEIGHT, WIDTH) for size in sizes]
    latents = [hyperprior.g_a(batch) for batch in pictures]
    cheng_latents = [cheng.g_a(batch) for batch in pictures]
    return {
        "bmshj2018.g_a": lambda: [hyperprior.g_a(batch) for batch in pictures],
        "bmshj2018.g_s": lambda: [hyperprior.g_s(batch) for batch in latents],
        "cheng2020.g_s": lambda: [cheng.g_s(batch) for batch in cheng_latents],
    }


def summary(setting: Setting, timings: Timings) -> dict[str, object]:
    """Ratios first: they are the result; images/s and ms/MP belong to the machine named below them."""
    return {
        "ratios": {
            name: {"measured": round(timings.ratio(action, yardstick), 2), "target": target}
            for name, (action, yardstick, target) in RATIOS.items()
        },
        "images_per_second": {name: round(setting.images / timings.best(name), 2) for name in timings.seconds},
        "ms_per_megapixel": {
            name: round(1000 * timings.best(name) / (setting.images * MEGAPIXELS), 1) for name in timings.seconds
        },
        "size": [WIDTH, HEIGHT],
        "setting": asdict(setting),
        "machine": asdict(describe_machine()),
    }


def split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


if __name__ == "__main__":
    main()
