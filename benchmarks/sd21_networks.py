"""The paper's networks with random weights, and what a codec does with them, step by step.

Nothing is read from disk: times and memory do not depend on the values of weights. The one exception is entropy coding,
whose symbols cost what the networks expect of them; so the random networks expect different scales at different places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from difficmh.noise import NoiseField
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import Conditioning, Denoiser, DenoiserConfig, noise_model
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.sd21.reference_sampler import NoiseEstimate
from difficmh.sd21.samplers import draw
from difficmh.sd21.tables import coding_tables
from difficmh.sd21.text import BEGIN, END, TextConditioner, TextConfig
from difficmh.sd21.unet import UNetConfig
from difficmh.sd21.vae import LatentAutoencoder, VaeConfig
from difficmh.symbols import EntropyTables, decode_latents, encode_latents

GUIDANCE = 5.0
PROMPT = "boat, person, river"


@dataclass(frozen=True)
class Sizes:
    """Configuration of every network; the defaults are those of the released models."""

    lfgcm: LfgcmConfig = field(default_factory=LfgcmConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    autoencoder: VaeConfig = field(default_factory=VaeConfig)
    text: TextConfig = field(default_factory=TextConfig)


SIZES = {
    "full": Sizes(),
    "small": Sizes(
        LfgcmConfig(analysis_widths=(4, 4, 6, 6), hyper_channels=8, side_channels=4, slices=(2, 2, 4)),
        DenoiserConfig(UNetConfig(widths=(32, 64), head_channels=16, context_width=32), ControlConfig()),
        VaeConfig(widths=(32, 32, 32, 32)),
        TextConfig(width=32, heads=4, blocks=2),
    ),
}
"""Small ones only show that everything runs."""


@dataclass(frozen=True)
class Networks:
    """All that coding and decoding need, in evaluation mode. The denoiser alone may be in another precision."""

    denoiser: Denoiser
    autoencoder: LatentAutoencoder
    lfgcm: Lfgcm
    tables: EntropyTables
    text: TextConditioner

    @property
    def device(self) -> torch.device:
        return self.lfgcm.device

    def convert(self, dtype: torch.dtype) -> None:
        """Converts the denoiser, to which time and memory go, in place."""
        self.denoiser.to(dtype)


def random_networks(sizes: Sizes, device: torch.device) -> Networks:
    """Networks of these sizes with torch's own initial weights, in float32, made on the device."""
    with torch.device(device):
        denoiser, autoencoder = Denoiser(sizes.denoiser), LatentAutoencoder(sizes.autoencoder)
        text = TextConditioner(sizes.text, lambda _: [BEGIN, *range(1, 6), END])
    autoencoder.save_memory(slicing=True, tiling=True)  # as the codec has it
    for network in (denoiser, autoencoder, text):
        network.to(device).eval().requires_grad_(False)
    lfgcm = random_lfgcm(sizes, device)
    return Networks(denoiser, autoencoder, lfgcm, coding_tables(lfgcm), text)


def random_lfgcm(sizes: Sizes, device: torch.device) -> Lfgcm:
    """The latent codec alone, ready for exact coding."""
    with torch.device(device):
        lfgcm = Lfgcm(sizes.lfgcm)
    spread_scales(lfgcm)
    lfgcm.freeze()
    return lfgcm.to(device).eval().requires_grad_(False)


@torch.no_grad()
def spread_scales(lfgcm: Lfgcm) -> None:
    """Makes the expected scales differ from channel to channel, a fifth of them at the lower bound."""
    for parameters in (*lfgcm.entropy_parameters_anchor, *lfgcm.entropy_parameters_nonanchor):
        last: Any = parameters.fusion[4]
        scales, _ = last.bias.chunk(2)
        scales.uniform_(-0.5, 2.0)


# --- what a codec does


@dataclass(frozen=True)
class Stream:
    """Bytes of an image's symbols, and the checksum of the symbols that were written."""

    data: bytes
    checksum: int


def encode(networks: Networks, images: Tensor) -> list[Stream]:
    """`(B, 3, H, W)` images in [0, 1] to streams of their symbols: autoencoder, analysis, entropy coding."""
    y, z = networks.lfgcm.analyze(images, networks.autoencoder.encode(images))
    encoders = [SymbolEncoder() for _ in images]
    encode_latents(networks.lfgcm, networks.tables, y, networks.lfgcm.centre(z), 0, encoders)
    return [Stream(encoder.finish(), encoder.checksum) for encoder in encoders]


def read_guide(networks: Networks, streams: Sequence[Stream], z_size: tuple[int, int]) -> Tensor:
    """Guide latent `(B, 4, 8h, 8w)` of streams of `(h, w)` positions of z: entropy decoding, synthesis.

    Raises RuntimeError where the symbols are not those that were written: the device's arithmetic is not exact.
    """
    decoders = [SymbolDecoder(stream.data) for stream in streams]
    found = decode_latents(networks.lfgcm, networks.tables, z_size, 0, decoders)
    wrong = [
        i
        for i, (decoder, stream) in enumerate(zip(decoders, streams, strict=True))
        if decoder.checksum != stream.checksum
    ]
    if wrong:
        raise RuntimeError(f"images {wrong} of {len(streams)}: the decoded symbols are not those that were encoded")
    return networks.lfgcm.guide(found.y_hat, found.z_symbols)


def conditioning(networks: Networks, guide: Tensor) -> Conditioning:
    """What steers the denoiser under guidance; embeddings are made anew."""
    networks.text.forget()
    empty, context = networks.text.embed(["", PROMPT])
    return Conditioning(guide, context.expand(len(guide), -1, -1), empty[None], GUIDANCE)


def noise_field(guide: Tensor) -> NoiseField:
    """The noise that streams define for latents like `guide`."""
    batch, channels, height, width = guide.shape
    return NoiseField(range(batch), channels, slice(0, height), slice(0, width), width, guide.device)


def reconstruct(networks: Networks, guide: Tensor, steps: int) -> Tensor:
    """Images of guide latents: text, reference sampling with both branches as one batch, autoencoder."""
    noise = noise_field(guide)
    estimate = noise_model(networks.denoiser, conditioning(networks, guide))
    latent = draw("ddpm", estimate, noise.start(), noise.at, steps)
    return networks.autoencoder.decode(latent)


def reconstruct_one_by_one(networks: Networks, guide: Tensor, steps: int) -> Tensor:
    """The same as the official implementation orders it: image by image, two calls of the denoiser for each step.

    Noise comes from the device's generator. Attention is torch's fused one here too, which the official code lacks.
    """
    given = conditioning(networks, guide)
    images = []
    for one in guide.split(1):
        estimate = two_calls(networks.denoiser, replace(given, guide=one, context=given.context[:1]))
        latent = draw("ddpm", estimate, torch.randn_like(one), partial(_random, one), steps)
        images.append(networks.autoencoder.decode(latent))
    return torch.cat(images)


def two_calls(network: Denoiser, given: Conditioning) -> NoiseEstimate:
    """The guided noise estimate from one call for each branch. Raises ValueError where there is one branch only."""
    if given.unconditional is None:
        raise ValueError("two calls need the embedding of the empty text")
    empty = noise_model(network, Conditioning(given.guide, given.unconditional))
    tagged = noise_model(network, Conditioning(given.guide, given.context))

    def estimate(x: Tensor, t: int) -> Tensor:
        eps = empty(x, t)
        return eps + given.scale * (tagged(x, t) - eps)

    return estimate


def _random(like: Tensor, _timestep: int) -> Tensor:
    return torch.randn_like(like)
