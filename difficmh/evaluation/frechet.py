"""Fréchet distance between the patch features of originals and of decoded pictures: do they look like photographs?

The distance of the two Gaussians with the features' means and covariances, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2)
(Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017). The usual FID takes Inception's last layer, one
vector for a picture, and needs thousands of pictures. Here a vector describes a patch of 16 x 16 pixels with what
surrounds it, so that a few dozen pictures give tens of thousands of them: 120 features of EfficientNet-Lite2 at 1/16.
Values are comparable among each other only, on the same pictures, and never with published FIDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from difficmh.analyzers.imagenet import load_lite2
from difficmh.efficientnet_lite import fold_batch_norms, normalize
from difficmh.evaluation.graders import Evidence, Image, Picture, as_tensor
from difficmh.evaluation.statistics import Metric, Statistic, Weights

WINDOW = 160
"""Side of the four windows, in the middle of each quarter, that are looked at: a third of a small photograph."""

BLOCKS = 5
"""Blocks of the network that are run: up to the last ones at 1/16."""


@dataclass(frozen=True)
class Moments:
    """Of `count` feature vectors: `mean` is `(D,)`, `covariance` `(D, D)` around it (divided by count), float32."""

    count: int
    mean: NDArray[np.float32]
    covariance: NDArray[np.float32]

    @classmethod
    def of(cls, features: NDArray[np.float64]) -> Moments:
        """Of `(n, D)` features."""
        mean = features.mean(axis=0)
        centered = features - mean
        covariance = centered.T @ centered / len(features)
        return cls(len(features), mean.astype(np.float32), covariance.astype(np.float32))


@dataclass(frozen=True)
class MomentPair:
    """The moments of one picture, original and decoded."""

    original: Moments
    decoded: Moments


def frechet(pairs: Sequence[MomentPair]) -> Statistic:
    """The distance between the features of all originals and all decoded pictures."""
    counts = np.asarray([pair.original.count for pair in pairs], np.float64)
    originals, decoded = [pair.original for pair in pairs], [pair.decoded for pair in pairs]

    def statistic(weights: Weights) -> float | None:
        shares = weights * counts
        if shares.sum() <= 0:
            return None
        return distance(*pooled(originals, shares), *pooled(decoded, shares))

    return statistic


def pooled(moments: Sequence[Moments], shares: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of all vectors together, each picture's counted in proportion to its share."""
    shares = shares / shares.sum()
    means = np.stack([one.mean for one in moments]).astype(np.float64)
    mean = shares @ means
    offsets = (means - mean) * np.sqrt(shares)[:, None]
    covariance = offsets.T @ offsets
    for share, one in zip(shares, moments, strict=True):
        if share:
            covariance += share * one.covariance
    return mean, covariance


def distance(
    mean1: NDArray[np.float64],
    covariance1: NDArray[np.float64],
    mean2: NDArray[np.float64],
    covariance2: NDArray[np.float64],
) -> float:
    """The squared Fréchet distance of two Gaussians, at least 0.

    tr (C1 C2)^1/2 is the sum of the singular values of C1^1/2 C2^1/2: unlike the root of the product, it needs
    symmetric matrices only, and bears singular ones.
    """
    roots = [_root(covariance) for covariance in (covariance1, covariance2)]
    cross = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    offset = mean1 - mean2
    return max(0.0, float(offset @ offset + np.trace(covariance1) + np.trace(covariance2) - 2 * cross))


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


class Patches:
    """Moments of the patch features of EfficientNet-Lite2. Raises AnalyzerError where its package is missing."""

    metrics: Sequence[Metric] = (
        Metric(
            "frechet_lite2",
            "Fréchet distance, Lite2 patches",
            frechet,
            family="distribution",
            higher_is_better=False,
            note="EfficientNet-Lite2 features at 1/16 stand in for Inception's: not comparable with published FIDs",
        ),
    )

    def __init__(self, device: str = "cpu") -> None:
        network: Any = fold_batch_norms(load_lite2())
        self._features = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:BLOCKS])
        self._features.to(device).to(memory_format=torch.channels_last)
        self._device = device

    def reference(self, picture: Picture) -> Moments:
        return self._moments(picture.pixels)

    def grade(self, reference: Moments, decoded: Image) -> Evidence:
        return {"frechet_lite2": MomentPair(reference, self._moments(decoded))}

    @torch.inference_mode()
    def _moments(self, image: Image) -> Moments:
        vectors = []
        for window in windows(image):
            pixels = normalize(as_tensor(window)[None].to(self._device))
            found = self._features(pixels.contiguous(memory_format=torch.channels_last))  # (1, 120, h, w)
            vectors.append(found[0].flatten(1).T.double().cpu().numpy())
        return Moments.of(np.concatenate(vectors))


def windows(image: Image) -> Iterator[Image]:
    """Squares in the middle of each quarter, cut to the quarter where that is smaller; the image if it is tiny."""
    height, width, _ = image.shape
    if min(height, width) < 64:
        yield image
        return
    for top in (0, height // 2):
        for left in (0, width // 2):
            quarter = image[top : top + height // 2, left : left + width // 2]
            start = [max(0, (side - WINDOW) // 2) for side in quarter.shape[:2]]
            yield quarter[start[0] : start[0] + WINDOW, start[1] : start[1] + WINDOW]
