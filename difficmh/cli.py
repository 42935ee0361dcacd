"""The one-image tool: `difficmh compress | decompress | info | models`. Corpora are the business of `jobs/`.

Exit codes: 0 all done, 1 an input could not be processed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from difficmh import cli_commands, cli_models
from difficmh.cli_commands import DECODED, FORMATS, SUFFIX, complain, package_version
from difficmh.errors import DifficmhError
from difficmh.limits import DEVICES, MODES

EXAMPLES = """examples:
  difficmh compress photo.jpg                         writes photo.dicm, with the tags that the tagger finds
  difficmh compress photo.jpg small.dicm --quality 1 --tags car,road
  difficmh info photo.dicm                            size, bits per pixel and tags, without a model
  difficmh decompress photo.dicm                      writes photo.decoded.png, the best picture
  difficmh decompress photo.dicm fast.jpg --mode preview
  difficmh decompress --official official.bin out.png --codec models/sd21-r4
  difficmh models tags | grep car                     which tags there are
  difficmh models verify

Decompressed pictures are reconstructions: a generative decoder may invent details. Keep your originals.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool on `arguments`, the process's own by default, and returns the exit code."""
    with suppress(AttributeError):  # a name that the terminal cannot spell is no failure
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = _parsed(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (DifficmhError, OSError) as error:
        return complain(error, 1)
    except ValueError as error:
        return complain(error, 2)
    except RuntimeError as error:
        if not _is_of_the_device(error):
            raise
        return complain(str(error).splitlines()[0], 1)
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def _is_of_the_device(error: RuntimeError) -> bool:
    """Whether torch complains of a GPU or of too little memory, which no line of this program can mend."""
    told = ("CUDA", "NVIDIA", "DefaultCPUAllocator")
    return type(error).__name__ == "OutOfMemoryError" or any(name in str(error) for name in told)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Exits with status 2 for wrong use. OUT may stand behind options, where argparse looks for no IN or OUT."""
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    if len(left) == 1 and not left[0].startswith("-") and getattr(options, "output", "") is None:
        options.output = left[0]
    elif left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "difficmh",
        description="Compress one image with a learned generative codec, and bring it back.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"difficmh {package_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compress(_command(commands, "compress", cli_commands.compress, "image file to bitstream"))
    _add_decompress(_command(commands, "decompress", cli_commands.decompress, "bitstream to image file"))
    reading = _command(
        commands,
        "info",
        cli_commands.info,
        "size, bits per pixel, quality, model and tags of bitstreams; what models were made of",
    )
    reading.add_argument("files", nargs="+", metavar="FILE", help="a bitstream, or the name or directory of a model")
    reading.add_argument("--codec", metavar="NAME_OR_DIR", help="a model of your own, whose streams have its tags")
    reading.add_argument("--json", action="store_true", help="print a JSON list")
    models = _command(commands, "models", cli_commands.list_models, "models on this machine").add_subparsers(
        required=True, metavar="ACTION"
    )
    cli_models.add_fetch(_command(models, "fetch", cli_models.fetch, "make the capsule of a released model, once"))
    _command(models, "list", cli_commands.list_models, "name, fingerprint, size and place of each")
    tags = _command(models, "tags", cli_models.list_tags, "the tags that a model knows, one a line, for --tags")
    tags.add_argument("model", nargs="?", default="lite", metavar="NAME_OR_DIRECTORY", help="default: lite")
    checking = _command(models, "verify", cli_commands.verify_models, "compare their files with their manifests")
    checking.add_argument("models", nargs="*", metavar="NAME_OR_DIRECTORY", help="default: all that are listed")
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    return command


def _add_compress(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", metavar="IN", help="an image file: JPEG, PNG, WebP, TIFF, …")
    _add_shared(command, f"default: IN with the suffix {SUFFIX}")
    command.add_argument("--codec", default="lite", metavar="NAME_OR_DIR", help="the model; default lite")
    command.add_argument("--quality", type=int, help="lite: 1 (smallest) to 6 (best), default 3; sd21: always 1")
    command.add_argument("--guidance", type=float, metavar="S", help="guidance scale of sd21; default: the model's")
    command.add_argument(
        "--effort", type=int, metavar="N", help="gradient steps of lite's encoder, 10 for example: slow, fewer bits"
    )
    tagging = command.add_mutually_exclusive_group()
    tagging.add_argument("--tags", type=_tag_list, metavar="A,B,…", help="these tags; default: what the tagger finds")
    tagging.add_argument("--no-tags", dest="tags", action="store_const", const=[], help="no tags")


def _add_decompress(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", metavar="IN", help="a bitstream")
    _add_shared(command, f"default: IN with the suffix {DECODED} and that of the format")
    command.add_argument(
        "--codec", metavar="NAME_OR_DIR", help="the model that made IN; default: found in `difficmh models list`"
    )
    command.add_argument(
        "--mode",
        choices=MODES,
        default="full",
        help="preview: faithful, fast. full: sharper, twice the time; with lite better for classifiers, too, at low "
        "rates. reference: many steps; do not use with lite. Default full",
    )
    command.add_argument("--steps", type=int, metavar="N", help="denoising steps; default: the mode's")
    command.add_argument("--sampler", help="of sd21: ddpm, ddim, dpm++ or unipc; default: the mode's")
    command.add_argument("--dtype", help="of sd21's denoiser: float32, bfloat16 or float16")
    command.add_argument("--official", action="store_true", help="IN is a file of the official Diff-ICMH code")
    command.add_argument("--format", choices=sorted(set(FORMATS.values())), help="default: by OUT's suffix, else png")
    command.add_argument(
        "--picture-quality", type=_percentage, metavar="1..100", help="of the jpg or webp file; default: high"
    )


def _add_shared(command: argparse.ArgumentParser, output_help: str) -> None:
    command.add_argument("output", metavar="OUT", nargs="?", help=output_help)
    command.add_argument("--device", choices=DEVICES, default="cpu", help="default cpu")
    command.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _percentage(text: str) -> int:
    if not 1 <= (value := int(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not in 1..100")
    return value


def _tag_list(text: str) -> list[str]:
    tags = [tag.strip() for tag in text.split(",")] if text.strip() else []
    if "" in tags:  # as in `--tags car, street`, whose `street` would be OUT
        raise argparse.ArgumentTypeError(f"{text!r} has an empty tag; blanks need quotes: --tags 'car, street'")
    return tags


if __name__ == "__main__":
    sys.exit(main())
