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
from pipeline import compress_request
from pipeline.compress import CompressJob
from pipeline.compress_request import CompressRequest, InstalledCodec
from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.job import QUIET_RAY, RunOptions, execute, exit_code, started
from pipeline.storage import UrlOpener

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
    request = compress_request.resolved(request, codec)
    manifest = compress_request.describe_output(request, codec)
    output, plan = compress_request.plan_output(manifest, request, options)
    if options.dry_run:
        return 0
    job = CompressJob(
        UrlOpener(options.storage),
        output,
        plan.fingerprint,
        request.coding,
        request.batch_size,
        codec.fingerprint,
        codec.factory,
        decode_image,
    )
    with started(plan, job, request, partial(ray.init, **QUIET_RAY)) as pool:
        compress_request.claim_output(manifest, output, plan, request, codec.capsule)
        return execute(plan, pool, output, request)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(*compress_request.parse(__doc__, EXAMPLES, arguments)))


if __name__ == "__main__":
    sys.exit(main())
