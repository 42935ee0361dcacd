"""Compress the images of WebDataset shards into an archive that can be searched, decoded and analysed."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ray

import difficmh
from difficmh.capsule import read_config, verify
from difficmh.images import decode_image
from pipeline.compress import CompressSettings, CompressWorkerFactory, Fidelity, check_images
from pipeline.job import execute, exit_code, reaching, storage_options, worker_count
from pipeline.listing import expand
from pipeline.manifest import Manifest, copy_capsule, establish, make_plan
from pipeline.progress import exit_status, plan_line
from pipeline.protocols import CodecFactory
from pipeline.retry import BRIEF
from pipeline.storage import Storage, UrlOpener
from pipeline.totals import RejectLimit

EXAMPLES = """examples:
  python jobs/compress_dataset.py --input photos.tar --archive ./archive --codec lite --quality 3
  python jobs/compress_dataset.py --input 's3://corpus/cam-{000000..000999}.tar' --archive s3://archive/cam --dry-run
  ray job submit --working-dir . -- python jobs/compress_dataset.py --input 's3://corpus/*.tar' --archive s3://archive

exit status: 0 all well, 1 too many rejects or shards left over (run again to resume), 2 wrong usage or configuration
"""


@dataclass(frozen=True)
class CompressJob:
    """The job as it was asked for; stored in archive.json, without credentials."""

    input: Sequence[str]
    archive: str
    codec: str
    quality: int
    workers: int | Literal["auto"]
    batch_size: int
    max_rejects: RejectLimit
    fidelity: Fidelity
    overwrite: bool
    dry_run: bool


def parse(arguments: Sequence[str] | None) -> tuple[CompressJob, dict[str, Any]]:
    """The job and the options for storage. Wrong usage ends the process with status 2."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input", action="append", required=True, metavar="URL", help="shard, glob or {000..999}; may be repeated")
    add("--archive", required=True, metavar="URL", help="where the archive is, or is to be")
    add("--codec", default="lite", help="preset or model directory (default: %(default)s)")
    add("--quality", type=int, default=3, help="1 (smallest) to 6 (best) for lite (default: %(default)s)")
    add("--workers", type=worker_count, default="auto", metavar="N", help="actors; auto: one per GPU or two cores")
    add("--batch-size", type=int, default=16, help="most images of one size at once (default: %(default)s)")
    add("--max-rejects", type=RejectLimit.parse, default="1%", help="20, 0.01 or 1%% (default: 1%%)")
    add("--fidelity", choices=("preview", "none"), default="preview", help="measure PSNR on the preview, or nothing")
    add("--overwrite", action="store_true", help="redo shards whose source or settings changed")
    add("--dry-run", action="store_true", help="say what would be done, write nothing")
    add("--storage-options", type=storage_options, default={}, metavar="JSON", help="for fsspec; never stored")
    options = vars(parser.parse_args(arguments))
    storage = options.pop("storage_options")
    return CompressJob(**options), storage


@dataclass(frozen=True)
class InstalledCodec:
    """A codec that this machine has, without its networks: those are for the workers."""

    name: str
    fingerprint: str
    capsule: Path
    factory: CodecFactory


def installed_codec(name: str) -> InstalledCodec:
    """Raises CapsuleError where there is no such codec, or its files are not what its manifest says."""
    capsule = difficmh.capsule_path(name).resolve()
    verify(capsule)
    # Workers on other machines have the built-in capsules in folders of their own.
    load = partial(difficmh.load, name if name in difficmh.capsule_names() else str(capsule))
    return InstalledCodec(read_config(capsule)["name"], difficmh.capsule_fingerprint(capsule), capsule, load)


def run(job: CompressJob, options: dict[str, Any]) -> int:
    """Compresses what is not compressed yet; the exit status. Raises JobError where the job cannot go on."""
    with reaching(job.codec):
        codec = installed_codec(job.codec)
    sources = expand(job.input, options)
    archive, inputs = Storage.from_url(job.archive, options), UrlOpener(options)
    deciding = {"quality": job.quality, "fidelity": job.fidelity}
    manifest = Manifest("archive", "compress_dataset", codec.name, codec.fingerprint, deciding, asdict(job))
    with reaching(job.archive):
        plan = make_plan(replace(archive, retry=BRIEF), manifest, sources, job.overwrite)
    check_images(plan.pending, inputs)
    print(plan_line(plan, job.archive), flush=True)
    if job.dry_run:
        return 0
    with reaching(job.archive):
        establish(archive, manifest, plan)
        copy_capsule(archive, codec.capsule)
    settings = CompressSettings(
        archive, inputs, plan.fingerprint, codec.fingerprint, job.quality, job.batch_size, job.fidelity
    )
    if plan.pending:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    workers = CompressWorkerFactory(settings, codec.factory, decode_image)
    return exit_status(execute(plan, workers, archive, job.workers), job.max_rejects)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(*parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
