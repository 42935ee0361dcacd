"""The stages of training, one class each: what is trained, on which losses.

rate_distortion   transforms and entropy model, bits against squared error, MS-SSIM and features, all qualities at once
decoder           g_s alone, on the same losses
diffusion         the denoiser as an image prior and with its control branch; the synthesis learns to keep meaning
one_step          the denoiser and the autoencoder's decoder for one step, with feature and adversarial losses
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from difficmh.distortion import distortion
from difficmh.model import CodecModel
from difficmh.taggers.lite0 import load_lite0
from difficmh.training import losses
from difficmh.training.discriminator import ProjectedDiscriminator, adversarial_shares, generator_loss, hinge_loss
from difficmh.training.features import FAR, FrozenFeatures, RandomView, feature_loss, view_loss
from difficmh.training.optimizer import GuardedOptimizer
from difficmh.training.settings import LossSettings

PIXELS_WEIGHT, BLOCKS_WEIGHT = 10.0, 10.0
"""In the one-step loss: of absolute errors of pixels, and of the means of blocks of 8 x 8 pixels."""

FADE_IN = 0.25
"""Share of the stage `one_step` over which the adversarial part comes to count whole."""


@dataclass(frozen=True)
class Batch:
    """`images` `(B, 3, H, W)` in [0, 1], `tags` `(B, V)` float in {0, 1}, `quality` `(B,)` int64 from 0."""

    images: Tensor
    tags: Tensor
    quality: Tensor


class Stage(Protocol):
    """A stage of training over one model.

    `PEAK_RATE` is the learning rate where none is asked for. `PREVIOUS` are the stages that it may start from, of
    several the one that was trained last; none where it may start afresh.
    """

    PEAK_RATE: ClassVar[float]
    PREVIOUS: ClassVar[tuple[str, ...]]
    optimizers: dict[str, GuardedOptimizer]

    def __init__(self, model: CodecModel, learning_rate: float, settings: LossSettings) -> None: ...

    def step(self, batch: Batch, progress: float, generator: torch.Generator) -> dict[str, float]:
        """One update of the weights; returns what to log."""
        ...

    def extra_modules(self) -> dict[str, nn.Module]:
        """Modules that a checkpoint keeps beside the model."""
        ...


def _autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies it; others emulate it, more slowly than they compute in float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def _drop_tags(tags: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Forgets all tags of some samples, so that the denoiser also works without, and guidance is possible."""
    keep = torch.rand(len(tags), 1, generator=generator) >= share
    return tags * keep.to(tags.device)


def _frozen_features(model: CodecModel) -> FrozenFeatures:
    device = next(model.parameters()).device
    return FrozenFeatures(load_lite0()).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class RateDistortionStage:
    """Trains everything but the denoiser and the latent in which it works.

    `FROZEN` names what a variant of the stage keeps beside.
    """

    PEAK_RATE: ClassVar[float] = 4e-4
    PREVIOUS: ClassVar[tuple[str, ...]] = ()
    FROZEN: tuple[str, ...] = ("denoiser", "autoencoder")

    def __init__(self, model: CodecModel, learning_rate: float, settings: LossSettings) -> None:
        self.model = model
        self.settings = settings
        model.requires_grad_(True)
        for name in self.FROZEN:
            model.get_submodule(name).requires_grad_(False)
        self.optimizers = {"codec": GuardedOptimizer(model.named_parameters(), learning_rate)}
        self.features = _frozen_features(model) if settings.codec_features else None
        self.lambdas = torch.tensor(model.config.lambdas)

    def step(self, batch: Batch, progress: float, generator: torch.Generator) -> dict[str, float]:
        lambdas = self.lambdas.to(batch.images.device)
        with _autocast(batch.images.device):
            result = losses.rate_distortion(self.model, batch.images, batch.quality)
            features = self._feature_loss(batch.images, result.preview, generator)
        found = result.distortion
        mixed = found.mixed(self.settings.mse_share, self.settings.means) + self.settings.codec_features * features
        middle = float(lambdas[len(lambdas) // 2])
        loss = losses.rate_distortion_loss(result.bpp, mixed, lambdas[batch.quality], middle)
        norm = self.optimizers["codec"].step(loss, progress)
        return {
            "loss": loss.item(),
            "bpp": result.bpp.mean().item(),
            "psnr": losses.decibels(found.mse).item(),
            "means": found.means.mean().item(),
            "ms_ssim": found.ms_ssim.mean().item(),
            "features": features.mean().item(),
            "norm": norm,
        }

    def _feature_loss(self, images: Tensor, preview: Tensor, generator: torch.Generator) -> Tensor:
        """Per sample `(B,)`, of a near and a far view; zeros where none is asked.

        Near, of the first half of the batch and twice as much, for time.
        """
        if self.features is None:
            return torch.zeros(len(images), device=images.device)
        half = (len(images) + 1) // 2
        near = view_loss(self.features, RandomView(images.shape, generator), images[:half], preview[:half])
        near = nn.functional.pad(near * (len(images) / half), (0, len(images) - half))
        far = view_loss(self.features, RandomView(images.shape, generator, FAR), images, preview)
        return near.lerp(far, self.settings.far)

    def extra_modules(self) -> dict[str, nn.Module]:
        return {}


class DecoderStage(RateDistortionStage):
    """Trains what draws the preview of symbols, g_s, for symbols that stay as they are.

    What a decoder must unlearn would otherwise unsettle the encoder, which moves by as much in every step.
    """

    PREVIOUS: ClassVar[tuple[str, ...]] = ("rate_distortion",)
    FROZEN = (*RateDistortionStage.FROZEN, "g_a", "h_a", "entropy", "rate")


class DiffusionStage:
    """Trains the denoiser, and g_s with the semantic consistency loss beside its distortion; bitstreams stay valid."""

    PEAK_RATE: ClassVar[float] = 4e-4
    PREVIOUS: ClassVar[tuple[str, ...]] = ("decoder", "rate_distortion")

    def __init__(self, model: CodecModel, learning_rate: float, settings: LossSettings) -> None:
        self.model = model
        self.settings = settings
        model.requires_grad_(False)
        model.denoiser.requires_grad_(True)
        model.g_s.requires_grad_(True)
        self.optimizers = {
            "denoiser": GuardedOptimizer(model.denoiser.named_parameters(), learning_rate),
            "g_s": GuardedOptimizer(model.g_s.named_parameters(), learning_rate / 20),
        }
        self.lambdas = torch.tensor(model.config.lambdas)

    def step(self, batch: Batch, progress: float, generator: torch.Generator) -> dict[str, float]:
        tags = _drop_tags(batch.tags, self.settings.tag_dropout, generator)
        with torch.no_grad(), _autocast(batch.images.device):
            latent = self.model.autoencoder.encode(batch.images)
            y_hat = losses.quantize(self.model, batch.images, batch.quality)
        log = self._synthesis_step(batch, y_hat, latent, tags, progress)
        with _autocast(batch.images.device):
            with torch.no_grad():
                guide = self.model.guide(y_hat, batch.quality)
            alone = bool(torch.rand((), generator=generator) < self.settings.control_dropout)
            loss = losses.diffusion_loss(self.model.denoiser, latent, None if alone else guide, tags, generator)
        norm = self.optimizers["denoiser"].step(loss, progress)
        return {"loss": loss.item(), "controlled": float(not alone), "norm": norm, **log}

    def _synthesis_step(
        self, batch: Batch, y_hat: Tensor, latent: Tensor, tags: Tensor, progress: float
    ) -> dict[str, float]:
        if progress < self.settings.semantic_start or self.settings.semantic == 0:
            return {}
        with _autocast(batch.images.device):
            preview = self.model.preview(y_hat, batch.quality)
            guide = self.model.autoencoder.encode(preview)
            semantic, gradient = losses.semantic_gradient(self.model.denoiser, guide, latent, tags)
        lambdas = self.lambdas.to(latent.device)[batch.quality]
        found = distortion(preview, batch.images)
        loss = (lambdas * found.mixed(self.settings.mse_share, self.settings.means)).mean()
        loss = loss + self.settings.semantic * (guide * gradient).sum()
        self.optimizers["g_s"].step(loss, progress)
        return {"semantic": semantic.item(), "psnr": losses.decibels(found.mse).item()}

    def extra_modules(self) -> dict[str, nn.Module]:
        return {}


class OneStepStage:
    """Trains the denoiser to decode in one step from pure noise, and the autoencoder's decoder to draw what it makes.

    The base UNet as the diffusion stage left it is the teacher: its features of the decoded picture shall be those of
    the original. Everything else is frozen. At a learning rate of 4e-4 the one-step decoder has broken within a hundred
    steps, for good.
    """

    PEAK_RATE: ClassVar[float] = 1.5e-4
    PREVIOUS: ClassVar[tuple[str, ...]] = ("diffusion",)

    def __init__(self, model: CodecModel, learning_rate: float, settings: LossSettings) -> None:
        device = next(model.parameters()).device
        self.model = model
        self.settings = settings
        self.teacher = deepcopy(model.denoiser).requires_grad_(False)
        model.requires_grad_(False)
        model.denoiser.requires_grad_(True)
        model.autoencoder.decoder.requires_grad_(True)
        self.features = _frozen_features(model)
        self.discriminator = ProjectedDiscriminator(model.config.qualities).to(device)
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        betas = (0.0, 0.99)
        self.optimizers = {
            "decoder": GuardedOptimizer(trained, learning_rate, betas),
            "discriminator": GuardedOptimizer(self.discriminator.named_parameters(), 2 * learning_rate, betas),
        }
        self.adversarial = adversarial_shares(model.config.lambdas).to(device)

    def step(self, batch: Batch, progress: float, generator: torch.Generator) -> dict[str, float]:
        tags = _drop_tags(batch.tags, self.settings.tag_dropout, generator)
        with _autocast(batch.images.device):
            with torch.no_grad():
                latent = self.model.autoencoder.encode(batch.images)
                y_hat = losses.quantize(self.model, batch.images, batch.quality)
                guide = self.model.guide(y_hat, batch.quality)
            decoded = losses.one_step(self.model, guide, tags, generator)
            seen = RandomView(batch.images.shape, generator)
            with torch.no_grad():
                real = self.features(seen(batch.images))
            fake = self.features(seen(decoded))
            far = view_loss(self.features, RandomView(batch.images.shape, generator, FAR), batch.images, decoded)
            judged = self.discriminator(fake, batch.quality)
            again = self.model.autoencoder.encode(decoded)
            semantic = losses.semantic_consistency(self.teacher, again, latent, batch.tags)
            rehearsal = self._rehearse(latent, guide, tags, generator)
        adversarial = self.settings.adversarial * min(1.0, progress / FADE_IN) * self.adversarial[batch.quality]
        pixels = (decoded.float() - batch.images).abs().flatten(1).mean(1)
        blocks = nn.functional.avg_pool2d(decoded.float() - batch.images, 8).abs().flatten(1).mean(1)
        perceptual = feature_loss(real, fake).lerp(far, self.settings.far)
        invented = generator_loss([x.float() for x in judged])
        grid = losses.grid_error(decoded.float(), batch.images)
        faithful = PIXELS_WEIGHT * pixels + BLOCKS_WEIGHT * blocks
        loss = (faithful + self.settings.features * perceptual + adversarial * invented).mean()
        loss = loss + self.settings.grid * grid.mean()
        loss = loss + self.settings.teacher * semantic + self.settings.rehearsal * rehearsal
        norm = self.optimizers["decoder"].step(loss, progress)
        critic = self._discriminator_step(real, fake, batch.quality, progress)
        return {
            "loss": loss.item(),
            "pixels": pixels.mean().item(),
            "features": perceptual.mean().item(),
            "far": far.mean().item(),
            "semantic": semantic.item(),
            "diffusion": rehearsal.item(),
            "grid": grid.mean().item(),
            "critic": critic.item(),
            "norm": norm,
        }

    def _discriminator_step(self, real: list[Tensor], fake: list[Tensor], quality: Tensor, progress: float) -> Tensor:
        with _autocast(quality.device):
            reals = self.discriminator(real, quality)
            fakes = self.discriminator([x.detach() for x in fake], quality)
        critic = hinge_loss([x.float() for x in reals], [x.float() for x in fakes])
        self.optimizers["discriminator"].step(critic, progress)
        return critic

    def _rehearse(self, latent: Tensor, guide: Tensor, tags: Tensor, generator: torch.Generator) -> Tensor:
        part = slice(max(1, round(self.settings.rehearsal_share * len(latent))))
        alone = bool(torch.rand((), generator=generator) < self.settings.control_dropout)
        given = None if alone else guide[part]
        return losses.diffusion_loss(self.model.denoiser, latent[part], given, tags[part], generator)

    def extra_modules(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "teacher": self.teacher}


STAGES: dict[str, type[Stage]] = {
    "rate_distortion": RateDistortionStage,
    "decoder": DecoderStage,
    "diffusion": DiffusionStage,
    "one_step": OneStepStage,
}
