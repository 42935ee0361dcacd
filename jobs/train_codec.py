"""Trains the `lite` codec, one stage at a time, on one device or on the workers of a Ray cluster.

    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage rate_distortion --minutes 60 --tags lite
    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage diffusion --minutes 30 --tags lite
    python jobs/train_codec.py --data 'shards/*.tar' --output runs/lite --stage one_step --minutes 30 --tags lite

Each stage starts from the averaged weights of the one before it in `--output` (or of `--start`), writes checkpoints
there, and continues from its own checkpoint when it is started again. `--workers 4` trains in four workers of Ray;
`--tags` gives the denoiser its vocabulary, which a capsule has to share. `jobs/export_codec.py` makes a capsule of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from difficmh.training.command import TrainingCommand, parse
from difficmh.training.job import TrainingJob
from difficmh.training.run import check_places, train
from pipeline.errors import JobError, describe
from pipeline.job import connect_ray, plain_exit_code
from pipeline.places import check_lasting


def main(command: Sequence[str] | None = None) -> int:
    wanted = parse(__doc__, command)
    return plain_exit_code(lambda: run(wanted))


def run(wanted: TrainingCommand) -> int:
    check_lasting(str(wanted.job.output))
    if wanted.workers > 1:
        train_with_ray(wanted.job, wanted.workers)
    else:
        print(f"checkpoint: {train(wanted.job)}")
    return 0


def train_with_ray(job: TrainingJob, workers: int) -> None:
    """The same loop in the workers of Ray Train, which join in one process group; gradients are averaged.

    Raises what went wrong in the first of them that failed, JobError for what Ray has to say beyond that.
    """
    check_places(job)  # what is missing is said here, before a cluster starts
    import ray.train
    from ray.train.torch import TorchTrainer

    # As Ray Train would by itself, and less quiet than for other jobs: the leading worker prints the progress.
    connect_ray(partial(ray.init, ignore_reinit_error=True))
    scaling = ray.train.ScalingConfig(num_workers=workers, use_gpu=job.device == "cuda")
    storage = ray.train.RunConfig(name=job.output.name, storage_path=str(job.output.parent / "ray"))
    trainer = TorchTrainer(_train_in_worker, train_loop_config={"job": job}, scaling_config=scaling, run_config=storage)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failures = list(getattr(error, "worker_failures", {}).values())
        raise failures[0] if failures else JobError(describe(error)) from error


def _train_in_worker(settings: dict[str, TrainingJob]) -> None:
    train(settings["job"])


if __name__ == "__main__":
    sys.exit(main())
