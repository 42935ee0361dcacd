"""A codec of the real kind with tiny networks: KLT start, random residual branches, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from difficmh.config import CodecConfig, DenoiserConfig, EntropyConfig, TransformConfig
from difficmh.training.data import CropSource
from difficmh.training.export import export
from difficmh.training.klt import initialize
from difficmh.training.run import trainable
from difficmh.vocabulary import Tag, Vocabulary

TAGS = ("bus", "car", "tree")
CONFIG = CodecConfig(
    latent_channels=24,
    tile=256,
    transforms=TransformConfig((8, 16), (1, 1), (8, 16), (1, 1), (8, 8, 8), (1, 1, 1)),
    entropy=EntropyConfig(
        (8, 24, 40), hyper_channels=8, hyper_width=8, feature_channels=8, context_channels=8, parameter_width=16
    ),
    denoiser=DenoiserConfig((16, 16, 16), (1, 1, 1), condition_width=16, vocabulary_size=len(TAGS)),
)


def photograph(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Something with the statistics of a photograph: noise whose spectrum falls with frequency, coloured."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]) + 1 / 64
    layers = [np.fft.ifft2(np.fft.fft2(generator.normal(size=(height, width))) / frequency).real for _ in range(3)]
    grey, red, blue = (layer / (layer.std() + 1e-9) for layer in layers)
    pixels = np.stack((grey + 0.2 * red, grey, grey + 0.2 * blue), axis=-1)
    return np.clip(128 + 50 * pixels, 0, 255).astype(np.uint8)


def make_tiny_capsule(directory: Path, seed: int = 0, config: CodecConfig = CONFIG) -> Path:
    """Writes `directory/capsule`, which it returns, and the checkpoint it is of, `directory/checkpoint.pt`.

    Other seeds have other weights, and so other fingerprints.
    """
    torch.manual_seed(seed)
    source = CropSource([photograph(256, 256, seed=k) for k in range(4)], "cpu")
    model = trainable(config)
    initialize(model, source, seed, batches=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Layers that start at zero would leave half of the network untested.
            if ".leave." in name or "refine.7" in name:
                parameter.add_(0.02 * torch.randn(parameter.shape))
    checkpoint = directory / "checkpoint.pt"
    directory.mkdir(parents=True, exist_ok=True)
    torch.save({"config": config.to_dict(), "model": model.state_dict(), "average": {"values": {}}}, checkpoint)
    capsule = directory / "capsule"
    capsule.mkdir(exist_ok=True)
    Vocabulary(tuple(Tag(name, 6000, 0.5) for name in TAGS)).save(capsule / "tags.json")
    export(checkpoint, "tiny", [], capsule)
    return capsule
