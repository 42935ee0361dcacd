"""The noise model: UNet, control module and classifier-free guidance.

Both branches of guidance, with the tags' text and with the empty one, run as one batch. The control module attends to
the text too, so it takes part in both; only the guide latent is the same for them. `Denoiser.initialize_control` is for
training, which no job does yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from difficmh.sd21.control import ControlConfig, ControlModule, initialize_from_unet
from difficmh.sd21.reference_sampler import NoiseEstimate
from difficmh.sd21.unet import (
    Features,
    UNetConfig,
    build_unet,
    decode,
    encode,
    time_embedding,
    time_sinusoid,
    weights_dtype,
)


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of both networks; the defaults are those of the released models."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    control: ControlConfig = field(default_factory=ControlConfig)


@dataclass(frozen=True)
class Conditioning:
    """What steers the denoiser for `B` images of one size.

    `guide` `(B, C, H, W)`: the decoded guide latent. `context` `(B, L, D)`: text embeddings of the tags.
    `unconditional` `(1, L, D)` or `(B, L, D)`: that of the empty text; it may be missing where `scale` is 1, for then
    there is no second branch. Raises ValueError where it is missing otherwise.
    """

    guide: Tensor
    context: Tensor
    unconditional: Tensor | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.uses_guidance and self.unconditional is None:
            raise ValueError(f"guidance of {self.scale} needs the embedding of the empty text")

    @property
    def uses_guidance(self) -> bool:
        """Whether there are two branches."""
        return self.scale != 1


class Denoiser(nn.Module):
    """Estimates the noise eps in a latent. Latents `(B, C, H, W)` with H and W multiples of 8."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet)
        self.control = ControlModule(config.unet, config.control)

    def initialize_control(self) -> None:
        """Starts the control module from the UNet's weights, as training does."""
        initialize_from_unet(self.control, self.unet)

    def forward(self, x_t: Tensor, timesteps: Tensor, context: Tensor, guide: Tensor | None) -> Tensor:
        """eps of `x_t`, `(B, C, H, W)` float32.

        timesteps `(B,)` int64 in [0, 1000), context `(B, L, D)`; without a guide the UNet denoises alone. Runs in the
        weights' precision, or in autocast's. Raises ValueError for a size that the UNet cannot halve often enough.
        """
        _check_size(x_t, self.config.unet.multiple)
        dtype = weights_dtype(self.unet)
        x, context = x_t.to(dtype), context.to(dtype)
        sinusoid = time_sinusoid(self.unet, timesteps)
        embedding = time_embedding(self.unet, sinusoid)
        additions = None if guide is None else self.control(x, guide.to(x.dtype), sinusoid, context)
        features = encode(self.unet, x, embedding, context, additions)
        return decode(self.unet, features, embedding, context, additions).float()

    def features(self, latent: Tensor, timesteps: Tensor, context: Tensor) -> Features:
        """Encoder and middle features of the UNet alone; arguments as in `forward`."""
        _check_size(latent, self.config.unet.multiple)
        embedding = time_embedding(self.unet, time_sinusoid(self.unet, timesteps))
        dtype = weights_dtype(self.unet)
        return encode(self.unet, latent.to(dtype), embedding, context.to(dtype))

    def semantic_features(self, latent: Tensor, context: Tensor, block: int | None = None) -> Tensor:
        """Features of a clean latent (t = 0) that the semantic consistency loss compares.

        Those of the middle, `(B, D, H/8, W/8)`, or of input block `block`, counted from 1.
        """
        timesteps = torch.zeros(latent.shape[0], dtype=torch.int64, device=latent.device)
        found = self.features(latent, timesteps, context)
        return found.middle if block is None else found.encoder[block - 1]


def _check_size(latent: Tensor, multiple: int) -> None:
    if latent.shape[-2] % multiple or latent.shape[-1] % multiple:
        raise ValueError(f"a latent of {latent.shape[-2]} x {latent.shape[-1]} is no multiple of {multiple}")


def noise_model(network: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], given: Conditioning) -> NoiseEstimate:
    """The guided noise estimate for a sampler: eps_u + scale (eps_c - eps_u), both from one batch of `network`.

    `network` is a `Denoiser`, or anything called like one.
    """
    if given.unconditional is None or not given.uses_guidance:
        return lambda x, t: network(x, _steps(x, t), given.context, given.guide)
    context = torch.cat((given.unconditional.expand_as(given.context), given.context))
    guide = given.guide.repeat(2, 1, 1, 1)

    def guided(x: Tensor, t: int) -> Tensor:
        both = x.repeat(2, 1, 1, 1)
        eps_u, eps_c = network(both, _steps(both, t), context, guide).chunk(2)
        return eps_u + given.scale * (eps_c - eps_u)

    return guided


def _steps(x: Tensor, t: int) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)
