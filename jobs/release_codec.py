"""Releases a trained codec in one step: the capsule of a checkpoint, its evaluation, and its model card.

    python jobs/release_codec.py --checkpoint runs/mine/one_step.pt --name mine --capsule my-codec --companions lite \\
        --images 'eval/*.tar' --evaluation runs/mine-evaluation
    python jobs/release_codec.py ... --measure detection:FastestDet.onnx --detect-in '*street*' --workers 2

Arguments that are not listed go to jobs/evaluate_codec.py, which compares both modes of the codec with JPEG, WebP and
AVIF (`--overwrite` where --evaluation holds an earlier one). Then the card's sections on training and results are
written anew; the rest of it stays as it is. Only then the capsule appears, or replaces the one that was there. A codec
of another name than that of --companions starts from a card to be filled in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difficmh.capsule import capsule_or_path, write_manifest
from pipeline.job import plain_exit_code

BASELINES = ("jpeg", "webp", "avif")


def main(command: Sequence[str] | None = None) -> int:
    arguments, more = parser().parse_known_args(command)
    return plain_exit_code(lambda: run(arguments, more))


def run(arguments: argparse.Namespace, more: Sequence[str]) -> int:
    """The exit status: that of the evaluation where it fails."""
    from difficmh.evaluation.output import refuse_earlier
    from difficmh.training.export import drafted, export_with_companions, publish

    capsule, evaluation = Path(arguments.capsule).absolute(), Path(arguments.evaluation)
    refuse_earlier(evaluation, "--overwrite" in more)
    source = capsule_or_path(arguments.companions) if arguments.companions else capsule
    with drafted(capsule) as draft:
        export_with_companions(Path(arguments.checkpoint), arguments.name, source, draft)
        if status := evaluate(draft, arguments.images, evaluation, more):
            return status
        write_sections(draft, arguments.name, evaluation)
        fingerprint = write_manifest(draft)
        publish(draft, capsule)
    print(f"{capsule}: codec {arguments.name}, fingerprint {fingerprint}; see {capsule / 'MODEL_CARD.md'}")
    return 0


def evaluate(capsule: Path, images: Sequence[str], output: Path, more: Sequence[str]) -> int:
    """Runs the evaluation as a job of its own; the exit status."""
    codecs = (f"difficmh:{capsule}:preview", f"difficmh:{capsule}:full", *BASELINES)
    job = Path(__file__).with_name("evaluate_codec.py")
    asked = [sys.executable, str(job), "--images", *images, "--output", str(output), *more]
    return subprocess.run([*asked, *(part for codec in codecs for part in ("--codec", codec))], check=False).returncode


def write_sections(capsule: Path, name: str, evaluation: Path) -> None:
    from difficmh.evaluation.markdown import results
    from difficmh.training.card import training_table, write_card
    from difficmh.training.history import read_history

    content = json.loads((evaluation / "evaluation.json").read_text())
    write_card(capsule, name, {"training": training_table(read_history(capsule)), "results": results(content)})


def parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not listed here belongs to the evaluation, whatever it begins with
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of jobs/train_codec.py")
    add("--capsule", required=True, metavar="DIR", help="directory of the capsule")
    add("--companions", metavar="CAPSULE", help="where tag vocabulary, tagger and licence come from, such as lite")
    add("--name", required=True, help="name of the codec")
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    add("--images", **several, required=True, metavar="URL", help="pictures to measure on, not trained on")
    add("--evaluation", required=True, metavar="DIR", help="folder for the report of the evaluation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
