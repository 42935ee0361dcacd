"""The training loop: one stage, a time budget, checkpoints, a log and a validation table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from difficmh.distortion import distortion
from difficmh.model import CodecModel
from difficmh.training import losses
from difficmh.training.data import CROP, TrainingData
from difficmh.training.history import StageRecord, changed_settings, device_name, read_checkpoint
from difficmh.training.job import TrainingJob
from difficmh.training.log import TrainingLog
from difficmh.training.optimizer import MovingAverage, in_parallel
from difficmh.training.stages import STAGES, Batch, Stage

CHECKPOINT_MINUTES = 4.0
"""Time of training between checkpoints, each with a validation table."""


class Trainer:
    """Runs one stage.

    `vocabulary` are the names of the tags in order, kept in checkpoints; empty where they are not known. `before` are
    the stages that the weights went through already, `start` is the capsule that they come from, if any.
    """

    def __init__(
        self,
        model: CodecModel,
        data: TrainingData,
        job: TrainingJob,
        vocabulary: tuple[str, ...] = (),
        before: Sequence[StageRecord] = (),
        start: str = "",
    ) -> None:
        self.model = model
        self.data = data
        self.job = job
        self.vocabulary = vocabulary
        self.device = next(model.parameters()).device
        self.stage: Stage = STAGES[job.stage](model, job.peak_rate, job.settings)
        if job.compile:
            compile_networks(model)
        self.rank = distributed.get_rank() if in_parallel() else 0
        self.workers = distributed.get_world_size() if in_parallel() else 1
        if in_parallel():
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)
            torch.manual_seed(job.seed + 1000 * self.rank)  # noise of its own for each worker
        self.average = MovingAverage(model)
        self.generator = torch.Generator().manual_seed(job.seed + 1000 * self.rank)
        self.steps = 0
        self.seconds = 0.0
        self.before, self.start = list(before), start
        self.log = TrainingLog(job.output, job.stage)

    @property
    def leads(self) -> bool:
        """Whether this worker writes what all of them made."""
        return self.rank == 0

    @property
    def progress(self) -> float:
        """Share of the time budget that is spent."""
        return min(1.0, self.seconds / (60 * self.job.minutes))

    @property
    def minutes(self) -> float:
        """Time of training so far."""
        return self.seconds / 60

    @property
    def record(self) -> StageRecord:
        """This stage's run so far."""
        return StageRecord(
            stage=self.job.stage,
            steps=self.steps,
            minutes=self.minutes,
            batch=self.job.batch * self.workers,
            crop=CROP,
            rate=self.job.peak_rate,
            images=len(self.data.source),
            device=device_name(self.device),
            changed=changed_settings(self.job.settings),
            start=self.start,
        )

    def run(self) -> None:
        """Trains until the budget is spent, and says so."""
        self.job.output.mkdir(parents=True, exist_ok=True)
        self.resume()
        recent: list[dict[str, float]] = []
        saved, steps = self.seconds, self.steps
        while self.progress < 1:
            started = time.monotonic()
            recent.append(self.stage.step(self._batch(), self.progress, self.generator))
            self.average.update(self.model)
            self.steps += 1
            self.seconds += self._longest(time.monotonic() - started)
            if self.steps % 50 == 0:
                self._log(recent)
                recent = []
            if self.seconds - saved > 60 * CHECKPOINT_MINUTES:
                self.save()
                self._validate()
                saved = self.seconds
                if in_parallel():
                    distributed.barrier()  # that no worker's next step lasts as long as the leader's table
        self.save()
        self._validate()
        if self.leads:
            trained = f"{self.steps} steps, {self.minutes:.2f} of {self.job.minutes:g} minutes"
            nothing = f"nothing left of {self.job.minutes:g} minutes: give more --minutes"
            print(trained if self.steps > steps else nothing, flush=True)

    def _batch(self) -> Batch:
        images, chosen = self.data.source.batch(self.job.batch, CROP, self.generator)
        quality = torch.randint(self.model.config.qualities, (len(images),), generator=self.generator)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, self.data.tags[chosen].float().to(self.device), quality.to(self.device))

    def _longest(self, seconds: float) -> float:
        """The slowest worker's time, so that all workers stop at the same step."""
        if not in_parallel():
            return seconds
        value = torch.tensor(seconds, device=self.device)
        distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
        return float(value)

    # --- persistence ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        if not self.leads:
            return
        state = {
            "config": self.model.config.to_dict(),
            "options": {"vocabulary": self.vocabulary},
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.stage.optimizers.items()},
            "extra": {name: module.state_dict() for name, module in self.stage.extra_modules().items()},
            "generator": self.generator.get_state(),
            "noise": torch.get_rng_state(),
            "device_noise": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "steps": self.steps,
            "seconds": self.seconds,
            "history": [record.to_dict() for record in (*self.before, self.record)],
        }
        partial = self.job.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.job.checkpoint)

    def resume(self) -> None:
        """Continues from this stage's checkpoint, where there is one; raises ValueError where its tags are others."""
        place = self.job.checkpoint
        if not place.exists():
            return
        # To the CPU: loading moves what belongs on the device, and each step counter of Adam there would cost a wait.
        state = read_checkpoint(place)
        if state["options"].get("vocabulary", self.vocabulary) != self.vocabulary:
            raise ValueError(f"{place} was trained for other tags: go on with those, or in another folder")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.stage.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, module in self.stage.extra_modules().items():
            module.load_state_dict(state["extra"][name])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self._resume_chance(state)
        if history := state.get("history"):
            *self.before, present = (StageRecord(**record) for record in history)
            self.start = present.start

    def _resume_chance(self, state: dict[str, Any]) -> None:
        """The leading worker draws on where it stopped. Its state is the only one in a checkpoint, and workers that
        drew the same would do the work of one: the others begin anew, elsewhere than at their first steps."""
        if self.leads:
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["noise"])
            if self.device.type == "cuda" and state.get("device_noise") is not None:
                torch.cuda.set_rng_state(state["device_noise"], self.device)
        else:
            seed = self.job.seed + 1000 * self.rank + (self.steps << 32)
            self.generator.manual_seed(seed)
            torch.manual_seed(seed)

    # --- reporting --------------------------------------------------------------------------------------------------

    def _log(self, recent: list[dict[str, float]]) -> None:
        if not self.leads:
            return
        names = sorted({name for entry in recent for name in entry})
        means = {name: _mean([entry[name] for entry in recent if name in entry]) for name in names}
        skipped = sum(optimizer.skipped for optimizer in self.stage.optimizers.values())
        values = {"skipped": float(skipped), **means}
        parts = [f"step {self.steps} minutes {self.minutes:.2f}", *(f"{n} {value:.4g}" for n, value in values.items())]
        print(" ".join(parts), flush=True)
        self.log.write(self.steps, self.minutes, values)

    @torch.no_grad()
    def _validate(self) -> None:
        """Prints the averaged weights' rate and fidelity at each quality, of the preview and of the one-step decode."""
        if not self.leads:
            return
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.values, strict=False)
        self.model.eval()
        for index in range(self.model.config.qualities):
            print(f"  quality {index + 1}: {self._fidelity(index)}", flush=True)
        self.model.train()
        self.model.load_state_dict(weights)

    def _fidelity(self, index: int) -> str:
        images = self.data.validation
        quality = torch.full((len(images),), index, device=self.device)
        y_hat, bpp = losses.code(self.model, images, quality)
        no_tags = torch.zeros(len(images), self.data.tags.shape[1], device=self.device)
        drawn = {
            "preview": self.model.preview(y_hat, quality),
            "full": losses.one_step(
                self.model, self.model.guide(y_hat, quality), no_tags, torch.Generator().manual_seed(index)
            ),
        }
        parts = [f"{bpp.mean():.4f} bpp"]
        for mode, decoded in drawn.items():
            found = distortion(decoded, images)
            psnr, ms_ssim = losses.decibels(found.mse), (-10 * torch.log10(1 - found.ms_ssim)).mean()
            parts.append(f"{mode} PSNR {psnr:.2f} MS-SSIM {ms_ssim:.2f} dB")
            values = {"psnr": float(psnr), "ms_ssim_db": float(ms_ssim), "means": float(found.means.mean())}
            values = {f"{mode}_{name}": value for name, value in values.items()}
            self.log.write(self.steps, self.minutes, {f"quality_{index + 1}/{n}": value for n, value in values.items()})
        self.log.write(self.steps, self.minutes, {f"quality_{index + 1}/bpp": float(bpp.mean())})
        return "  ".join(parts)


def compile_networks(model: CodecModel) -> None:
    """Has torch compile the networks at their first call; names of parameters stay."""
    for network in (model.g_a, model.h_a, model.g_s, model.autoencoder.decoder, model.denoiser):
        network.compile()


def averaged_state(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and averaged weights of a checkpoint, for the next stage or for release."""
    state = read_checkpoint(checkpoint)
    return state["config"], {**state["model"], **state["average"]["values"]}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
