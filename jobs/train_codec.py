"""Trains the `lite` codec, one stage at a time, on one device or on the workers of a Ray cluster.

    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage rate_distortion --minutes 60
    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage diffusion --minutes 30
    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage one_step --minutes 30
    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage one_step --minutes 30 --workers 4

Each stage starts from the averaged weights of the one before it in `--output` (or of `--start`), writes checkpoints
there, and continues from its own checkpoint when it is started again. `jobs/export_codec.py` makes a capsule of it.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from pathlib import Path

from difficmh.capsule import BUILT_IN, built_in_names
from difficmh.training.run import TrainingJob, train
from difficmh.training.settings import LossSettings


def main(command: Sequence[str] | None = None) -> None:
    arguments = parse(command)
    data = tuple(Path(path) for pattern in arguments.data for path in sorted(glob.glob(pattern)))
    job = TrainingJob(
        data=data,
        output=Path(arguments.output).absolute(),
        stage=arguments.stage,
        minutes=arguments.minutes,
        device=arguments.device,
        start=start_of(arguments.start) if arguments.start else None,
        tags=Path(arguments.tags).absolute() if arguments.tags else None,
        batch=arguments.batch,
        rate=arguments.rate,
        seed=arguments.seed,
        config=Path(arguments.config).absolute() if arguments.config else None,
        compile=arguments.compile,
        settings=arguments.settings,
    )
    if arguments.workers > 1:
        train_with_ray(job, arguments.workers)
    else:
        print(f"checkpoint: {train(job)}")


def parse(command: Sequence[str] | None) -> argparse.Namespace:
    arguments = parser().parse_args(command)
    try:
        arguments.settings = LossSettings().changed(arguments.set)
    except ValueError as error:
        parser().error(f"--set: {error}")
    return arguments


def start_of(place: str) -> Path:
    """A built-in capsule by its name, a capsule's directory, or a checkpoint."""
    return BUILT_IN / place if place in built_in_names() else Path(place).absolute()


def train_with_ray(job: TrainingJob, workers: int) -> None:
    """The same loop in the workers of Ray Train, which join in one process group; gradients are averaged."""
    import ray.train
    from ray.train.torch import TorchTrainer

    scaling = ray.train.ScalingConfig(num_workers=workers, use_gpu=job.device == "cuda")
    storage = ray.train.RunConfig(name=job.output.name, storage_path=str(job.output.parent / "ray"))
    TorchTrainer(_train_in_worker, train_loop_config={"job": job}, scaling_config=scaling, run_config=storage).fit()


def _train_in_worker(settings: dict[str, TrainingJob]) -> None:
    train(settings["job"])


def parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True, help="tar shards or folders of images; a glob")
    parser.add_argument("--output", required=True, help="folder for checkpoints and logs")
    parser.add_argument("--stage", required=True, choices=("rate_distortion", "decoder", "diffusion", "one_step"))
    parser.add_argument("--minutes", type=float, required=True, help="time budget of the stage over all resumed runs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--start", help="checkpoint or capsule to start from instead of the previous stage")
    parser.add_argument("--config", help="JSON like a capsule's config.json, for networks of other sizes")
    parser.add_argument("--tags", help="JSON of tags by image key, as jobs/train_tagger.py writes it")
    parser.add_argument("--batch", type=int, default=6, help="crops of 192 x 192 per step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="weight of a loss, or share of what is dropped; see docs/training.md",
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks: a minute first, faster on a GPU")
    parser.add_argument("--workers", type=int, default=1, help="more than one: Ray Train workers on the cluster")
    return parser


if __name__ == "__main__":
    main()
