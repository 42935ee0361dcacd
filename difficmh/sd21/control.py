"""The control module of Diff-ICMH (CDDM): a second UNet encoder over the noisy and the guide latent.

    cat[x_t, c] ──► input blocks ──► middle          (its own features, nothing flows back from the UNet)
                      │ enc_out[i]     │ mid_out     1 x 1 convolutions that start at zero
                      │ dec_out[j]     ▼
                      └──────────► Additions to the UNet

`dec_out` carries the same features as `enc_out`, deepest first. Facts of "Diff-ICMH, official implementation"; blocks
are diffusers', because the module's own widths need group counts and heads that diffusers' levels do not offer.
`initialize_from_unet` is for training, which no job does yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from difficmh.layers import zero_init
from difficmh.sd21.unet import Additions, Features, UNetConfig, input_blocks, middle_block, run_block

MAX_GROUPS = 32
"""Group norms have the largest number of groups up to this that divides their channels."""


@dataclass(frozen=True)
class ControlConfig:
    """Sizes of the control module; the defaults are those of the released models.

    `ratio` in (0, 1] is its width over the UNet's. `head_channels` bounds the width of its attention heads; it is 16
    where the UNet has 64, so that attention weights copied from the UNet start with another split into heads.
    """

    ratio: float = 1.0
    head_channels: int = 16
    scale: float = 1.0

    def widths(self, unet: UNetConfig) -> tuple[int, ...]:
        """Channels of each level. Raises ValueError where the ratio leaves none."""
        first = int(unet.widths[0] * self.ratio)
        if not 0 < first <= unet.widths[0]:
            raise ValueError(f"a control ratio of {self.ratio} leaves {first} of {unet.widths[0]} channels")
        if any(width % unet.widths[0] for width in unet.widths):
            raise ValueError(f"the UNet's widths {unet.widths} are no multiples of the first")
        return tuple(first * (width // unet.widths[0]) for width in unet.widths)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


class ControlModule(nn.Module):
    """Encoder, middle block and the 25 convolutions into the UNet."""

    def __init__(self, unet: UNetConfig, config: ControlConfig) -> None:
        super().__init__()
        widths = config.widths(unet)
        self.time_embedding = TimestepEmbedding(unet.widths[0], unet.embedding_width)
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in _encoder(unet, config))
        # The middle takes over the head width of the last level with attention, whatever its own width would give.
        head_channels = largest_divisor(widths[-2], config.head_channels)
        wide = widths[-1]
        self.middle_block = nn.ModuleList(
            (_resnet(wide, wide, unet), _attention(wide, head_channels, unet), _resnet(wide, wide, unet))
        )
        inner, outer = _block_widths(unet, widths), _block_widths(unet, unet.widths)
        self.enc_out = nn.ModuleList(_zero_conv(a, b) for a, b in zip(inner, outer, strict=True))
        self.mid_out = _zero_conv(widths[-1], unet.widths[-1])
        self.dec_out = nn.ModuleList(
            _zero_conv(a, b) for a, b in zip(reversed(inner), _decoder_widths(unet), strict=True)
        )
        self.register_buffer("scale_list", torch.full((2 * len(inner) + 1,), config.scale))

    def forward(self, x: Tensor, guide: Tensor, sinusoid: Tensor, context: Tensor) -> Additions:
        """What to add to the UNet.

        Noisy latent and guide latent `(B, C, H, W)`, sinusoids of the time steps `(B, widths[0])`
        (`unet.time_sinusoid`), text `(B, L, D)`.
        """
        features = self.encode(torch.cat((x, guide), dim=1), sinusoid, context)
        scales = self.get_buffer("scale_list")
        maps = features.encoder
        enc = [conv(g) * scales[i] for i, (conv, g) in enumerate(zip(self.enc_out, maps, strict=True))]
        dec = [
            conv(g) * scales[len(maps) + 1 + j]
            for j, (conv, g) in enumerate(zip(self.dec_out, reversed(maps), strict=True))
        ]
        return Additions(tuple(enc), self.mid_out(features.middle) * scales[len(maps)], tuple(dec))

    def encode(self, h: Tensor, sinusoid: Tensor, context: Tensor) -> Features:
        """The module's own features of cat[noisy latent, guide latent] `(B, 2C, H, W)`."""
        embedding = self.time_embedding(sinusoid.to(self.mid_out.weight.dtype))
        maps = []
        for block in self.input_blocks:
            h = run_block(list(block.children()), h, embedding, context)
            maps.append(h)
        return Features(tuple(maps), run_block(list(self.middle_block), h, embedding, context))


def _encoder(unet: UNetConfig, config: ControlConfig) -> list[list[nn.Module]]:
    """The modules of each input block."""
    widths = config.widths(unet)
    blocks: list[list[nn.Module]] = [[nn.Conv2d(2 * unet.latent_channels, widths[0], 3, padding=1)]]
    channels = widths[0]
    for level, width in enumerate(widths):
        last = level == len(widths) - 1
        for _ in range(unet.blocks_per_level):
            block = [_resnet(channels, width, unet)]
            if not last:
                block.append(_attention(width, largest_divisor(width, config.head_channels), unet))
            blocks.append(block)
            channels = width
        if not last:
            blocks.append([Downsample2D(width, use_conv=True, name="op")])
    return blocks


def _block_widths(unet: UNetConfig, widths: tuple[int, ...]) -> list[int]:
    """Output channels of each input block of an encoder with these widths."""
    per_level = [[width] * (unet.blocks_per_level + 1) for width in widths]
    return [widths[0], *(channels for level in per_level for channels in level)][:-1]


def _decoder_widths(unet: UNetConfig) -> list[int]:
    """Channels that enter each output block of the UNet, without the skip connection: the first block of a level
    still has those of the level below."""
    depth = unet.blocks_per_level
    channels = [unet.widths[-1]] * (depth + 1)
    for below, width in pairwise(reversed(unet.widths)):
        channels += [below] + [width] * depth
    return channels


def _resnet(channels: int, out_channels: int, unet: UNetConfig) -> nn.Module:
    block: nn.Module = ResnetBlock2D(
        in_channels=channels,
        out_channels=out_channels,
        temb_channels=unet.embedding_width,
        groups=largest_divisor(channels, MAX_GROUPS),
        groups_out=largest_divisor(out_channels, MAX_GROUPS),
        eps=1e-5,
    )
    return block


def _attention(width: int, head_channels: int, unet: UNetConfig) -> nn.Module:
    """Self-attention, attention to the text and feed-forward. Raises ValueError where heads do not fit the width."""
    if width % head_channels:
        raise ValueError(f"{width} channels do not divide into heads of {head_channels}")
    make: Any = Transformer2DModel  # diffusers' constructors are untyped
    block: nn.Module = make(
        num_attention_heads=width // head_channels,
        attention_head_dim=head_channels,
        in_channels=width,
        norm_num_groups=largest_divisor(width, MAX_GROUPS),
        cross_attention_dim=unet.context_width,
        use_linear_projection=True,
    )
    return block


def _zero_conv(channels: int, out_channels: int) -> nn.Conv2d:
    return zero_init(nn.Conv2d(channels, out_channels, 1))


@torch.no_grad()
def initialize_from_unet(control: ControlModule, unet: Any) -> None:
    """Starts encoder and middle of the control module as the UNet's; the 25 convolutions stay as they are.

    Where shapes differ, the UNet's tensor is repeated once along its input channels and cut: the first convolution
    sees the noisy and the guide latent alike, and a narrower module gets the leading channels.
    """
    pairs = [(control.time_embedding, unet.time_embedding)]
    ours = [*control.input_blocks, control.middle_block]
    theirs = [*input_blocks(unet), middle_block(unet)]
    for block, source_block in zip(ours, theirs, strict=True):
        pairs.extend(zip(block.children(), source_block, strict=True))
    for module, source in pairs:
        values = dict(source.named_parameters())
        for name, parameter in module.named_parameters():
            parameter.copy_(_fit(values[name], parameter.shape))


def _fit(value: Tensor, shape: torch.Size) -> Tensor:
    """`value` where it has this shape, else two of it side by side along the input channels, cut to `shape`."""
    if value.shape == shape:
        return value
    if value.ndim == 1:
        return torch.cat((value, value))[: shape[0]]
    return torch.cat((value, value), dim=1)[: shape[0], : shape[1]]
