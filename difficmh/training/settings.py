"""Weights of the losses, and shares of what is dropped: what an ablation changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from difficmh.distortion import MEANS_WEIGHT, MSE_SHARE


@dataclass(frozen=True)
class LossSettings:
    """All are at least 0, shares at most 1. A weight of 0 switches a part off.

    `mse_share`: squared error in the distortion, the rest is MS-SSIM. `means`: squared error of means over 16 x 16
    pixels beside them. `codec_features`: features of a classifier in it, so that bits go where meaning is; in units of
    squared error. `far`: share of reduced pictures in these features and those of `one_step`. `semantic`: semantic
    consistency of the guide latent, from the share `semantic_start` of the stage on, when the base UNet's features are
    worth agreeing with. `tag_dropout`, `control_dropout`: samples and steps that go without. `teacher`, `features`,
    `adversarial`, `grid`: parts of the one-step loss. `rehearsal`: weight of the diffusion loss in it, on the share
    `rehearsal_share` of each batch, one sample at least.
    """

    mse_share: float = MSE_SHARE
    means: float = MEANS_WEIGHT
    codec_features: float = 20.0
    far: float = 0.5
    semantic: float = 0.15
    semantic_start: float = 0.3
    tag_dropout: float = 0.15
    control_dropout: float = 0.25
    features: float = 3.0
    teacher: float = 0.5
    adversarial: float = 0.05
    grid: float = 200.0
    rehearsal: float = 0.25
    rehearsal_share: float = 1 / 6

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf") or (field.name in SHARES and value > 1):
                raise ValueError(f"{field.name} cannot be {value}")

    def changed(self, assignments: Sequence[str]) -> LossSettings:
        """The same but for `NAME=NUMBER` of each assignment. Raises ValueError for what is no such thing."""
        known = {field.name for field in fields(self)}
        values: dict[str, float] = {}
        for assignment in assignments:
            name, _, text = assignment.partition("=")
            if name not in known:
                raise ValueError(f"{assignment!r} sets none of {', '.join(sorted(known))}")
            try:
                values[name] = float(text)
            except ValueError:
                raise ValueError(f"{assignment!r} is not NAME=NUMBER") from None
        return replace(self, **values)


SHARES = frozenset({"mse_share", "far", "semantic_start", "tag_dropout", "control_dropout", "rehearsal_share"})
