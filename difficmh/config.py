"""What a codec of the `lite` family looks like: widths, depths and rates, as stored in a capsule's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DEFAULT_QUALITY = 3
"""What is taken where nobody asks for a quality."""

MAX_EFFORT = 1000
"""Most gradient steps of `refinement.py`; long before, there is nothing left to gain."""


@dataclass(frozen=True)
class TransformConfig:
    """Networks around the KLT start. Widths are channels at 1/8 and 1/16 resolution, depths residual blocks there."""

    analysis_widths: tuple[int, int] = (96, 192)
    analysis_depths: tuple[int, int] = (3, 5)
    synthesis_widths: tuple[int, int] = (96, 192)
    synthesis_depths: tuple[int, int] = (3, 5)
    decoder_widths: tuple[int, int, int] = (96, 48, 24)
    decoder_depths: tuple[int, int, int] = (2, 2, 1)


@dataclass(frozen=True)
class EntropyConfig:
    """Hyperprior and context model. `slices` are the channel groups of y, coded one after the other."""

    slices: tuple[int, ...] = (16, 16, 32, 64, 128)
    hyper_channels: int = 64
    hyper_width: int = 128
    feature_channels: int = 96
    context_channels: int = 64
    parameter_width: int = 128

    @property
    def channels(self) -> int:
        """Channels of y."""
        return sum(self.slices)


@dataclass(frozen=True)
class DenoiserConfig:
    """UNet over the latent with a control branch. Widths and depths at 1/8, 1/16 and 1/32 resolution.

    Depths are residual blocks of the encoders; the decoder has one less at each, and at least one.
    """

    widths: tuple[int, int, int] = (128, 160, 192)
    depths: tuple[int, int, int] = (2, 2, 2)
    control_ratio: float = 0.5
    condition_width: int = 192
    vocabulary_size: int = 0


@dataclass(frozen=True)
class CodecConfig:
    """The whole codec.

    `lambdas` are the distortion weights of qualities 1, 2, …, in bits per pixel per squared error of 8-bit values;
    `tile` bounds what is coded at once, in pixels a side (`tiling.py`).
    """

    latent_channels: int = 64
    tile: int = 2048
    lambdas: tuple[float, ...] = (0.00015, 0.00037, 0.00092, 0.0023, 0.0056, 0.014)
    transforms: TransformConfig = field(default_factory=TransformConfig)
    entropy: EntropyConfig = field(default_factory=EntropyConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)

    @property
    def qualities(self) -> int:
        return len(self.lambdas)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CodecConfig:
        """Inverse of `to_dict`, also after a trip through JSON. Raises TypeError for unknown or missing fields."""
        parts = {"transforms": TransformConfig, "entropy": EntropyConfig, "denoiser": DenoiserConfig}
        built = {name: part(**tuples(fields[name])) for name, part in parts.items()}
        return cls(**{**tuples(fields), **built})


def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration after a trip through JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(fields).items()}
