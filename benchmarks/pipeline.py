"""The compression job beside the bare codec loop on the same pictures, and the memory of its processes, as JSON.

    python -m benchmarks.pipeline                        # preset lite, quality 3, five shards of 24 pictures
    python -m benchmarks.pipeline --shards 3 --images 8

The job is `jobs/compress_dataset.py` on a local Ray with one worker. Its speed is that of all shards after the first,
by the times of their reports: starting Ray and loading the model do not count, but reading, decoding JPEG, writing and
committing do. The bare loop has the pictures decoded in memory and does what the job asks of the codec: tags,
bitstreams, and the preview that the stored fidelity is measured on. It runs before and after the job, with as many
threads.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from PIL import Image as PillowImage

import difficmh
from benchmarks.images import HEIGHT, WIDTH, benchmark_images
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory
from difficmh.codec import Codec, Image

JOB = Path(__file__).resolve().parents[1] / "jobs" / "compress_dataset.py"
TARGETS = {"pipeline / bare loop": 0.9, "worker_mib": 2560, "driver_mib": 400}
BATCH = 4


@dataclass(frozen=True)
class Setting:
    """What to measure; `images` per shard."""

    codec: str
    quality: int
    shards: int
    images: int


def main() -> None:
    setting = parse_arguments()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    codec = difficmh.load(setting.codec)
    files = [encode_jpeg(image) for image in benchmark_images(setting.images)]
    images = [decode_jpeg(file) for file in files]
    with tempfile.TemporaryDirectory() as folder:
        write_shards(files, setting.shards, Path(folder) / "shards")
        before = bare_loop(codec, images, setting.quality)
        peaks = run_job(setting, Path(folder))
        after = bare_loop(codec, images, setting.quality)
        job = job_speed(Path(folder) / "archive" / "reports", setting)
    print(json.dumps(summary(setting, job, [before, after], peaks), indent=2))


def parse_arguments() -> Setting:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="lite")
    parser.add_argument("--quality", type=int, default=3)
    parser.add_argument("--shards", type=int, default=5, help="two at least: the first one's time is not counted")
    parser.add_argument("--images", type=int, default=24, help="per shard")
    setting = Setting(**vars(parser.parse_args()))
    if setting.shards < 2:
        parser.error("--shards: two at least")
    return setting


def encode_jpeg(image: Image) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def decode_jpeg(data: bytes) -> Image:
    from difficmh.images import decode_image

    return decode_image(data)


def write_shards(files: Sequence[bytes], shards: int, folder: Path) -> None:
    """The same pictures in every shard, under other keys."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for number, data in enumerate(files):
                info = tarfile.TarInfo(f"{shard:06d}-{number:06d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def bare_loop(codec: Codec, images: Sequence[Image], quality: int) -> float:
    """Images per second of the codec alone."""
    codec.decompress(codec.compress(images[:1], quality=quality), mode="preview")
    start = time.perf_counter()
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        tags = [[tag.name for tag in one] for one in codec.tag(batch)]
        codec.decompress(codec.compress(batch, quality=quality, tags=tags), mode="preview")
    return len(images) / (time.perf_counter() - start)


def run_job(setting: Setting, folder: Path) -> dict[str, float]:
    """Peak memory of driver and worker in MiB. Raises CalledProcessError where the job fails."""
    places = ["--input", f"{folder}/shards/*.tar", "--archive", f"{folder}/archive", "--workers", "1"]
    command = [sys.executable, str(JOB), *places, "--codec", setting.codec, "--quality", str(setting.quality)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, stdout=sys.stderr, env=environment)
    with PeakMemory(process.pid, lambda each: role(each, process.pid)) as memory:
        status = process.wait()
    if status:
        raise subprocess.CalledProcessError(status, command)
    return memory.peaks


def role(process: psutil.Process, driver: int) -> str | None:
    """`driver`, `worker` for Ray's actors at work, None for Ray's own processes."""
    if process.pid == driver:
        return "driver_mib"
    name = " ".join(process.cmdline())
    return "worker_mib" if name.startswith("ray::") and not name.startswith("ray::IDLE") else None


def job_speed(reports: Path, setting: Setting) -> float:
    """Images per second from the first shard's commit to the last one's."""
    committed = sorted(path.stat().st_mtime for path in reports.glob("*.json"))
    return setting.images * (len(committed) - 1) / (committed[-1] - committed[0])


def summary(setting: Setting, job: float, bare: Sequence[float], peaks: dict[str, float]) -> dict[str, object]:
    ratio = job / (sum(bare) / len(bare))
    measured = {"pipeline / bare loop": round(ratio, 3)} | {name: round(peak) for name, peak in sorted(peaks.items())}
    return {
        "results": {name: {"measured": measured.get(name), "target": target} for name, target in TARGETS.items()},
        "images_per_second": {"pipeline": round(job, 2), "bare loop": [round(speed, 2) for speed in bare]},
        "size": [WIDTH, HEIGHT],
        "setting": asdict(setting),
        "machine": asdict(describe_machine()),
    }


if __name__ == "__main__":
    main()
