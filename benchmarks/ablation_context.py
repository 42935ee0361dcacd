"""Trains what bits depend on, with or without the context of earlier symbols: one side of the ablation's context row.

    python -m benchmarks.ablation_context --start lite --data 'shards/*.tar' --output runs/with \\
        --stage rate_distortion --minutes 20
    python -m benchmarks.ablation_context --without-context --start lite --data 'shards/*.tar' --output runs/without \\
        --stage rate_distortion --minutes 20

The arguments are those of `jobs/train_codec.py` in its stage `rate_distortion`, with its losses. The transforms g_a and
g_s stay as they are, so that both sides code nearly the same y and draw with the same networks: hyperprior and entropy
model alone adapt, as long on one side as on the other. Without context the convolutions that look at decoded slices and
at decoded anchors are zero and stay so; the capsule is an ordinary one, whose streams cost what y costs given z alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from difficmh.model import CodecModel
from difficmh.training.command import parse
from difficmh.training.run import train
from difficmh.training.settings import LossSettings
from difficmh.training.stages import STAGES, RateDistortionStage

WITH, WITHOUT = "entropy", "entropy_without_context"
"""Names of the two stages, and so of their checkpoints."""


class EntropyStage(RateDistortionStage):
    """Trains h_a, the entropy model and z's densities; g_a and g_s stay."""

    FROZEN = (*RateDistortionStage.FROZEN, "g_a", "g_s")


class ContextFreeStage(EntropyStage):
    """The same on zero context."""

    def __init__(self, model: CodecModel, learning_rate: float, settings: LossSettings) -> None:
        contexts = list(context_modules(model))
        self.FROZEN = (*EntropyStage.FROZEN, *contexts)
        with torch.no_grad():
            for name in contexts:
                for parameter in model.get_submodule(name).parameters():
                    parameter.zero_()
        super().__init__(model, learning_rate, settings)


def context_modules(model: CodecModel) -> Iterator[str]:
    """Names of all that looks at symbols which are decoded earlier: other slices (`channel`), anchors (`local`)."""
    for name, _ in model.named_modules():
        if name.startswith("entropy.contexts.") and name.rpartition(".")[2] in ("channel", "local"):
            yield name


def main(command: Sequence[str] | None = None) -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--without-context", action="store_true")
    choice, others = own.parse_known_args(command)
    wanted = parse(__doc__, others)
    if wanted.job.start is None or wanted.job.stage != "rate_distortion" or wanted.workers > 1:
        raise SystemExit("--start is needed, --stage must be rate_distortion, and one worker trains")
    STAGES.update({WITH: EntropyStage, WITHOUT: ContextFreeStage})  # of this ablation alone, and of no release
    print(f"checkpoint: {train(replace(wanted.job, stage=WITHOUT if choice.without_context else WITH))}")


if __name__ == "__main__":
    main()
