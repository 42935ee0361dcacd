"""The ImageNet networks behind tagger, perceptual losses and grading."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from difficmh import efficientnet_lite
from difficmh.efficientnet_lite import WeightsError, load_lite, normalize


def test_lite0_recognises_a_cat_and_is_frozen() -> None:
    data = pytest.importorskip("skimage.data")
    network = load_lite(0)
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    cat = nn.functional.interpolate(cat, (224, 336), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        best = network(normalize(cat))[0].topk(3).indices.tolist()
    assert set(best) & {281, 282, 285}, "tabby, tiger cat, Egyptian cat"
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_normalize_maps_bytes_as_the_network_was_trained() -> None:
    assert normalize(torch.tensor([0.0, 127 / 255, 1.0])).tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = dict(efficientnet_lite._tensors(0))
    name = next(iter(tensors))
    monkeypatch.setattr(efficientnet_lite, "_tensors", lambda size: {**tensors, name: tensors[name].flatten()})
    with pytest.raises(WeightsError, match="do not fit"):
        load_lite(0)
