"""What the compression job can be asked for, and what it checks before work is spent."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.actors import Device
from pipeline.addresses import public, without_password
from pipeline.capsule import copy_capsule
from pipeline.compress import Coding, Fidelity, Tags
from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.image_files import named_like_image
from pipeline.job import EXIT_STATUS, RunOptions, Workers, add_run_arguments, whole_number
from pipeline.listing import HOW_TO_PACK, expand
from pipeline.manifest import Manifest, Plan, establish, make_plan
from pipeline.progress import plan_line
from pipeline.protocols import CodecFactory
from pipeline.records import Failure, Sample, ShardSource
from pipeline.shards import read_shard
from pipeline.storage import Storage, UrlOpener
from pipeline.totals import RejectLimit

SHARDS_LOOKED_INTO = 8


@dataclass(frozen=True)
class CompressRequest:
    """The job as it was asked for; stored in archive.json, without credentials. `quality` None is the model's own."""

    input: Sequence[str]
    archive: str
    codec: str
    quality: int | None
    effort: int
    workers: Workers
    device: Device
    batch_size: int
    max_rejects: RejectLimit
    fidelity: Fidelity
    tags: Tags
    overwrite: bool

    @property
    def coding(self) -> Coding:
        """Of a request that is `resolved`."""
        assert self.quality is not None, "resolved comes first"
        return Coding(self.quality, self.effort, self.fidelity, self.tags)


@dataclass(frozen=True)
class InstalledCodec:
    """A codec that this machine has, without its networks: those are for the workers.

    `max_effort` is 0 for one that takes no effort.
    """

    name: str
    fingerprint: str
    capsule: Path
    factory: CodecFactory
    qualities: range
    default_quality: int
    max_effort: int


def parse(
    description: str | None, examples: str, arguments: Sequence[str] | None
) -> tuple[CompressRequest, RunOptions]:
    """The job and the options of this run. Wrong usage ends the process with status 2."""
    epilog = f"{examples}\n\n{EXIT_STATUS}"
    parser = ArgumentParser(description=description, epilog=epilog, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input", nargs="+", action="extend", required=True, metavar="URL", help="shards, globs or {000..999}")
    add("--archive", required=True, metavar="URL", help="where the archive is, or is to be")
    add("--codec", default="lite", help="preset or model directory (default: %(default)s)")
    add("--quality", type=int, help="1 (smallest) to 6 (best) of lite, 1 alone of sd21 (default: lite 3, sd21 1)")
    add(
        "--effort",
        type=whole_number(0),
        metavar="N",
        default=0,
        help="gradient steps of lite's encoder, 10 for example: many times slower, fewer bits (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        default=16,
        help="most images of one size at once (default: %(default)s)",
    )
    add("--fidelity", choices=("preview", "none"), default="preview", help="measure PSNR on the preview, or nothing")
    no_tags = "store no tags and none in the streams: no tagger runs"
    add("--no-tags", dest="tags", action="store_const", const="none", default="tagger", help=no_tags)
    add_run_arguments(parser, overwrite="redo shards whose source or settings changed")
    fields = vars(parser.parse_args(arguments))
    options = RunOptions(fields.pop("storage_options"), fields.pop("dry_run"))
    return CompressRequest(**fields), options


def resolved(request: CompressRequest, codec: InstalledCodec) -> CompressRequest:
    """`request` with the codec's own quality where none was asked for: what is stored and compared has the number.

    Raises JobError for a quality or an effort that the codec has not.
    """
    request = replace(request, quality=codec.default_quality if request.quality is None else request.quality)
    if request.quality not in codec.qualities:
        first, last = codec.qualities[0], codec.qualities[-1]
        has = f"{first} to {last}" if last > first else f"{first} alone"
        raise JobError(f"{codec.name} cannot compress with quality {request.quality}: it has {has}")
    if request.effort > codec.max_effort:
        takes = f"0 to {codec.max_effort}" if codec.max_effort else "none"
        raise JobError(f"{codec.name} cannot compress with effort {request.effort}: it takes {takes}")
    return request


def describe_output(request: CompressRequest, codec: InstalledCodec) -> Manifest:
    """The manifest of the archive that a request, `resolved`, makes."""
    asked = {**asdict(request), "input": [public(url) for url in request.input]}
    asked["archive"] = without_password(request.archive)
    return Manifest("archive", "compress_dataset", codec.name, codec.fingerprint, asdict(request.coding), asked)


def plan_output(manifest: Manifest, request: CompressRequest, options: RunOptions) -> tuple[Storage, Plan]:
    """The archive and what is to be done there, shown to the user.

    Raises JobError where the inputs hold no images, or the archive was made otherwise or cannot be reached.
    """
    sources = expand(request.input, options.storage)
    output = Storage.from_url(request.archive, options.storage)
    with reaching(request.archive):
        plan = make_plan(output, manifest, sources, request.overwrite)
    check_images(plan, UrlOpener(options.storage))
    print(plan_line(plan, output.url), flush=True)
    return output, plan


def claim_output(manifest: Manifest, output: Storage, plan: Plan, request: CompressRequest, capsule: Path) -> None:
    """Makes the archive ready for `plan`, once there are workers, and puts the model into it.

    Raises JobError where another job has claimed it.
    """
    with reaching(request.archive):
        establish(output, manifest, plan)
        copy_capsule(output, capsule)


def check_images(plan: Plan, inputs: UrlOpener) -> None:
    """Raises JobError where no image is in any of a few pending shards, taken evenly: the input is a wrong one.

    Where images were compressed before, shards without any may be just what a killed run left over.
    """
    looked = plan.pending[:: -(-len(plan.pending) // SHARDS_LOOKED_INTO) or 1]
    if plan.done.images or not looked:
        return
    faults = []
    for source in looked:
        first = _first_record(source, inputs)
        if isinstance(first, Sample):
            return
        faults += [f" ({first.error})"] if first else []
    found = f"no images in {len(looked)} of {len(plan.pending)} shards looked into, such as {looked[0].url}"
    pack = f"; pack pictures first: {HOW_TO_PACK}" if named_like_image(looked[0].url) else ""
    raise JobError(found + "".join(faults[:1]) + pack)


def _first_record(source: ShardSource, inputs: UrlOpener) -> Sample | Failure | None:
    """The first image of a shard, else the first failure in it."""
    failure = None
    with reaching(source.url), inputs.open(source.address) as file:
        for record in read_shard(file, source.url):
            if isinstance(record, Sample):
                return record
            failure = failure or record
    return failure
