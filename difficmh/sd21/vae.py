"""Stable Diffusion's autoencoder from diffusers: pixels to the scaled latent that the rest of the codec works in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor, nn

from difficmh.tiling import LATENT_STRIDE


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of the autoencoder; the defaults are Stable Diffusion's.

    `widths` are channels at full resolution, 1/2, 1/4 and 1/8. `scale` brings the latent to unit variance. `tile` is
    the side of a tile in pixels where tiling is on (`LatentAutoencoder.save_memory`).
    """

    latent_channels: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks_per_level: int = 2
    scale: float = 0.18215
    tile: int = 1024

    def __post_init__(self) -> None:
        if 2 ** (len(self.widths) - 1) != LATENT_STRIDE or self.tile % LATENT_STRIDE:
            raise ValueError(f"widths {self.widths} and tiles of {self.tile} do not make latents of 1/{LATENT_STRIDE}")


class LatentAutoencoder(nn.Module):
    """Image to scaled latent and back."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        levels = len(config.widths)
        make: Any = AutoencoderKL  # diffusers' constructors are untyped
        self.vae: Any = make(
            latent_channels=config.latent_channels,
            block_out_channels=config.widths,
            layers_per_block=config.blocks_per_level,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=config.tile,
            scaling_factor=config.scale,
        )

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latent `(B, C, H/8, W/8)` of `(B, 3, H, W)` images in [0, 1], H and W multiples of 8.

        It is the posterior's mean; with standard normal `noise` of the latent's shape, which training uses, a sample.
        Raises ValueError for other sizes.
        """
        if image.shape[-2] % LATENT_STRIDE or image.shape[-1] % LATENT_STRIDE:
            raise ValueError(f"an image of {image.shape[-2]} x {image.shape[-1]} is no multiple of {LATENT_STRIDE}")
        posterior = self.vae.encode(2 * image.to(self.vae.dtype) - 1, return_dict=False)[0]
        latent = posterior.mode() if noise is None else posterior.mean + posterior.std * noise
        return self.config.scale * latent.float()

    def decode(self, latent: Tensor) -> Tensor:
        """Image `(B, 3, 8h, 8w)` float32 of a `(B, C, h, w)` latent: nominally in [0, 1], not clamped."""
        decoded: Tensor = self.vae.decode((latent / self.config.scale).to(self.vae.dtype), return_dict=False)[0]
        return (decoded.float() + 1) / 2

    def save_memory(self, *, slicing: bool = False, tiling: bool = False) -> None:
        """Trades speed for memory with diffusers' switches.

        `slicing` runs one image of a batch at a time, with the same result. `tiling` runs tiles of `VaeConfig.tile`
        pixels that overlap by a quarter and blends them: images above that size then differ a little from those of
        the whole, since norms and the middle's attention see a tile only.
        """
        (self.vae.enable_slicing if slicing else self.vae.disable_slicing)()
        (self.vae.enable_tiling if tiling else self.vae.disable_tiling)()
