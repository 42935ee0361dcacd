"""Tags from a frozen ImageNet network, EfficientNet-Lite0, and a small multi-label head of our own.

image -> resize -> Lite0 -> 1280 means of the last features ---> classifier -> softmax of 1000 classes
                     |              |                                  (a noun: the sum over the classes that show it)
                     |              v                                                  |
                     `-> mean, max, deviation of 112 features at 1/16                  |
                                    |                                                  v
                                    standardize -> linear head --------------------> logit of each tag

logit(tag) = weight . features + class_scale * logit(P(classes that show the noun)) + bias
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.capsule import MANIFEST, VOCABULARY, verify_tagger
from difficmh.surroundings import in_plain_precision
from difficmh.taggers.lite0 import Lite0Features, input_pixels, input_size
from difficmh.taggers.tag_head import choose_tags, load_head
from difficmh.vocabulary import TagScore, Vocabulary

GPU_BATCH = 32
"""Images of one size that a GPU tags at once."""


class EfficientNetTagger:
    """The tagger of a capsule: images to tags of its vocabulary.

    Raises CapsuleError where `tags.json` or `tagger.safetensors` of the capsule is missing or does not fit, or is not
    the file that the manifest describes; a capsule in the making has no manifest yet.
    """

    def __init__(self, capsule: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        if (capsule / MANIFEST).is_file():
            verify_tagger(capsule)
        self.vocabulary = Vocabulary.load(capsule / VOCABULARY)
        self._head = load_head(capsule / "tagger.safetensors", self.vocabulary).to(self.device)
        self._features = Lite0Features().to(self.device)
        self._thresholds = torch.tensor([tag.threshold for tag in self.vocabulary.tags])

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[list[TagScore]]:
        """Tags of each `(H, W, 3)` uint8 image, sorted by name, at most 12: those furthest above their thresholds."""
        tags: list[list[TagScore]] = [[] for _ in images]
        for indices in self._batches(images):
            for index, scores in zip(indices, self.scores([images[index] for index in indices]), strict=True):
                tags[index] = self._choose(scores)
        return tags

    @in_plain_precision
    def scores(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """`(N, tags)` float32 in [0, 1] on the CPU, for images of one `input_size`."""
        pixels = torch.cat([input_pixels(image, self.device) for image in images])
        scores: Tensor = self._head(*self._features(pixels)).sigmoid().cpu()
        return scores

    def _batches(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        """Indices of images of one size; single ones on a CPU, where batches gain nothing and could only do harm."""
        limit = 1 if self.device.type == "cpu" else GPU_BATCH
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(input_size(*image.shape[:2]), []).append(index)
        for group in groups.values():
            for start in range(0, len(group), limit):
                yield group[start : start + limit]

    def _choose(self, scores: Tensor) -> list[TagScore]:
        chosen = choose_tags(scores[None], self._thresholds)[0].nonzero().flatten().tolist()
        return [TagScore(self.vocabulary.names[position], float(scores[position])) for position in chosen]
