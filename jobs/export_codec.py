"""Makes a model capsule of a training checkpoint: weights in half precision, integer tables, hashes.

    python jobs/export_codec.py --checkpoint runs/lite/one_step.pt --capsule difficmh/capsules/lite
    python jobs/export_codec.py --checkpoint runs/mine/one_step.pt --capsule my-codec --companions lite

Files that a checkpoint does not hold (tag vocabulary, tagger, licence, the model card of a codec of that name) are kept
where they are or come from another capsule (`--companions`). `jobs/release_codec.py` also measures and writes the card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from difficmh.capsule import capsule_or_path
from pipeline.job import plain_exit_code


def main(command: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(command)
    return plain_exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Writes the capsule; the exit status."""
    from difficmh.training.export import export_with_companions

    capsule = Path(arguments.capsule)
    name = arguments.name or capsule.absolute().name
    source = capsule_or_path(arguments.companions) if arguments.companions else capsule
    fingerprint = export_with_companions(Path(arguments.checkpoint), name, source, capsule)
    print(f"{capsule}: codec {name}, fingerprint {fingerprint}")
    return 0


def parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint of jobs/train_codec.py")
    parser.add_argument("--capsule", required=True, help="directory of the capsule")
    parser.add_argument("--companions", metavar="CAPSULE", help="where the other files come from, such as lite")
    parser.add_argument("--name", help="name of the codec (default: that of the directory)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
