"""Compare codecs on images: real bytes per pixel, PSNR, MS-SSIM, seconds; means, fixed rates, BD rates, a plot.

    python jobs/evaluate_codec.py --images '../shared/data/eval/*.tar' --codec difficmh:lite@1-6:preview \\
        --codec difficmh:lite@1-6:full --codec webp --codec jpeg --codec avif --output runs/evaluation
    python jobs/evaluate_codec.py --images photos/ --codec difficmh:runs/capsule:full --codec webp@10,40,70 \\
        --output runs/mine --limit 8 --ssimulacra2

--images takes folders, WebDataset tars and patterns of both. A codec is jpeg, webp or avif, or difficmh:CAPSULE with a
decoding mode (preview, full, reference); @ lists qualities. The output folder gets measurements.csv, evaluation.json
and curves.png. BD rates are against the baselines among the codecs.
"""

from __future__ import annotations

import argparse
import glob
import sys
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from difficmh.evaluation import Image, Measurement

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    from difficmh.baselines import BASELINES
    from difficmh.evaluation import measure, parse_contestant
    from difficmh.evaluation_report import write_report

    try:
        makers = [parse_contestant(text) for text in options.codec]
    except ValueError as error:
        raise SystemExit(str(error)) from error
    images = list(islice(read_images(options.images), options.limit))
    if not images:
        raise SystemExit(f"no images in {', '.join(options.images)}")
    measurements: list[Measurement] = []
    names: list[str] = []
    for maker in makers:
        contestant = maker(options.device)
        names.append(contestant.name)
        print(f"{contestant.name}: {len(images)} images", file=sys.stderr, flush=True)
        measurements += measure(contestant, images, options.ssimulacra2)
    print(write_report(options.output, measurements, [name for name in names if name in BASELINES]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", nargs="+", required=True, metavar="URL", help="folders or tars of images")
    parser.add_argument("--codec", action="append", required=True, help="may be given several times")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--ssimulacra2", action="store_true", help="measure SSIMULACRA 2 too (slow)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the learned codecs (default: cpu)")
    return parser.parse_args(arguments)


def read_images(patterns: Sequence[str]) -> Iterator[tuple[str, Image]]:
    """Names and `(H, W, 3)` uint8 pixels of all images of folders and tars, in the order given."""
    from difficmh.images import decode_image

    for path in (Path(path) for pattern in patterns for path in sorted(glob.glob(pattern))):
        for name, data in _folder(path) if path.is_dir() else _tar(path):
            yield f"{path.name}/{name}", decode_image(data)


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            yield str(file.relative_to(path)), file.read_bytes()


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                yield member.name, file.read()


if __name__ == "__main__":
    main()
