"""Features of a frozen EfficientNet-Lite0, as far as they tell what analysis models would miss in a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.efficientnet_lite import normalize

FEATURE_BLOCKS = (0, 1, 2, 4, 6)
CHANNELS = (16, 24, 40, 112, 320)
"""Blocks of EfficientNet-Lite0 whose output is used, at 1/2 to 1/32 resolution, and their channels."""

STRIDE = 32
"""Pixels between positions of the deepest features."""

NEAR = (0.75, 1.0)
"""Sizes at which texture counts."""

FAR = (0.35, 0.75)
"""Sizes at which shapes count: detectors and classifiers see a camera's frame reduced to some hundred pixels a side."""


class FrozenFeatures(nn.Module):
    """EfficientNet-Lite0's features at five scales; `(B, 3, H, W)` in [0, 1] to a list. The network is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.network.bn1(self.network.conv_stem(normalize(images)))  # type: ignore[operator]
        found = []
        for index, block in enumerate(self.network.blocks):  # type: ignore[arg-type]
            x = block(x)
            if index in FEATURE_BLOCKS:
                found.append(x)
        return found

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode: batch statistics belong to the pretrained network."""
        return super().train(False)


class RandomView:
    """A part of `(B, 3, H, W)` images, one stride of the feature network smaller, anywhere, at a size between the two
    of `sizes`, as float32: the same of each batch that it is given. Sides stay longer than a stride if they are, so
    that even the deepest features have several positions.

    Feature network and decoder have strides in common. On whole crops they would always meet in the same place, and the
    decoder would learn a pattern of its own grid that those strides do not see or like; at one size, a hatching of
    single pixels.
    """

    def __init__(self, shape: torch.Size, generator: torch.Generator, sizes: tuple[float, float] = NEAR) -> None:
        *_, height, width = shape
        down, right = torch.randint(STRIDE, (2,), generator=generator).tolist()
        self.window = (
            slice(None),
            slice(None),
            slice(down, down + height - STRIDE),
            slice(right, right + width - STRIDE),
        )
        smallest, largest = sizes
        size = largest - (largest - smallest) * torch.rand((), generator=generator).item()
        self.scale = min(1.0, max(size, (STRIDE + 2) / (min(height, width) - STRIDE)))

    def __call__(self, images: Tensor) -> Tensor:
        return F.interpolate(images[self.window].float(), scale_factor=self.scale, mode="bilinear", antialias=True)


def feature_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """L1 between features in units of their standard deviation, per sample `(B,)`, float32, mean over scales."""
    terms = []
    for r, f in zip(real, fake, strict=True):
        deviation = r.float().std(dim=(0, 2, 3), keepdim=True) + 1e-3
        terms.append(((f.float() - r.float()) / deviation).abs().flatten(1).mean(1))
    return torch.stack(terms).mean(0)


def view_loss(network: FrozenFeatures, view: RandomView, images: Tensor, decoded: Tensor) -> Tensor:
    """`feature_loss` of what `view` shows of `decoded`, `(B,)`, differentiable with respect to it."""
    with torch.no_grad():
        real = network(view(images))
    return feature_loss(real, network(view(decoded)))
