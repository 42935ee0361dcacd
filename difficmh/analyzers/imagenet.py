"""Which of ImageNet's thousand nouns an image shows, by EfficientNet-Lite2 as the package index carries it.

The tagger's network is Lite0; what trains or tags must not also grade, so the default analyzer is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional

from difficmh.efficientnet_lite import WeightsError, load_lite, normalize
from difficmh.errors import AnalyzerError

SIDE = 260
"""Height and width of the network's input."""

CROP = 0.89
"""Part of the shorter side that the network was evaluated on, in the middle of the image."""

TOP = 5


@dataclass(frozen=True)
class ImagenetRow:
    """The five likeliest classes, best first: first noun of each, WordNet id (`n02123045`) and probability."""

    labels: list[str]
    wordnet_ids: list[str]
    scores: list[float]


class ImagenetAnalyzer:
    """EfficientNet-Lite2 on one device. Raises AnalyzerError where its package is missing or holds other weights."""

    name = "imagenet"
    row_type = ImagenetRow

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = load_lite2().to(self._device)
        names: Any = ImageNetInfo()
        self._wordnet_ids: list[str] = names.label_names()
        self._labels = [names.index_to_description(index).split(",")[0].strip() for index in range(names.num_classes())]

    def __call__(self, images: Sequence[Tensor]) -> list[ImagenetRow]:
        """One row per image; images are `(3, H, W)` float in [0, 1] and may differ in size."""
        if not images:
            return []
        with torch.inference_mode():
            batch = torch.stack([_prepare(image.to(self._device)) for image in images])
            probabilities = self._network(batch).softmax(dim=1).float().cpu()  # (N, 1000)
        scores, classes = probabilities.topk(TOP, dim=1)
        return [self._row(*pair) for pair in zip(scores.tolist(), classes.tolist(), strict=True)]

    def _row(self, scores: list[float], classes: list[int]) -> ImagenetRow:
        labels = [self._labels[index] for index in classes]
        return ImagenetRow(labels, [self._wordnet_ids[index] for index in classes], scores)


def _prepare(image: Tensor) -> Tensor:
    """`(3, H, W)` in [0, 1] to `(3, 260, 260)` in [-1, 1]: the middle square, reduced with bicubic filtering."""
    height, width = image.shape[-2:]
    side = max(1, round(CROP * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side].float()
    small = functional.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True)
    return normalize(small[0].clamp(0, 1))


def load_lite2() -> nn.Module:
    """The network of `load_lite`. Raises AnalyzerError where its package is missing or holds other tensors."""
    try:
        return load_lite(2)
    except WeightsError as error:
        raise AnalyzerError(str(error)) from error
