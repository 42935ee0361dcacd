"""RAM++, the tagger of the paper's model: 4585 tags from Swin-L features and descriptions of each tag.

    image -> 384 x 384 -> Swin-L -> 144 tokens -> head (`ram_head.py`) -> a logit per tag -> tags above thresholds

The released weights fit by name, but for Swin's reduction between two stages: the official code keeps it at the end of
a stage, timm at the start of the next.
Source: Recognize Anything Plus Model (RAM++) as used by Diff-ICMH's official implementation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from difficmh.errors import CapsuleError
from difficmh.images import Pixels
from difficmh.surroundings import in_plain_precision
from difficmh.taggers.ram_head import RamConfig, RamHead, SwinConfig
from difficmh.taggers.ram_tags import TagList
from difficmh.vocabulary import TagScore

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, red, green, blue, for values in [0, 1]."""

RECOMPUTED = ("relative_position_index", "attn_mask")
"""Buffers that the released file stores and that follow from the sizes alone."""

GPU_BATCH = 4
"""Images that a GPU tags at once: the head's activations are half a gigabyte for them."""

REDUCTION = re.compile(r"(visual_encoder\.layers\.)(\d+)(\.downsample\..*)")


class RamNetwork(RamHead):
    """RAM++: pixels to logits."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__(config)
        self.visual_encoder: Any = _swin(config.visual)

    def forward(self, pixels: Tensor) -> Tensor:
        """`(B, 3, S, S)` normalised pixels (`input_pixels`) to `(B, tags)` logits."""
        return super().forward(self.visual_encoder.forward_features(pixels).flatten(1, 2))


class RamTagger:
    """RAM++ as a `Tagger`: images to tags. The network moves to the device and into evaluation mode.

    Raises CapsuleError where the list has another number of tags than the network.
    """

    def __init__(self, network: RamNetwork, tags: TagList, device: torch.device | str = "cpu") -> None:
        if len(tags.names) != network.config.tags:
            raise CapsuleError(f"a network for {network.config.tags} tags came with a list of {len(tags.names)}")
        self.device = torch.device(device)
        self.tags = tags
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._thresholds = torch.tensor(tags.thresholds)

    def __call__(self, images: Sequence[Pixels]) -> list[list[TagScore]]:
        """Tags of each `(H, W, 3)` uint8 image, sorted by name; sizes may differ."""
        limit = 1 if self.device.type == "cpu" else GPU_BATCH
        found: list[list[TagScore]] = []
        for start in range(0, len(images), limit):
            found.extend(self._choose(scores) for scores in self.scores(images[start : start + limit]))
        return found

    @in_plain_precision
    def scores(self, images: Sequence[Pixels]) -> Tensor:
        """`(N, tags)` float32 in [0, 1] on the CPU, in order of the tags' numbers."""
        size = self.network.config.visual.image_size
        pixels = torch.cat([input_pixels(image, size, self.device) for image in images])
        scores: Tensor = self.network(pixels).sigmoid().cpu()
        return scores

    def _choose(self, scores: Tensor) -> list[TagScore]:
        chosen = (scores > self._thresholds).nonzero().flatten().tolist()
        found = [TagScore(self.tags.names[number], float(scores[number])) for number in chosen]
        return sorted(found, key=lambda tag: tag.name)


def input_pixels(image: Pixels, size: int, device: torch.device | str = "cpu") -> Tensor:
    """`(1, 3, size, size)` float32 of an `(H, W, 3)` uint8 image, stretched to a square and normalised.

    Bilinear *without* antialiasing, as Diff-ICMH's official implementation does it and RAM++'s own does not. The
    official encoder shows the tagger its black padding too; whoever wants that passes a padded image.
    """
    plain = torch.from_numpy(np.ascontiguousarray(image) if image.flags.writeable else image.copy())
    values = plain.to(device).permute(2, 0, 1)[None].float() / 255
    values = F.interpolate(values, (size, size), mode="bilinear", align_corners=False, antialias=False).clamp(0, 1)
    mean, deviation = (values.new_tensor(value).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))
    return (values - mean) / deviation


def load_network(config: RamConfig, state: Mapping[str, Tensor]) -> RamNetwork:
    """RAM++ in float32 on the CPU with weights under their official names (no prefix, any floating dtype).

    Stored buffers of `RECOMPUTED` are optional and compared with ours: they would differ for another layout of windows.
    Raises CapsuleError for missing, unexpected or misshapen tensors. Float32 tensors are taken as they are, not copied.
    """
    with torch.device("meta"):
        network = RamNetwork(config)
    _compute_buffers(network)
    weights: dict[str, Tensor] = {}
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        target = stored if name.endswith(RECOMPUTED) else weights
        target[own_name(name)] = tensor
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    except RuntimeError as error:
        raise CapsuleError(f"the weights do not fit RAM++: {error}") from error
    buffers = dict(network.named_buffers())
    for name, tensor in stored.items():
        if name not in buffers or not torch.equal(buffers[name].to(tensor.dtype), tensor):
            raise CapsuleError(f"the stored {name} is not the one that the sizes of RAM++ imply")
    return network.eval().requires_grad_(False)


def official_shapes(config: RamConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight under its official name, without the recomputed buffers and without allocating any."""
    with torch.device("meta"):
        network = RamNetwork(config)
    return {official_name(name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def own_name(name: str) -> str:
    """Our name of a tensor of the released weights."""
    return REDUCTION.sub(lambda found: f"{found[1]}{int(found[2]) + 1}{found[3]}", name)


def official_name(name: str) -> str:
    """The name that the released weights have for a tensor of ours."""
    return REDUCTION.sub(lambda found: f"{found[1]}{int(found[2]) - 1}{found[3]}", name)


def _swin(config: SwinConfig) -> Any:
    return timm.create_model(
        "swin_large_patch4_window12_384",
        pretrained=False,
        num_classes=0,
        img_size=config.image_size,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.heads,
        window_size=config.window,
    )


def _compute_buffers(network: RamNetwork) -> None:
    """Gives a network that was built without memory its buffers: those of the narrowest one of the same geometry."""
    visual = network.config.visual
    narrow = _swin(replace(visual, width=1, heads=(1,) * len(visual.heads)))
    for name, buffer in narrow.named_buffers():
        path, _, leaf = f"visual_encoder.{name}".rpartition(".")
        network.get_submodule(path).register_buffer(leaf, buffer, persistent=False)
