"""Makes a model capsule of a training checkpoint: weights in half precision, integer tables, hashes.

    python jobs/export_codec.py --checkpoint runs/lite/one_step.pt --capsule difficmh/capsules/lite
    python jobs/export_codec.py --checkpoint runs/mine/one_step.pt --capsule my-codec --from difficmh/capsules/lite

Files that a checkpoint does not hold (tag vocabulary, tagger, model card, licence) are kept where they are or come
from another capsule (`--from`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from difficmh.capsule import DECODING_FILES, MANIFEST


def main(command: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(command)
    from difficmh.training.export import export

    source = Path(arguments.source or arguments.capsule)
    made = {MANIFEST, *DECODING_FILES} - {"tags.json"}
    companions = [file for file in source.iterdir() if file.is_file() and file.name not in made]
    fingerprint = export(Path(arguments.checkpoint), arguments.name, companions, Path(arguments.capsule))
    print(f"{arguments.capsule}: codec {arguments.name}, fingerprint {fingerprint}")


def parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint of jobs/train_codec.py")
    parser.add_argument("--capsule", required=True, help="directory of the capsule")
    parser.add_argument("--from", dest="source", help="capsule that the other files come from")
    parser.add_argument("--name", default="lite", help="name of the codec (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
