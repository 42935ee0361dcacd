"""What the jobs that read an archive share: their arguments, and the way from there to a plan."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

from pipeline.actors import Device
from pipeline.addresses import without_password
from pipeline.archive import Archive
from pipeline.capsule import read_config
from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.job import EXIT_STATUS, RunOptions, Workers, add_run_arguments, whole_number
from pipeline.manifest import ARCHIVE_FINGERPRINT, Manifest, Plan, establish, make_plan
from pipeline.part import METADATA_SCHEMA
from pipeline.progress import plan_line
from pipeline.protocols import Decoder, Mode
from pipeline.query import Where
from pipeline.records import Drawing
from pipeline.storage import Storage
from pipeline.totals import RejectLimit

EPILOG = """{examples}

--where is SQL over the archive's metadata columns:
  {columns}

{status}"""


@dataclass(frozen=True)
class ReadRequest:
    """What every reading job is asked for; jobs add their own fields. Stored in the output, without credentials."""

    archive: str
    output: str
    where: str | None
    mode: Mode
    steps: int | None
    sampler: str | None
    dtype: str | None
    workers: Workers
    device: Device
    max_rejects: RejectLimit
    overwrite: bool

    @property
    def drawing(self) -> Drawing:
        return Drawing(self.mode, self.steps, self.sampler)


class DrawingCheck(Protocol):
    """Raises ValueError where the model that a `config.json` describes cannot draw like this."""

    def __call__(
        self, config: Mapping[str, Any], mode: Mode, steps: int | None, sampler: str | None, dtype: str | None
    ) -> None: ...


def reading_parser(description: str | None, examples: str, output: str, mode: Mode) -> ArgumentParser:
    """A parser with the arguments that all reading jobs have; `output` says what goes there, `mode` is the default."""
    epilog = EPILOG.format(examples=examples, columns=", ".join(METADATA_SCHEMA.names), status=EXIT_STATUS)
    parser = ArgumentParser(description=description, epilog=epilog, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--archive", required=True, metavar="URL", help="the archive to read")
    add("--output", required=True, metavar="URL", help=output)
    add("--where", metavar="SQL", help="which images, see below (default: all)")
    _add_drawing(parser, mode)
    add_run_arguments(parser, overwrite="redo parts whose archive or settings changed")
    kept = "where each machine keeps the archive's model (default: difficmh/capsules in the user's folder for caches)"
    add("--cache", type=_absolute, metavar="DIR", help=kept)
    return parser


def _add_drawing(parser: ArgumentParser, mode: Mode) -> None:
    add = parser.add_argument
    add(
        "--mode",
        choices=get_args(Mode),
        default=mode,
        help="with lite, full looks better, and serves classifiers better at qualities 1 to 3; else there is little "
        "difference, and preview takes half the time; reference takes many steps, as the method's authors do: "
        "lite is not trained for them (default: %(default)s)",
    )
    add("--steps", type=whole_number(1, 1000), metavar="N", help="denoising steps (default: the mode's)")
    add("--sampler", metavar="NAME", help="of sd21: ddpm, ddim, dpm++ or unipc (default: the mode's)")
    add(
        "--dtype", metavar="NAME", help="of sd21's denoiser: float32, bfloat16 or float16 (default: as stored on a GPU)"
    )


def _absolute(text: str) -> Path:
    """Workers run in other folders than the job."""
    return Path(text).expanduser().absolute()


def parsed(parser: ArgumentParser, arguments: Sequence[str] | None) -> tuple[dict[str, Any], RunOptions]:
    """The fields of the job's request, and the options of this run. Wrong usage ends the process with status 2."""
    fields = vars(parser.parse_args(arguments))
    if fields["mode"] == "preview" and any(fields[name] is not None for name in ("steps", "sampler", "dtype")):
        parser.error("--steps, --sampler and --dtype are the denoiser's: --mode preview has none")
    return fields, RunOptions(fields.pop("storage_options"), fields.pop("dry_run"), fields.pop("cache"))


def open_archive(
    request: ReadRequest, options: RunOptions, load: Callable[..., Decoder], check: DrawingCheck
) -> Archive:
    """The archive with its list of parts read; `load(capsule, device, dtype=…)` makes its codec.

    Raises JobError for a wrong WHERE, an archive that is not there, or a drawing that its model does not know.
    """
    Where(request.where, METADATA_SCHEMA)
    codec_factory = partial(load, dtype=request.dtype) if request.dtype else load
    with reaching(request.archive):
        archive = Archive.open(request.archive, options.storage, codec_factory, cache=options.cache)
        asked = request.steps is not None or request.sampler or request.dtype
        config = read_config(archive.storage) if asked else {}
        _ = archive.parts
    try:
        if asked:
            check(config, request.mode, request.steps, request.sampler, request.dtype)
    except ValueError as error:
        raise JobError(f"{request.archive}: {error}") from error
    return archive


def describe_output(kind: str, job: str, archive: Archive, request: ReadRequest, own: Mapping[str, Any]) -> Manifest:
    """The manifest of the job's output. `own` are the job's settings that decide what is written."""
    made = archive.manifest
    source = {"archive": without_password(archive.storage.url), ARCHIVE_FINGERPRINT: made.job_fingerprint}
    drawn = {**asdict(request.drawing), "dtype": request.dtype}
    settings = {**source, "where": request.where, **drawn, **own}
    asked = {**asdict(request), **{name: without_password(getattr(request, name)) for name in ("archive", "output")}}
    return Manifest(kind, job, made.codec, made.codec_fingerprint, settings, asked)


def plan_output(
    manifest: Manifest, archive: Archive, request: ReadRequest, options: RunOptions
) -> tuple[Storage, Plan]:
    """The output and what is to be done there, shown to the user.

    Raises JobError where the output was made otherwise, lies inside the archive, or cannot be reached.
    """
    output = Storage.from_url(request.output, options.storage)
    with reaching(request.output):
        if archive.storage.holds(output):
            raise JobError(f"{output.url} lies inside the archive, which is only read; choose another place")
        plan = make_plan(output, manifest, archive.parts, request.overwrite)
        print(plan_line(plan, output.url), flush=True)
    if options.dry_run and request.where is not None:
        with reaching(request.archive):
            matches = sum(1 for _ in archive.keys(request.where))
            print(f"{matches} of {archive.info().totals.images} images match --where", flush=True)
    return output, plan


def claim_output(manifest: Manifest, output: Storage, plan: Plan, request: ReadRequest) -> None:
    """Makes the output ready for `plan`, once there are workers. Raises JobError where another job has claimed it."""
    with reaching(request.output):
        establish(output, manifest, plan)
