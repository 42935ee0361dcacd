"""How good a tagger is, on pictures whose labels it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difficmh.taggers.tag_head import choose_tags
from difficmh.training.tag_labels import annotated_nouns, label_counts
from difficmh.training.tagger import TrainedTagger, f1, head_scores, labels_of
from difficmh.training.tagger_features import TaggerFeatures

COMMONEST = 30
"""So many nouns have an F1 of their own."""


@dataclass(frozen=True)
class TaggerMeasures:
    """F1 counts, over all images and nouns together, what the image's source annotates; nothing else is known."""

    images: int
    f1_commonest: float
    f1_trained: float
    tags_per_image: float
    images_without_tags: float
    f1_by_tag: dict[str, float]


def measure_tagger(tagger: TrainedTagger, data: TaggerFeatures, rows: Tensor, train: TaggerFeatures) -> TaggerMeasures:
    """Measures on the images `rows` of `data`; what is common and annotated is judged by `train`."""
    scores = head_scores(tagger.head, data)[rows]
    thresholds = torch.tensor([tag.threshold for tag in tagger.vocabulary.tags])
    chosen = choose_tags(scores, thresholds)
    given = chosen[:, tagger.head.trained.long()]
    labels = labels_of(data, tagger.nouns, tagger.head, annotated_nouns(train.metadata))
    present, known = labels.targets[rows] >= 0.5, labels.annotated[rows]
    ranking = [noun for noun, _ in label_counts(train.metadata).most_common(COMMONEST) if noun in tagger.nouns]

    def score(nouns: Sequence[str]) -> float:
        columns = [tagger.nouns.index(noun) for noun in nouns]
        return f1((given & known)[:, columns], (present & known)[:, columns])

    return TaggerMeasures(
        images=int(rows.sum()),
        f1_commonest=score(ranking),
        f1_trained=score(tagger.nouns),
        tags_per_image=float(chosen.sum(dim=1).float().mean()),
        images_without_tags=float((~chosen.any(dim=1)).float().mean()),
        f1_by_tag={noun: round(score([noun]), 3) for noun in ranking},
    )
