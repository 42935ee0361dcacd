"""What a latent codec of the paper looks like: channels and slices."""

from __future__ import annotations

from dataclasses import dataclass

ANALYSIS_LEVELS = 4


@dataclass(frozen=True)
class LfgcmConfig:
    """Sizes of the latent codec; the defaults are those of the released models.

    `analysis_widths` are the channels of the analysis at 1/2, 1/4, 1/8 and 1/16 resolution, `hyper_channels` those of z
    (N in the literature), `side_channels` those of side information, `side_kernel` the kernel of its modulations,
    `slices` the channel groups of y in coding order. Raises ValueError for sizes that no network can have.
    """

    image_channels: int = 3
    latent_channels: int = 4
    analysis_widths: tuple[int, ...] = (64, 128, 192, 192)
    hyper_channels: int = 192
    side_channels: int = 64
    side_kernel: int = 3
    slices: tuple[int, ...] = (8, 8, 8, 8, 16, 16, 32, 32, 96, 96)

    def __post_init__(self) -> None:
        sizes = (self.image_channels, self.latent_channels, self.hyper_channels, self.side_channels)
        if len(self.analysis_widths) != ANALYSIS_LEVELS or not self.slices:
            raise ValueError(f"a latent codec has {ANALYSIS_LEVELS} analysis widths and at least one slice")
        if min(*sizes, *self.analysis_widths, *self.slices) < 1 or self.hyper_channels % 4 or self.side_kernel % 2 == 0:
            raise ValueError("channels are positive, those of z a multiple of 4, and kernels odd")

    @property
    def channels(self) -> int:
        """Channels of y (M in the literature)."""
        return sum(self.slices)
