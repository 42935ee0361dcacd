"""What a codec of the paper's family looks like, as stored in the `config.json` of its capsule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from difficmh.config import tuples
from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import DenoiserConfig
from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.sd21.samplers import REFERENCE_STEPS, SAMPLERS, SamplerName
from difficmh.sd21.text import TextConfig
from difficmh.sd21.unet import UNetConfig
from difficmh.sd21.vae import VaeConfig
from difficmh.taggers.ram_head import RamConfig


@dataclass(frozen=True)
class DrawingConfig:
    """How pictures are drawn unless a caller or a stream asks for something else.

    `guidance` is the scale of classifier-free guidance, that of the official instructions. `reference` is the paper's
    sampler. `full` is DPM-Solver++ (2M) with the fewest steps that its authors recommend under guidance (15 to 20):
    deterministic, of second order, and without a correction step that a large guidance scale could upset. Raises
    ValueError for a sampler that there is not, or no steps.
    """

    guidance: float = 5.0
    full_sampler: SamplerName = "dpm++"
    full_steps: int = 15
    reference_sampler: SamplerName = "ddpm"
    reference_steps: int = REFERENCE_STEPS

    def __post_init__(self) -> None:
        if not {self.full_sampler, self.reference_sampler} <= set(SAMPLERS):
            raise ValueError(f"samplers are {', '.join(SAMPLERS)}, not {self.full_sampler} or {self.reference_sampler}")
        if min(self.full_steps, self.reference_steps) < 1:
            raise ValueError("a sampler takes at least one step")


@dataclass(frozen=True)
class Sd21Config:
    """The whole codec; the defaults are those of the released models.

    `rate` is the weight of the rate in the training loss, which tells the released models apart and no network reads;
    `tile` bounds what is coded at once, in pixels a side (`tiling.py`): the official code has no such limit, so
    pictures of up to 2048 x 2048 pixels are one piece as they are there.
    """

    rate: int = 4
    tile: int = 2048
    lfgcm: LfgcmConfig = field(default_factory=LfgcmConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    tagger: RamConfig = field(default_factory=RamConfig)
    drawing: DrawingConfig = field(default_factory=DrawingConfig)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Sd21Config:
        """Inverse of `to_dict`, also after a trip through JSON.

        Raises KeyError, TypeError or ValueError for unknown or missing fields, or sizes that no network can have.
        """
        simple = {"lfgcm": LfgcmConfig, "vae": VaeConfig, "text": TextConfig, "drawing": DrawingConfig}
        parts: dict[str, Any] = {name: part(**tuples(fields[name])) for name, part in simple.items()}
        parts["denoiser"] = DenoiserConfig(
            unet=UNetConfig(**tuples(fields["denoiser"]["unet"])),
            control=ControlConfig(**tuples(fields["denoiser"]["control"])),
        )
        parts["tagger"] = RamConfig.from_dict(fields["tagger"])
        return cls(**{**fields, **parts})
