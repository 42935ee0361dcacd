"""What an encoder's effort buys: bits at equal quality, and what it costs in seconds, as JSON.

    python -m benchmarks.effort
    python -m benchmarks.effort --codec my-codec --efforts 0 5 10 20 --images 8

Real bytes of the demo's photographs, without tags; PSNR and MS-SSIM of the preview. BD-rates are against the first
effort, over the qualities. For pictures of your own, and other codecs beside: `jobs/evaluate_codec.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

import difficmh
from benchmarks.images import benchmark_images
from benchmarks.machine import describe_machine
from difficmh.codec import Codec, Image
from difficmh.metrics import ms_ssim_db, psnr
from difficmh.rate_distortion import Curve, Point, bd_rate


@dataclass(frozen=True)
class Measured:
    """Means over the pictures; `seconds` to compress one."""

    effort: int
    quality: int
    bits_per_pixel: float
    psnr: float
    ms_ssim_db: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--codec", default="lite")
    add("--device", default="cpu")
    add("--efforts", type=int, nargs="+", default=(0, 5, 10, 20))
    add("--qualities", type=int, nargs="+", default=(2, 4, 6))
    add("--images", type=int, default=4)
    add("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    codec, images = difficmh.load(options.codec, options.device), benchmark_images(options.images)
    found = [measure(codec, images, effort, quality) for effort in options.efforts for quality in options.qualities]
    report = {
        "bd_rate": [savings(found, effort, options.efforts[0]) for effort in options.efforts[1:]],
        "points": [asdict(each) for each in found],
        "setting": vars(options),
        "machine": asdict(describe_machine()),
    }
    print(json.dumps(report, indent=2))


def measure(codec: Codec, images: Sequence[Image], effort: int, quality: int) -> Measured:
    """Compresses the pictures and looks at their previews."""
    start = time.perf_counter()
    streams = codec.compress(images, quality=quality, tags=[[]] * len(images), effort=effort)
    seconds = (time.perf_counter() - start) / len(images)
    pixels = [
        (picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        for picture in codec.decompress(streams, mode="preview")
    ]
    pairs = list(zip(images, pixels, strict=True))
    return Measured(
        effort,
        quality,
        float(np.mean([8 * len(s) / (i.shape[0] * i.shape[1]) for s, i in zip(streams, images, strict=True)])),
        float(np.mean([psnr(*pair) for pair in pairs])),
        float(np.mean([ms_ssim_db(*pair) for pair in pairs])),
        seconds,
    )


def savings(found: Sequence[Measured], effort: int, reference: int) -> dict[str, float | None]:
    """BD-rates of an effort against another in per cent, None where curves share no quality; how much slower it is."""
    other, mine = ([each for each in found if each.effort == one] for one in (reference, effort))
    return {
        "effort": effort,
        "psnr": bd_rate(curve(other, "psnr"), curve(mine, "psnr")),
        "ms_ssim": bd_rate(curve(other, "ms_ssim_db"), curve(mine, "ms_ssim_db")),
        "times as slow": sum(each.seconds for each in mine) / sum(each.seconds for each in other),
    }


def curve(points: Sequence[Measured], measure: str) -> Curve:
    """A measure, one of the fields in dB, over bits per pixel."""
    return Curve.through([Point(each.bits_per_pixel, getattr(each, measure)) for each in points])


if __name__ == "__main__":
    main()
