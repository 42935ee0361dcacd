"""Training of the tagger's head on features of the frozen network: seconds on a CPU.

One linear layer for the nouns with enough labels; binary cross entropy limited by what each sample's source annotates;
presumed absences that the head comes to doubt drop out (large-loss rejection, after Kim et al., CVPR 2022). All other
nouns that ImageNet knows follow the classifier, calibrated by two numbers.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.taggers.imagenet_nouns import SHOWN_BY, class_nouns, classes_of
from difficmh.taggers.lite0 import FEATURES
from difficmh.taggers.tag_head import TagHead, choose_tags, class_log_odds, standardize
from difficmh.training.tag_labels import TagLabels, annotated_nouns, label_counts, read_labels
from difficmh.training.tagger_features import TaggerFeatures
from difficmh.vocabulary import Tag, Vocabulary, merge_nouns, prior_from_count

NEVER = -9.0
"""Logit of a noun that neither the head nor the classifier knows."""

CLASS_SCALE = 0.5
"""How far a trained noun follows its classes before it has learned how far it should."""


@dataclass(frozen=True)
class TaggerTraining:
    """Settings of one training run. A noun needs `least_labels` labels to be trained."""

    epochs: int = 30
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    least_labels: int = 5
    doubt: float = 0.5
    class_threshold: float = 0.65
    seed: int = 0


@dataclass(frozen=True)
class Splits:
    """`(N,)` bool masks: 80 % to train, 10 % to choose thresholds, 10 % held back, by a hash of the key."""

    train: Tensor
    thresholds: Tensor
    held_back: Tensor


@dataclass(frozen=True)
class TrainedTagger:
    """`nouns` are those that the head was trained for, in the order of its rows; others follow the classifier."""

    vocabulary: Vocabulary
    head: TagHead
    nouns: tuple[str, ...]


def split(keys: Sequence[str]) -> Splits:
    """Which images, by their keys, are for what."""
    folds = torch.tensor([zlib.crc32(key.encode()) % 10 for key in keys])
    return Splits(folds >= 2, folds == 1, folds == 0)


def train_tagger(data: TaggerFeatures, settings: TaggerTraining) -> TrainedTagger:
    """Head and vocabulary: ImageNet's nouns and those of the samples' labels and detections.

    The priors are how often the trained tagger itself gives each tag in all of `data`.
    """
    counts = label_counts(data.metadata)
    detected = {detection["label"] for sample in data.metadata for detection in sample.get("detected", ())}
    names = merge_nouns(class_nouns(), list(SHOWN_BY), list(counts), list(detected))
    nouns = [name for name in names if counts[name] >= settings.least_labels]
    vocabulary = Vocabulary(tuple(Tag(name, 1, settings.class_threshold, classes_of(name)) for name in names))
    head = TagHead(vocabulary, len(nouns))
    head.trained.copy_(torch.tensor([names.index(name) for name in nouns]))
    labels = labels_of(data, nouns, head)
    splits = split(data.keys)
    _calibrate_classes(head, data, splits.train)
    _fit(head, data, labels, splits.train, settings)
    thresholds = _thresholds(head, data, labels, splits, settings)
    chosen = choose_tags(head_scores(head, data), thresholds).sum(dim=0).tolist()
    tags = (
        replace(tag, prior=prior_from_count(int(count), len(data.keys)), threshold=round(float(threshold), 4))
        for tag, count, threshold in zip(vocabulary.tags, chosen, thresholds, strict=True)
    )
    return TrainedTagger(Vocabulary(tuple(tags)), head, tuple(nouns))


def labels_of(
    data: TaggerFeatures, names: Sequence[str], head: TagHead, sources: dict[str, frozenset[str]] | None = None
) -> TagLabels:
    """Labels for the head's trained nouns `names`; `sources` defaults to what the sources of `data` annotate."""
    shown = data.class_logits[:, 0].float().softmax(dim=1) @ head.membership[:, head.trained.long()]
    return read_labels(data.metadata, names, sources or annotated_nouns(data.metadata), shown)


@torch.inference_mode()
def head_scores(head: TagHead, data: TaggerFeatures) -> Tensor:
    """`(N, tags)` in [0, 1] for the images as they are."""
    parts = zip(data.features[:, 0].chunk(16), data.class_logits[:, 0].chunk(16), strict=True)
    return torch.cat([head(features.float(), logits.float()).sigmoid() for features, logits in parts])


def given_tags(tagger: TrainedTagger, data: TaggerFeatures) -> dict[str, list[str]]:
    """The tags that the tagger gives to each image, by key: what a codec trained on these images should be told.

    Raises ValueError where several images have one key.
    """
    repeated = [key for key, number in Counter(data.keys).items() if number > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} keys stand for several images, {repeated[0]} for one: tags go by key")
    thresholds = torch.tensor([tag.threshold for tag in tagger.vocabulary.tags])
    chosen = choose_tags(head_scores(tagger.head, data), thresholds)
    names = tagger.vocabulary.names
    return {
        key: [names[i] for i in row.nonzero().flatten().tolist()] for key, row in zip(data.keys, chosen, strict=True)
    }


def _calibrate_classes(head: TagHead, data: TaggerFeatures, rows: Tensor) -> None:
    """Set scale and bias of the nouns that follow the classifier, by logistic regression on pictures of known class.

    Each such picture gives its five likeliest classes, right or wrong.
    """
    nouns = class_nouns()
    log_odds, right = [], []
    for row in rows.nonzero().flatten().tolist():
        labels = set(data.metadata[row].get("labels") or ())
        if data.metadata[row].get("label_kind") == "image-class" and labels & set(nouns):
            best = data.class_logits[row, 0].float().softmax(dim=0).topk(5)
            log_odds += best.values.clamp(1e-4, 1 - 1e-4).logit().tolist()
            right += [float(nouns[index] in labels) for index in best.indices.tolist()]
    scale, bias = _logistic_regression(torch.tensor(log_odds), torch.tensor(right)) if right else (1.0, 0.0)
    known = head.membership.sum(dim=0) > 0
    head.class_scale.copy_(known * scale)
    head.bias.copy_(torch.where(known, bias, NEVER))


def _logistic_regression(inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Scale and bias by Newton's method; a weak pull to (1, 0) keeps separable data finite."""
    design = torch.stack((inputs, torch.ones_like(inputs)), dim=1).double()
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    line = start.clone()
    for _ in range(25):
        expected = (design @ line).sigmoid()
        gradient = design.T @ (targets - expected) - (line - start)
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + torch.eye(2, dtype=torch.float64)
        line = line + torch.linalg.solve(curvature, gradient)
    return float(line[0]), float(line[1])


class _TrainableHead(nn.Module):
    """The part of a `TagHead` that learns: a linear layer, and how far each noun follows its classes."""

    def __init__(self, head: TagHead) -> None:
        super().__init__()
        self.head, self.chosen = head, head.trained.long()
        known = head.membership[:, self.chosen].sum(dim=0) > 0
        self.linear = nn.Linear(FEATURES, len(self.chosen))
        self.scale = nn.Parameter(CLASS_SCALE * known)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, -3.0)
        # The log odds of classes that are absent are about -8: the bias makes up for them.
        self.linear.bias.data += 8 * CLASS_SCALE * known

    def forward(self, features: Tensor, log_odds: Tensor) -> Tensor:
        """`(N, 1616)` features and `(N, T)` log odds of the classes of the trained nouns to their logits."""
        logits: Tensor = self.linear(standardize(features, self.head.mean, self.head.deviation))
        return logits + self.scale.clamp(min=0) * log_odds

    def write_back(self) -> None:
        self.head.weight.copy_(self.linear.weight.detach().half())
        self.head.bias[self.chosen] = self.linear.bias.detach()
        self.head.class_scale[self.chosen] = self.scale.detach().clamp(min=0)


def _fit(head: TagHead, data: TaggerFeatures, labels: TagLabels, rows: Tensor, settings: TaggerTraining) -> None:
    """Train weight, bias and class scale of the trained nouns in place."""
    generator = torch.Generator().manual_seed(settings.seed)
    head.mean.copy_(data.features[rows, 0].float().mean(dim=0))
    head.deviation.copy_(data.features[rows, 0].float().std(dim=0) + 1e-3)
    model = _TrainableHead(head)
    log_odds = class_log_odds(data.class_logits.float(), head.membership[:, model.chosen])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    indices = rows.nonzero().flatten()
    steps = max(len(indices) // settings.batch, 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * steps)
    balance = _positive_weights(labels, rows)
    for epoch in range(settings.epochs):
        order = indices[torch.randperm(len(indices), generator=generator)]
        for batch in order.chunk(steps):
            mirrored = int(torch.randint(2, (), generator=generator))
            logits = model(data.features[batch, mirrored].float(), log_odds[batch, mirrored])
            loss = _loss(logits, labels, batch, balance, settings.doubt if epoch >= 2 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.write_back()


def _positive_weights(labels: TagLabels, rows: Tensor) -> Tensor:
    """`(T,)` in 1..10: rare nouns count more, by the square root of absences over presences."""
    present = (labels.targets * labels.weights)[rows].sum(dim=0)
    absent = ((1 - labels.targets) * labels.weights)[rows].sum(dim=0)
    return (absent / present.clamp(min=1)).sqrt().clamp(1, 10)


def _loss(logits: Tensor, labels: TagLabels, batch: Tensor, balance: Tensor, doubt: float) -> Tensor:
    believed = ~labels.presumed[batch] | (logits.detach().sigmoid() < doubt)
    weights = labels.weights[batch] * believed
    total = F.binary_cross_entropy_with_logits(
        logits, labels.targets[batch], weight=weights, pos_weight=balance, reduction="sum"
    )
    return total / len(batch)


def _thresholds(
    head: TagHead, data: TaggerFeatures, labels: TagLabels, splits: Splits, settings: TaggerTraining
) -> Tensor:
    """`(tags,)`: best F1 for trained nouns, one common threshold for those of the classifier, 1 for unknown ones."""
    thresholds = torch.where(head.membership.sum(dim=0) > 0, settings.class_threshold, 1.0)
    scores = head_scores(head, data)[:, head.trained.long()]
    for column, position in enumerate(head.trained.tolist()):
        rows = splits.thresholds & labels.annotated[:, column]
        thresholds[position] = _best_threshold(scores[rows, column], labels.targets[rows, column] >= 0.5)
    return thresholds


def _best_threshold(scores: Tensor, present: Tensor) -> float:
    """The threshold in 0.4..0.8 of the best F1, with a pull to 0.5; 0.5 where under three images have the tag."""
    if present.sum() < 3:
        return 0.5
    candidates = [0.4 + 0.05 * step for step in range(9)]
    return max(candidates, key=lambda value: f1(scores >= value, present) - 0.1 * abs(value - 0.5))


def f1(given: Tensor, present: Tensor) -> float:
    """F1 over all entries of two boolean tensors: 2 hits / (given + present)."""
    hits, total = (given & present).sum(), given.sum() + present.sum()
    return float(2 * hits / total.clamp(min=1))
