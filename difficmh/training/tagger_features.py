"""Features of the training images of the tagger, computed once with the frozen network and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difficmh.taggers.lite0 import Lite0Features, input_pixels
from difficmh.training.data import TrainingSample, read_samples
from difficmh.training.tag_labels import Metadata, with_plain_nouns
from difficmh.zoo import find_device


@dataclass(frozen=True)
class TaggerFeatures:
    """Per image and orientation (as it is, mirrored): `features` `(N, 2, 1616)` and `class_logits` `(N, 2, 1000)`, half
    precision; the samples' keys and JSON in the same order.
    """

    features: Tensor
    class_logits: Tensor
    keys: tuple[str, ...]
    metadata: tuple[Metadata, ...]

    def save(self, path: Path) -> None:
        """Write to an `.npz` file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = np.array([json.dumps([key, dict(entry)]) for key, entry in zip(self.keys, self.metadata, strict=True)])
        np.savez(path, features=self.features.numpy(), class_logits=self.class_logits.numpy(), texts=texts)

    @classmethod
    def load(cls, path: Path) -> TaggerFeatures:
        """Inverse of `save`."""
        with np.load(path) as arrays:
            keys, metadata = zip(*(json.loads(str(text)) for text in arrays["texts"]), strict=True)
            features, class_logits = (torch.from_numpy(arrays[name]) for name in ("features", "class_logits"))
        return cls(features, class_logits, keys, metadata)


@torch.inference_mode()
def extract_features(samples: Sequence[TrainingSample], device: torch.device | str = "cpu") -> TaggerFeatures:
    """Some 40 ms per image on one CPU core. Raises ValueError for a device that there is not."""
    network = Lite0Features().to(find_device(device))
    features, class_logits = [], []
    for sample in samples:
        pixels = input_pixels(sample.pixels, device)
        outputs = [network(turned) for turned in (pixels, pixels.flip(3))]
        features.append(torch.stack([output[0][0] for output in outputs]).half().cpu())
        class_logits.append(torch.stack([output[1][0] for output in outputs]).half().cpu())
    return TaggerFeatures(
        torch.stack(features),
        torch.stack(class_logits),
        tuple(sample.key for sample in samples),
        tuple(with_plain_nouns(sample.metadata) for sample in samples),
    )


def cached_features(paths: Sequence[Path], folder: Path, device: torch.device | str = "cpu") -> TaggerFeatures:
    """Features of the images of tars, kept in `folder` under a hash of the tars' places, sizes and times of change:
    other labels rarely change the size of a tar, whose members are padded."""
    inputs = "\n".join(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)
    cache = folder / f"tagger-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.npz"
    if cache.exists():
        return TaggerFeatures.load(cache)
    features = extract_features(read_samples(paths), device)
    features.save(cache)
    return features
