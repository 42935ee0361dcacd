"""Stable Diffusion's UNet from diffusers, walked block by block.

Diff-ICMH adds the control module's features at 25 places of the UNet: after each of the 12 input blocks, after the
middle, and before each of the 12 output blocks. diffusers' own `forward` has no such places, so this module lists the
UNet's public submodules in the blocks of the original latent diffusion code and runs them one after the other:

    x_t ──► input blocks ──► middle ──► output blocks ──► eps
              │ + encoder[i]   + middle    + decoder[j] ▲
              └───────── skip connections ─────────────┘

A block is a list of modules; a level of the encoder is two residual blocks, each with attention but on the coarsest
level, and a convolution of stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

Block = Sequence[nn.Module]
"""Modules that run one after the other."""


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the UNet; the defaults are those of Stable Diffusion 2.1 base.

    `widths` are channels of each resolution, 1/8 first; all levels but the last have attention, with heads of
    `head_channels` over a text context of `context_width` channels. Raises ValueError where a width cannot be divided
    into heads, or into the norm's 32 groups.
    """

    latent_channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks_per_level: int = 2
    head_channels: int = 64
    context_width: int = 1024

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width % self.head_channels or width % 32 for width in self.widths):
            raise ValueError(f"widths {self.widths} do not divide into heads of {self.head_channels} and 32 groups")

    @property
    def embedding_width(self) -> int:
        """Channels of the time embedding."""
        return 4 * self.widths[0]

    @property
    def multiple(self) -> int:
        """Latent heights and widths must be multiples of this."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class Additions:
    """What the control module adds: one map per input block, the middle's, one per output block in order of use."""

    encoder: tuple[Tensor, ...]
    middle: Tensor
    decoder: tuple[Tensor, ...]


@dataclass(frozen=True)
class Features:
    """Outputs of an encoder: one map per input block, 1/8 resolution first, and the middle's."""

    encoder: tuple[Tensor, ...]
    middle: Tensor


def build_unet(config: UNetConfig) -> Any:
    """diffusers' UNet2DConditionModel of these sizes, with random weights."""
    levels = len(config.widths)
    make: Any = UNet2DConditionModel  # diffusers' constructors are untyped
    return make(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.widths,
        layers_per_block=config.blocks_per_level,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        # Despite its name this is the number of heads of each level.
        attention_head_dim=tuple(width // config.head_channels for width in config.widths),
        cross_attention_dim=config.context_width,
        use_linear_projection=True,
    )


def input_blocks(unet: Any) -> list[Block]:
    """The encoder: first convolution, then residual blocks and downsamplings."""
    blocks: list[Block] = [[unet.conv_in]]
    for level in unet.down_blocks:
        blocks.extend(_with_attention(level))
        blocks.extend([downsampler] for downsampler in level.downsamplers or ())
    return blocks


def middle_block(unet: Any) -> Block:
    """Residual block, attention, residual block."""
    middle = unet.mid_block
    return [middle.resnets[0], middle.attentions[0], middle.resnets[1]]


def output_blocks(unet: Any) -> list[Block]:
    """The decoder; an upsampling ends the last block of its level."""
    blocks: list[Block] = []
    for level in unet.up_blocks:
        level_blocks = _with_attention(level)
        level_blocks[-1] = [*level_blocks[-1], *(level.upsamplers or ())]
        blocks.extend(level_blocks)
    return blocks


def _with_attention(level: Any) -> list[Block]:
    """Residual blocks of a level, each followed by its attention where the level has any."""
    if not hasattr(level, "attentions"):
        return [[resnet] for resnet in level.resnets]
    return [[resnet, attention] for resnet, attention in zip(level.resnets, level.attentions, strict=True)]


def run_block(block: Block, h: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
    """A block's output: `(B, C, H, W)`, time embedding `(B, E)`, text `(B, L, D)` to `(B, C', H', W')`."""
    for module in block:
        if isinstance(module, ResnetBlock2D):
            h = module(h, embedding)
        elif isinstance(module, Transformer2DModel):
            h = attend(module, h, context)
        else:
            h = module(h)
    return h


def attend(module: Any, h: Tensor, context: Tensor) -> Tensor:
    """What diffusers' Transformer2DModel gives, in the memory layout of `h`.

    Its own `forward` makes the plain layout of the result, so that convolutions in channels last, which follow, have to
    copy it back.
    """
    batch, _, height, width = h.shape
    tokens = module.proj_in(module.norm(h).permute(0, 2, 3, 1).flatten(1, 2))
    for block in module.transformer_blocks:
        tokens = block(tokens, encoder_hidden_states=context)
    return h + module.proj_out(tokens).view(batch, height, width, -1).permute(0, 3, 1, 2)


def weights_dtype(unet: Any) -> torch.dtype:
    """The precision of the weights. diffusers' own property walks over all modules, a millisecond for each call."""
    dtype: torch.dtype = unet.conv_in.weight.dtype
    return dtype


def time_embedding(unet: Any, sinusoid: Tensor) -> Tensor:
    """`(B, E)` embedding of `(B, widths[0])` sinusoids (see `time_sinusoid`)."""
    embedding: Tensor = unet.time_embedding(sinusoid.to(weights_dtype(unet)))
    return embedding


def time_sinusoid(unet: Any, timesteps: Tensor) -> Tensor:
    """Cosines and sines of `(B,)` training steps in [0, 1000), `(B, widths[0])` float32; without weights."""
    sinusoid: Tensor = unet.time_proj(timesteps)
    return sinusoid


def encode(unet: Any, x: Tensor, embedding: Tensor, context: Tensor, additions: Additions | None = None) -> Features:
    """Input blocks and middle, each with its addition where there are any.

    x `(B, C, H, W)` with H and W multiples of `UNetConfig.multiple`, embedding `(B, E)`, context `(B, L, D)`. The
    features contain the additions, as the skip connections do.
    """
    h, features = x, []
    for i, block in enumerate(input_blocks(unet)):
        h = run_block(block, h, embedding, context)
        if additions is not None:
            h = h + additions.encoder[i]
        features.append(h)
    middle = run_block(middle_block(unet), h, embedding, context)
    if additions is not None:
        middle = middle + additions.middle
    return Features(tuple(features), middle)


def decode(
    unet: Any, features: Features, embedding: Tensor, context: Tensor, additions: Additions | None = None
) -> Tensor:
    """Output blocks and last convolution: the noise estimate `(B, C, H, W)`."""
    h = features.middle
    for j, block in enumerate(output_blocks(unet)):
        if additions is not None:
            h = h + additions.decoder[j]
        h = run_block(block, torch.cat((h, features.encoder[-1 - j]), dim=1), embedding, context)
    noise: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))
    return noise
