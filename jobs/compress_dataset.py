"""Compress the images of WebDataset shards into an archive that can be searched, decoded and analysed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import ray

import difficmh
from difficmh.capsule import built_in_names, read_name, verify
from difficmh.images import decode_image
from difficmh.limits import read_limits
from pipeline.capsule import copy_capsule
from pipeline.compress import CompressWorkerFactory
from pipeline.compress_request import (
    CompressRequest,
    InstalledCodec,
    check_images,
    describe_archive,
    parse_request,
    resolved,
    worker_settings,
)
from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.job import QUIET_RAY, RunOptions, execute, exit_code, started
from pipeline.listing import expand
from pipeline.manifest import establish, make_plan
from pipeline.progress import plan_line
from pipeline.storage import Storage, UrlOpener

EXAMPLES = """examples:
  python jobs/compress_dataset.py --input photos.tar --archive ./archive --codec lite --quality 3
  python jobs/compress_dataset.py --input 's3://corpus/cam-{000000..000999}.tar' --archive s3://archive/cam --dry-run
  ray job submit --working-dir . -- python jobs/compress_dataset.py --input 's3://corpus/*.tar' --archive s3://archive"""


def installed_codec(name: str) -> InstalledCodec:
    """Raises JobError where there is no such codec, or its files are not what its manifest says."""
    try:
        capsule = difficmh.capsule_path(name).resolve()
        verify(capsule, again=False)
        named, limits = read_name(capsule), read_limits(capsule)
    except difficmh.CapsuleError as error:
        raise JobError(str(error)) from error
    # Workers on other machines have the built-in capsules in folders of their own.
    load = partial(difficmh.load, name if name in built_in_names() else str(capsule))
    return InstalledCodec(named, difficmh.capsule_fingerprint(capsule), capsule, load, **vars(limits))


def run(request: CompressRequest, options: RunOptions) -> int:
    """Compresses what is not compressed yet; the exit status. Raises JobError where the job cannot go on."""
    with reaching(request.codec):
        codec = installed_codec(request.codec)
    job = resolved(request, codec)
    sources = expand(job.input, options.storage)
    archive, inputs = Storage.from_url(job.archive, options.storage), UrlOpener(options.storage)
    manifest = describe_archive(job, codec)
    with reaching(job.archive):
        plan = make_plan(archive, manifest, sources, job.overwrite)
    check_images(plan, inputs)
    print(plan_line(plan, archive.url), flush=True)
    if options.dry_run:
        return 0
    settings = worker_settings(job, codec, archive, inputs, plan.fingerprint)
    factory = CompressWorkerFactory(settings, codec.factory, decode_image)
    with started(plan, factory, job, partial(ray.init, **QUIET_RAY)) as pool:
        with reaching(job.archive):
            establish(archive, manifest, plan)
            copy_capsule(archive, codec.capsule)
        return execute(plan, pool, archive, job)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(*parse_request(__doc__, EXAMPLES, arguments)))


if __name__ == "__main__":
    sys.exit(main())
