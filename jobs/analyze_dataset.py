"""Ask a model about the images of an archive, or of the part of it that a query chooses; answers come as Parquet."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import ray

import difficmh
from difficmh.analyzers.factory import analyzer_files, parse_analyzer
from difficmh.limits import check_drawing
from pipeline import reading
from pipeline.analyze import AnalyzeJob
from pipeline.explanations import reaching
from pipeline.job import QUIET_RAY, RunOptions, execute, exit_code, started

EXAMPLES = """examples:
  python jobs/analyze_dataset.py --archive ./archive --analyzer imagenet --output ./labels
  python jobs/analyze_dataset.py --archive s3://archive/cam --analyzer onnx:models/detector.onnx --mode full \\
      --where "list_contains(tags, 'car')" --output s3://results/cars
  python jobs/analyze_dataset.py --archive ./archive --analyzer python:mymodels.faces:make --output ./faces

--analyzer is one of
  imagenet                 the five likeliest ImageNet classes, by EfficientNet-Lite2
  onnx:FILE                raw outputs of a network with one image input; FILE with .json instead of .onnx may say how
                           it wants its input (see difficmh/analyzers/onnx.py); every worker must find FILE
  python:MODULE:FACTORY    what MODULE.FACTORY("cpu" or "cuda") returns (an example ends docs/archive.md); MODULE is
                           installed, or lies in the current folder

Answers of one model are not mixed with those of another: a job refuses to go on where the model's file, options or
weights beside it (FILE and more), or MODULE's own file, have changed. It does not see what MODULE imports.

--mode is preview unless you say otherwise: with lite it takes half the time, and detectors answer about the same.
Choose full for classifiers on archives of quality 1 to 3: they come closer there to their answers about the originals.

The answers join to the archive by key and shard. An image that the model fails on becomes a reject; where a worker's
first 20 fail with one kind of error, the job ends. Parts written so far count as done: start with an empty --output."""


@dataclass(frozen=True)
class AnalyzeRequest(reading.ReadRequest):
    """The job as it was asked for; stored in results.json."""

    analyzer: str


def parse(arguments: Sequence[str] | None) -> tuple[AnalyzeRequest, RunOptions]:
    """The job and the options of this run. Wrong usage ends the process with status 2."""
    parser = reading.reading_parser(__doc__, EXAMPLES, output="where the answers go", mode="preview")
    parser.add_argument("--analyzer", required=True, metavar="NAME", help="which model, see below")
    fields, options = reading.parsed(parser, arguments)
    return AnalyzeRequest(**fields), options


def run(request: AnalyzeRequest, options: RunOptions) -> int:
    """Analyzes what is not analyzed yet; the exit status. Raises JobError where the job cannot go on."""
    with reaching(request.analyzer):
        analyzer_factory = parse_analyzer(request.analyzer)
    archive = reading.open_archive(request, options, difficmh.load, check_drawing)
    own = {"analyzer": request.analyzer, **analyzer_files(analyzer_factory)}
    manifest = reading.describe_output("results", "analyze_dataset", archive, request, own)
    output, plan = reading.plan_output(manifest, archive, request, options)
    if options.dry_run:
        return 0
    job = AnalyzeJob(archive, output, plan.fingerprint, request.where, request.drawing, analyzer_factory)
    with started(plan, job, request, partial(ray.init, **QUIET_RAY)) as pool:
        reading.claim_output(manifest, output, plan, request)
        return execute(plan, pool, output, request)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(*parse(arguments)))


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # where the user's own module may be; Ray's workers look there by themselves
    sys.exit(main())
