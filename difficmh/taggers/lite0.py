"""What the tagger sees of a picture: features and classes of EfficientNet-Lite0."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from difficmh.efficientnet_lite import WeightsError, fold_batch_norms, load_lite, normalize
from difficmh.errors import CapsuleError

SHORT_SIDE, LONG_SIDE, STRIDE = 224, 448, 32
"""Pixels: the shorter side that is looked at, the longer one at most, and what both are multiples of."""

FEATURES = 1280 + 3 * 112
"""Width of a feature vector: means of the last layer; mean, maximum and deviation of the layer at 1/16."""


def load_lite0() -> nn.Module:
    """The network of `load_lite`. Raises CapsuleError where its package is missing or holds other tensors."""
    try:
        return load_lite(0)
    except WeightsError as error:
        raise CapsuleError(str(error)) from error


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width to look at: shorter side 224, aspect ratio kept up to 2 : 1, multiples of 32."""
    scale = SHORT_SIDE / min(height, width)

    def fit(side: int) -> int:
        return min(max(round(side * scale / STRIDE) * STRIDE, SHORT_SIDE), LONG_SIDE)

    return fit(height), fit(width)


def input_pixels(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """`(1, 3, h, w)` uint8 (float32 in 0..255 on a GPU) of `input_size`, from an `(H, W, 3)` uint8 image.

    Reduced with an antialiased triangle filter as wide as the reduction (PIL's `BILINEAR`). On a CPU torch filters
    bytes directly, in fixed point: 0.5 ms for 768 x 512, 15 ms for 12 megapixels, several times faster than in float.
    """
    plain = image if image.flags.writeable and image.flags.c_contiguous else image.copy()
    pixels = torch.from_numpy(plain).permute(2, 0, 1)[None].to(device)
    size = input_size(*image.shape[:2])
    return _reduced(pixels, size) if pixels.device.type == "cpu" else reduced_like_bytes(pixels.float(), size)


def _reduced(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def reduced_like_bytes(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """What the filter makes of bytes, of `(1, 3, H, W)` float32 in 0..255, for devices on which it takes no bytes.

    Rounded after each of the filter's two directions, as bytes are, halves upwards: without that, some scores differ by
    several hundredths from a CPU's.
    """
    across = (_reduced(pixels, (pixels.shape[2], size[1])) + 0.5).floor_()
    return (_reduced(across, size) + 0.5).floor_()


class Lite0Features(nn.Module):
    """The frozen network up to what the head sees. Batch norms are folded, the memory format is channels_last."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = fold_batch_norms(load_lite0())
        self.early = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:5])
        self.late = nn.Sequential(*network.blocks[5:], network.conv_head, network.bn2)
        self.classifier = network.classifier
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, 3, H, W)` in 0..255 to `(N, 1616)` features and `(N, 1000)` class logits."""
        inputs = normalize(pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        middle = self.early(inputs)
        last = self.late(middle).mean(dim=(2, 3))
        pooled = (middle.mean(dim=(2, 3)), middle.amax(dim=(2, 3)), middle.std(dim=(2, 3)))
        return torch.cat((last, *pooled), dim=1), self.classifier(last)
