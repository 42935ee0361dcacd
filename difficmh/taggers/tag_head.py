"""The multi-label head of the tagger: features and class logits to the tags of a vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from difficmh.errors import CapsuleError
from difficmh.taggers.imagenet_nouns import CLASSES
from difficmh.taggers.lite0 import FEATURES
from difficmh.vocabulary import Vocabulary

CLIP = 6.0
"""Standardised features end here, so that an unusual image cannot drive a tag by one feature."""

MAX_TAGS = 12
"""Tags of one image, at most."""


class TagHead(nn.Module):
    """Features and class logits to one logit per tag of the vocabulary.

    Only the tags at the `count` positions `trained` have a row in `weight`; the others follow the classifier alone.
    """

    mean: Tensor
    deviation: Tensor
    trained: Tensor
    weight: Tensor
    class_scale: Tensor
    bias: Tensor
    membership: Tensor

    def __init__(self, vocabulary: Vocabulary, count: int) -> None:
        super().__init__()
        tags = len(vocabulary.tags)
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.register_buffer("trained", torch.zeros(count, dtype=torch.int32))
        self.register_buffer("weight", torch.zeros(count, FEATURES))
        self.register_buffer("class_scale", torch.zeros(tags))
        self.register_buffer("bias", torch.zeros(tags))
        self.register_buffer("membership", class_membership(vocabulary), persistent=False)

    def forward(self, features: Tensor, class_logits: Tensor) -> Tensor:
        """`(N, 1616)` and `(N, 1000)` to `(N, tags)`."""
        logits = self.bias + self.class_scale * class_log_odds(class_logits, self.membership)
        head = standardize(features, self.mean, self.deviation) @ self.weight.T
        return logits.index_add(1, self.trained, head)

    def compact(self) -> dict[str, Tensor]:
        """The tensors to store: weights in half precision, the rest, which is small, as it is."""
        return {**self.state_dict(), "weight": self.weight.half()}


def class_membership(vocabulary: Vocabulary) -> Tensor:
    """`(1000, tags)` float32: 1 where a class shows the noun."""
    membership = torch.zeros(CLASSES, len(vocabulary.tags))
    for position, tag in enumerate(vocabulary.tags):
        membership[list(tag.classes), position] = 1
    return membership


def class_log_odds(class_logits: Tensor, membership: Tensor) -> Tensor:
    """`(…, 1000)` to `(…, tags)`: log odds of the summed probability of each tag's classes, within ±9.2."""
    probability = (class_logits.softmax(dim=-1) @ membership).clamp(1e-4, 1 - 1e-4)
    return probability.logit()


def standardize(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """`(N, F)` features in units of their deviations `(F,)` from their means `(F,)`, within ±`CLIP`."""
    return ((features - mean) / deviation).clamp(-CLIP, CLIP)


def choose_tags(scores: Tensor, thresholds: Tensor) -> Tensor:
    """`(N, tags)` bool of the tags that images get: at their threshold or above, the best 12 of them.

    A tag with threshold 1 is never given.
    """
    margin = scores - thresholds
    best = torch.zeros_like(scores, dtype=torch.bool)
    best.scatter_(1, margin.topk(min(MAX_TAGS, scores.shape[1]), dim=1).indices, True)
    return best & (margin >= 0) & (thresholds < 1)


def load_head(path: Path, vocabulary: Vocabulary) -> TagHead:
    """Raises CapsuleError where the file is missing or does not fit the vocabulary."""
    try:
        tensors = load_file(path)
        head = TagHead(vocabulary, count=len(tensors["trained"]))
        head.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CapsuleError(f"{path.name} is no head for the tags of this capsule: {error}") from error
    return head.eval()
