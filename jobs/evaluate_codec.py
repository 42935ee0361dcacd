"""Compare codecs on images: real bytes per pixel, PSNR, MS-SSIM, seconds; means, fixed rates, BD rates, a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from difficmh.images import decode_image
from pipeline.image_source import read_images
from pipeline.job import exit_code, storage_options
from pipeline.rejects import JobError

if TYPE_CHECKING:
    from difficmh.evaluation import Contestant, Measurement

EXAMPLES = """examples:
  python jobs/evaluate_codec.py --images 's3://photos/eval/*.tar' --codec difficmh:lite@1-6:preview \\
      --codec difficmh:lite@1-6:full --codec webp --codec jpeg --codec avif --output runs/evaluation
  python jobs/evaluate_codec.py --images photos/ --codec difficmh:runs/capsule:full --codec webp@10,40,70 \\
      --output runs/mine --limit 8 --ssimulacra2

A codec is jpeg, webp or avif, or difficmh:CAPSULE with a mode (preview, full, reference); @ lists qualities. BD rates
are against each of the baselines. The output folder gets measurements.csv, evaluation.json and curves.png."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=formatter)
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="URL", help="folders of images, or WebDataset shards")
    add("--codec", action="append", required=True, help="may be given several times, see below")
    add("--output", type=Path, required=True, metavar="DIR", help="local folder for the report")
    add("--limit", type=int, metavar="N", help="the first N images only")
    add("--ssimulacra2", action="store_true", help="measure SSIMULACRA 2 too (slow)")
    add("--device", default="cpu", help="cpu or cuda, for the learned codecs (default: %(default)s)")
    add("--storage-options", type=storage_options, metavar="JSON", help="for fsspec, such as an endpoint")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Evaluates and prints the table; the exit status. Raises JobError before any work for what cannot work."""
    from difficmh.baselines import BASELINES
    from difficmh.evaluation import parse_contestant
    from difficmh.evaluation_report import write_report

    try:
        contestants = [parse_contestant(text)(options.device) for text in options.codec]
    except ValueError as error:
        raise JobError(str(error)) from error
    encoded = list(islice(read_images(options.images, options.storage_options), options.limit))
    measurements = [one for contestant in contestants for one in measured(contestant, encoded, options.ssimulacra2)]
    references = [contestant.name for contestant in contestants if contestant.name in BASELINES]
    print(write_report(options.output, measurements, references))
    return 0


def measured(
    contestant: Contestant, encoded: Sequence[tuple[str, bytes]], with_ssimulacra2: bool
) -> Iterator[Measurement]:
    from difficmh.evaluation import measure

    for done, (name, data) in enumerate(encoded, 1):
        yield from measure(contestant, [(name, decode_image(data))], with_ssimulacra2)
        print(f"\r{contestant.name}: {done} of {len(encoded)} images", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
