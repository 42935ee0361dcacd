"""Compare codecs on images: real bits per pixel against fidelity, realism, and what models still see in the result."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import ray

from pipeline.evaluate_request import EvaluateRequest, parse
from pipeline.image_source import SourceImage, read_images
from pipeline.job import QUIET_RAY, exit_code
from pipeline.ray_data import mapped
from pipeline.rejects import JobError

if TYPE_CHECKING:
    from difficmh.evaluation.measure import Evaluator, Measurement, Plan
    from difficmh.evaluation.worker import EncodedPicture


def run(request: EvaluateRequest) -> int:
    """Evaluates and prints the findings; the exit status. Raises JobError before any work for what cannot work."""
    from difficmh.evaluation.measure import Evaluator, Plan
    from difficmh.evaluation.output import write_report
    from difficmh.evaluation.report import flat_rows
    from difficmh.evaluation.summary import Request
    from difficmh.evaluation.worker import in_order, watched

    plan = Plan(request.codecs, request.measures, request.device, request.crop_rate, request.detect_in)
    try:
        evaluator = Evaluator(plan)
        names, pictures = prepared(request)
        results = measured(pictures, plan, evaluator, request.workers)
        found = list(watched(results, len(names) * evaluator.points))
    except ValueError as error:
        raise JobError(str(error)) from error
    measurements, settings = in_order(found, names, evaluator.names), Request(request.rates, request.bd_range)
    print(write_report(request.output, measurements, evaluator.metrics, plan, settings))
    write_parquet(request.output / "measurements.parquet", flat_rows(measurements))
    return 0


def prepared(request: EvaluateRequest) -> tuple[list[str], Iterator[EncodedPicture]]:
    """Names of all images, and the images with what is marked in them; they are read twice and never all held."""
    from difficmh.evaluation.labels import classes_by_source, truth
    from difficmh.evaluation.worker import EncodedPicture

    def images() -> Iterator[SourceImage]:
        return islice(read_images(request.images, request.storage_options), request.limit)

    labels = {image.name: image.label for image in images()}
    classes = classes_by_source(labels.values())
    return list(labels), (EncodedPicture(one.name, one.data, truth(one.label, classes)) for one in images())


def measured(
    pictures: Iterable[EncodedPicture], plan: Plan, evaluator: Evaluator, workers: int | None
) -> Iterator[list[Measurement]]:
    from difficmh.evaluation.worker import Worker, measured_here

    if workers is None:
        return measured_here(pictures, plan, evaluator)
    ray.init(**QUIET_RAY)
    return mapped(pictures, len(plan.codecs), partial(Worker, plan), workers)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(__doc__, arguments)))


if __name__ == "__main__":
    sys.exit(main())
