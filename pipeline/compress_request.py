"""What the compression job can be asked for, and what it asks of the machine that it starts on."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.compress import Fidelity
from pipeline.job import add_run_arguments, whole_number
from pipeline.manifest import Manifest
from pipeline.protocols import CodecFactory
from pipeline.totals import RejectLimit

EPILOG = """{examples}

exit status: 0 all well, 1 too many rejects or shards left over (run again to resume), 2 wrong usage or configuration
"""


@dataclass(frozen=True)
class CompressRequest:
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


@dataclass(frozen=True)
class InstalledCodec:
    """A codec that this machine has, without its networks: those are for the workers."""

    name: str
    fingerprint: str
    capsule: Path
    factory: CodecFactory


def parse_request(
    description: str | None, examples: str, arguments: Sequence[str] | None
) -> tuple[CompressRequest, dict[str, Any]]:
    """The job and the options for storage. Wrong usage ends the process with status 2."""
    epilog = EPILOG.format(examples=examples)
    parser = ArgumentParser(description=description, epilog=epilog, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--input", action="append", required=True, metavar="URL", help="shard, glob or {000..999}; may be repeated")
    add("--archive", required=True, metavar="URL", help="where the archive is, or is to be")
    add("--codec", default="lite", help="preset or model directory (default: %(default)s)")
    add("--quality", type=int, default=3, help="1 (smallest) to 6 (best) for lite (default: %(default)s)")
    add(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        default=16,
        help="most images of one size at once (default: %(default)s)",
    )
    add("--fidelity", choices=("preview", "none"), default="preview", help="measure PSNR on the preview, or nothing")
    add_run_arguments(parser, overwrite="redo shards whose source or settings changed")
    fields = vars(parser.parse_args(arguments))
    options = fields.pop("storage_options")
    return CompressRequest(**fields), options


def describe_archive(request: CompressRequest, codec: InstalledCodec) -> Manifest:
    """The manifest of the archive that `request` makes."""
    deciding = {"quality": request.quality, "fidelity": request.fidelity}
    return Manifest("archive", "compress_dataset", codec.name, codec.fingerprint, deciding, asdict(request))
