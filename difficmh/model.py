"""All networks of the codec in one module, so that weights load, save and move together."""

from __future__ import annotations

from torch import Tensor, nn

from difficmh.autoencoder import Autoencoder
from difficmh.config import CodecConfig
from difficmh.denoiser import Denoiser
from difficmh.entropy_model import EntropyModel
from difficmh.transforms import AnalysisTransform, HyperAnalysis, SynthesisTransform


class CodecModel(nn.Module):
    """The networks of one codec, by the names of the literature.

    image ──g_a──► y ──h_a──► z          y, z ──entropy──► bits
    y_hat ──g_s──► preview ──autoencoder──► guide latent
    guide, noise, tags ──denoiser──► latent ──autoencoder──► image
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        transforms = config.transforms
        self.autoencoder = Autoencoder(config.latent_channels, transforms.decoder_widths, transforms.decoder_depths)
        self.g_a = AnalysisTransform(config)
        self.g_s = SynthesisTransform(config)
        self.h_a = HyperAnalysis(config)
        self.entropy = EntropyModel(config)
        self.denoiser = Denoiser(config.latent_channels, config.denoiser)
        self.rate: nn.Module | None = None
        """Training's densities (`training/rate.py`); coding has tables instead."""

    def analyze(self, image: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """y and z of `(B, 3, H, W)` images in [0, 1]; H and W multiples of 64, quality_index `(B,)` int64."""
        y = self.g_a(image, quality_index)
        return y, self.h_a(y)

    def preview(self, y_hat: Tensor, quality_index: Tensor) -> Tensor:
        """The faithful decode, `(B, 3, H, W)`; it may leave [0, 1] slightly."""
        image: Tensor = self.g_s(y_hat, quality_index)
        return image

    def guide(self, y_hat: Tensor, quality_index: Tensor) -> Tensor:
        """The guide latent c, `(B, C, H/8, W/8)`: the latent of the preview."""
        return self.autoencoder.encode(self.preview(y_hat, quality_index))

    def draw(self, latent: Tensor) -> Tensor:
        """The image of a denoised latent, `(B, 3, H, W)`; it may leave [0, 1] slightly."""
        return self.autoencoder.decode(latent)
