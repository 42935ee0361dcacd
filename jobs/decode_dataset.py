"""Decode an archive, or the part of it that a query chooses, to picture files that say they are reconstructions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import ray

import difficmh
from difficmh.images import encode_image
from difficmh.limits import check_drawing
from pipeline import reading
from pipeline.decompress import DecodeJob
from pipeline.job import QUIET_RAY, RunOptions, execute, exit_code, started, whole_number
from pipeline.pictures import Layout, PictureFormat, PictureStyle

EXAMPLES = """examples:
  python jobs/decode_dataset.py --archive ./archive --output ./pictures --mode preview
  python jobs/decode_dataset.py --archive s3://archive/cam --output s3://review/cars --mode full --layout files \\
      --where "list_contains(tags, 'car') AND captured_at > '2026-01-01'"
  ray job submit --working-dir . -- python jobs/decode_dataset.py --archive s3://archive/cam --output s3://review/cam"""


@dataclass(frozen=True)
class DecodeRequest(reading.ReadRequest):
    """The job as it was asked for; stored in pictures.json."""

    format: PictureFormat
    layout: Layout
    quality: int | None


def parse(arguments: Sequence[str] | None) -> tuple[DecodeRequest, RunOptions]:
    """The job and the options of this run. Wrong usage ends the process with status 2."""
    parser = reading.reading_parser(__doc__, EXAMPLES, output="where the pictures go", mode="full")
    add = parser.add_argument
    add("--format", choices=("jpg", "png", "webp"), default="jpg", help="of the files (default: %(default)s)")
    add("--layout", choices=("webdataset", "files"), default="webdataset", help="tars (default), or files in folders")
    add("--quality", type=whole_number(1, 100), metavar="1..100", help="of JPEG and WebP files (default: high)")
    fields, options = reading.parsed(parser, arguments)
    if fields["format"] == "png" and fields["quality"] is not None:
        parser.error("--quality is for jpg and webp: a PNG keeps every pixel")
    return DecodeRequest(**fields), options


def run(request: DecodeRequest, options: RunOptions) -> int:
    """Decodes what is not decoded yet; the exit status. Raises JobError where the job cannot go on."""
    archive = reading.open_archive(request, options, difficmh.load, check_drawing)
    own = {"format": request.format, "layout": request.layout, "quality": request.quality}
    manifest = reading.describe_output("pictures", "decode_dataset", archive, request, own)
    output, plan = reading.plan_output(manifest, archive, request, options)
    if options.dry_run:
        return 0
    style = PictureStyle(request.format, request.layout)
    encoder = partial(encode_image, quality=request.quality)
    job = DecodeJob(archive, output, plan.fingerprint, request.where, request.drawing, style, encoder)
    with started(plan, job, request, partial(ray.init, **QUIET_RAY)) as pool:
        reading.claim_output(manifest, output, plan, request)
        return execute(plan, pool, output, request)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(*parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
