"""Compare codecs on images: real bits per pixel against fidelity, realism, and what models still see in the result.

examples:
  python jobs/evaluate_codec.py --images 's3://photos/eval/*.tar' --codec difficmh:lite@1-6:preview \\
      --codec difficmh:lite@1-6:full --codec webp --codec jpeg --codec avif --output runs/evaluation
  python jobs/evaluate_codec.py --images photos/ --codec difficmh:runs/capsule:full --codec webp@10,40,70 \\
      --output runs/mine --limit 8 --measure ssimulacra2 --measure detection:models/FastestDet.onnx
  python jobs/evaluate_codec.py --from runs/mine --output runs/mine-low --rates 0.03,0.05 --bd-range 0.03,0.1

A codec is one of these; the first one is on trial: cases are sorted by its deficit.
  jpeg, webp, avif, jpegxl, at usual qualities, or at those behind @: webp@10,40,70
  compressai:ARCHITECTURE=FILE[,FILE...]
  difficmh:CAPSULE[@QUALITIES][:MODE[,steps=N][,tags=off][,effort=N][,name=TEXT]]
    @QUALITIES   such as 1-6 or 1,3 (default: all)
    MODE         preview, full or reference (default: full)
    steps=N      denoising steps (default: the mode's)
    tags=off     encoded without tags
    effort=N     encoded with so many gradient steps
    name=TEXT    what it is called in the report
PSNR and MS-SSIM are always measured; --measure adds
  ssimulacra2              half a second or more for each decoded picture
  lpips, dists             where their packages and weights are on this machine already
  frechet                  distance of patch features of EfficientNet-Lite2; not comparable with published FIDs
  classification           the classes that EfficientNet-Lite2 sees, against those on the original
  detection:FILE.onnx      FastestDet: mAP@50 against marked boxes, agreement with detections on the original
  tags[:CAPSULE]           the tags of a capsule's tagger (default: lite), against those on the original
  analyzer:NAME            agreement of any analyzer: imagenet, onnx:FILE or python:MODULE:FACTORY

The output folder gets index.html, curves.png, evaluation.json and measurements.parquet; docs/evaluating.md explains
them. Errors in what is asked for end the job before any work, with status 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import ray

from pipeline.errors import JobError
from pipeline.evaluate_request import EvaluateRequest, parse
from pipeline.image_source import read_images
from pipeline.job import QUIET_RAY, connect_ray, exit_code
from pipeline.measurement_files import read_files, write_rows
from pipeline.places import check_lasting
from pipeline.ray_data import mapped

if TYPE_CHECKING:
    from difficmh.evaluation.output import Findings
    from difficmh.evaluation.pictures import Pictures


def run(request: EvaluateRequest) -> int:
    """Evaluates and prints the findings; the exit status. Raises JobError before any work for what cannot work."""
    from difficmh.evaluation.earlier import read_earlier
    from difficmh.evaluation.output import prepare_output, refuse_earlier, write_report
    from difficmh.evaluation.rows import flat_rows
    from difficmh.evaluation.summary import Request

    check_lasting(str(request.output.absolute()))
    try:
        refuse_earlier(request.output, request.overwrite)
        findings = read_earlier(*read_files(request.earlier), request.rates) if request.earlier else found(request)
        prepare_output(request.output)  # measuring has done so already, --from has not
        write_rows(request.output, flat_rows(findings.measurements))
        print(write_report(request.output, findings, Request(request.rates, request.bd_range)))
    except ValueError as error:
        raise JobError(str(error)) from error
    return 0


def found(request: EvaluateRequest) -> Findings:
    from difficmh.evaluation.measure import Evaluator, Plan
    from difficmh.evaluation.output import Findings, prepare_output
    from difficmh.evaluation.worker import Worker, in_order, measured_here, watched

    plan = Plan(request.codecs, request.measures, request.device, request.crop_rate, request.detect_in)
    evaluator = Evaluator(plan if request.workers is None else plan.on_the_cpu())
    pictures = prepared(request)
    prepare_output(request.output)
    if request.workers is None:
        results = measured_here(pictures.encoded, plan, evaluator)
    else:
        connect_ray(partial(ray.init, **QUIET_RAY))
        worker = partial(Worker, plan, folder=os.getcwd())  # a cluster that was there before has its own
        results = mapped(pictures.encoded, len(plan.codecs), worker, request.workers, request.worker_gpus)
    measurements = watched(results, len(pictures.names) * evaluator.points)
    measured = in_order(measurements, pictures.names, evaluator.names)
    return Findings(plan, measured, evaluator.metrics, unreadable=pictures.unreadable)


def prepared(request: EvaluateRequest) -> Pictures:
    from difficmh.evaluation.pictures import read_pictures

    labelled = any(measure.startswith("detection:") for measure in request.measures)
    return read_pictures(partial(read_images, request.images, request.storage_options, labelled), request.limit)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(__doc__, arguments)))


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # where the user's own module may be; Ray's workers look there by themselves
    sys.exit(main())
