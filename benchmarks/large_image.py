"""Peak memory of one large picture through the codec, as JSON: compressing it, previewing and fully decoding it.

    python -m benchmarks.large_image                     # 100 megapixels, preset lite, quality 3
    python -m benchmarks.large_image --megapixels 4

Each step is a process of its own that does nothing else: it makes or reads what the step needs, loads the codec and
does the step once. The peak counts everything in that process: the interpreter, torch, weights and the picture itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory
from pipeline.protocols import Image

STEPS = ("compress", "preview", "full")
TARGET_MIB = 4096
PERIOD = 0.02
STREAM = "picture.dicm"


@dataclass(frozen=True)
class Setting:
    """What to measure."""

    codec: str
    quality: int
    megapixels: float


def main(arguments: Sequence[str] | None = None) -> None:
    import torch

    setting, step, folder = parse_arguments(arguments)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if step is not None:
        run_step(setting, step, folder)
        return
    with tempfile.TemporaryDirectory() as place:
        peaks = {step: peak_of_step(setting, step, Path(place)) for step in STEPS}
        stream_bytes = (Path(place) / STREAM).stat().st_size
    print(json.dumps(summary(setting, peaks, stream_bytes), indent=2))


def parse_arguments(arguments: Sequence[str] | None) -> tuple[Setting, str | None, Path]:
    """The setting and, in the process of one step, that step and where its stream lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="lite")
    parser.add_argument("--quality", type=int, default=3)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    return Setting(options.codec, options.quality, options.megapixels), options.step, options.folder


def picture_size(megapixels: float) -> tuple[int, int]:
    """Height and width at 4 : 3, the shape of large sensors; not multiples of 64."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    return height, round(megapixels * 1e6 / height)


def synthetic_picture(height: int, width: int) -> Image:
    """`(height, width, 3)` uint8: slopes, waves, coarse and fine grain, made row by row."""
    generator = np.random.default_rng(0)
    across = np.linspace(0, 1, width)[:, None] * np.array([200.0, 120.0, 60.0]) + 25
    waves = 20 * np.sin(np.arange(width)[:, None] * np.array([0.05, 0.11, 0.23]))
    picture = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        if row % 4 == 0:  # coarse enough for a codec to keep, so that there are symbols to hold
            coarse = np.repeat(25 * generator.standard_normal(-(-width // 4)), 4)[:width, None]
        fine = 6 * generator.standard_normal((width, 1))
        picture[row] = (across + waves * math.sin(0.03 * row) + coarse + fine).clip(0, 255)
    return picture


def peak_of_step(setting: Setting, step: str, folder: Path) -> float:
    """Largest resident memory in MiB of a process that does one step. Raises CalledProcessError where it fails."""
    options = ["--codec", setting.codec, "--quality", str(setting.quality), "--megapixels", str(setting.megapixels)]
    command = [sys.executable, "-m", "benchmarks.large_image", *options, "--step", step, "--folder", str(folder)]
    root = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": root})
    with PeakMemory(process.pid, lambda each: step if each.pid == process.pid else None, PERIOD) as memory:
        status = process.wait()
    if status:
        raise subprocess.CalledProcessError(status, command)
    return memory.peaks[step]


def run_step(setting: Setting, step: str, folder: Path) -> None:
    """One step in this process; the stream goes from one step to the next through `folder`."""
    import difficmh

    codec = difficmh.load(setting.codec)
    path = folder / STREAM
    if step == "compress":
        (stream,) = codec.compress([synthetic_picture(*picture_size(setting.megapixels))], quality=setting.quality)
        path.write_bytes(stream)
    else:
        codec.decompress([path.read_bytes()], mode="preview" if step == "preview" else "full")


def summary(setting: Setting, peaks: dict[str, float], stream_bytes: int) -> dict[str, object]:
    height, width = picture_size(setting.megapixels)
    return {
        "peak_mib": {step: {"measured": round(peak), "target": TARGET_MIB} for step, peak in peaks.items()},
        "bits_per_pixel": round(8 * stream_bytes / (height * width), 3),
        "size": [width, height],
        "setting": asdict(setting),
        "machine": asdict(describe_machine()),
    }


if __name__ == "__main__":
    main()
