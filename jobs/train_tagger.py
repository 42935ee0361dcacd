"""Train the tagger of a capsule: tags.json and tagger.safetensors.

Reads WebDataset tars whose samples have a JSON with `source`, `labels`, `label_kind` and `detected`; computes the
features of the frozen network once (about 40 ms per image on one core), then trains the head in seconds and prints what
it reaches on images held back.

    python jobs/train_tagger.py --data 'train/*.tar' --test 'eval/*.tar' \\
        --output my-codec --image-tags runs/image-tags.json

The committed files of the capsule `lite` were made so, with `--output difficmh/capsules/lite`.
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difficmh.capsule import VOCABULARY
from difficmh.limits import DEVICES
from pipeline.job import plain_exit_code, whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return plain_exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Writes the two files and prints what the tagger reaches; the exit status."""
    import torch
    from safetensors.torch import save

    from difficmh.training.tagger import TaggerTraining, given_tags, split, train_tagger
    from difficmh.training.tagger_features import cached_features
    from difficmh.training.tagger_report import measure_tagger

    data = cached_features(matching(options.data), options.cache, options.device)
    tagger = train_tagger(data, TaggerTraining(epochs=options.epochs, seed=options.seed))
    measures = {"held back": measure_tagger(tagger, data, split(data.keys).held_back, data)}
    if options.test:
        test = cached_features(matching(options.test), options.cache, options.device)
        measures["test"] = measure_tagger(tagger, test, torch.ones(len(test.keys), dtype=torch.bool), data)
    options.output.mkdir(parents=True, exist_ok=True)
    tagger.vocabulary.save(options.output / VOCABULARY)
    (options.output / "tagger.safetensors").write_bytes(save(tagger.head.compact()))
    if options.image_tags:
        content = {"names": tagger.vocabulary.names, "tags": given_tags(tagger, data)}
        options.image_tags.write_text(json.dumps(content), encoding="utf-8")
    print(json.dumps({name: asdict(measure) for name, measure in measures.items()}, indent=1))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    parser.add_argument("--data", **several, required=True, help="WebDataset tars (patterns allowed)")
    parser.add_argument("--test", **several, default=[], help="the same, only measured")
    parser.add_argument("--output", type=Path, required=True, help="folder for tags.json and tagger.safetensors")
    parser.add_argument("--image-tags", type=Path, help="also write the tags of the images of --data, by key")
    parser.add_argument("--cache", type=Path, default=Path("runs"), help="folder for features (default: runs)")
    parser.add_argument("--epochs", type=whole_number(1), default=30, help="over all features (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="for the features (default: cpu)")
    return parser.parse_args(arguments)


def matching(patterns: Sequence[str]) -> list[Path]:
    """The tars of all patterns. Raises ValueError where one has none, or a folder: labels come with samples of tars."""
    paths = [Path(path) for pattern in patterns for path in sorted(glob.glob(pattern)) or [pattern]]
    if wrong := [path for path in paths if not path.is_file()]:
        raise ValueError(f"{wrong[0]} is no WebDataset tar")
    return paths


if __name__ == "__main__":
    sys.exit(main())
