"""Networks of compressai's zoo as contestants, with weights from files: nothing is downloaded.

compressai returns strings and a shape; what would have to be stored is all of it. The container made here has height
and width of the picture (2 x 2 bytes), height and width of z (2 x 2), the number of strings (1), the quality (1), and
each string behind its length (4).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from difficmh.evaluation.graders import Image, as_tensor
from difficmh.images import to_pixels
from difficmh.third_party import quiet_torchscript

STRIDE = 64
"""Pictures are continued to a multiple of this, the largest reduction in the zoo."""

HEAD = struct.Struct("<HHHHB")


class CompressaiContestant:
    """One architecture with the weights of each file; quality 1 is the first file."""

    def __init__(self, name: str, networks: Sequence[Any], device: str = "cpu") -> None:
        self.name = name
        self.qualities = range(1, len(networks) + 1)
        self._networks = networks
        self._device = device

    @torch.inference_mode()
    def compress(self, image: Image, quality: int) -> bytes:
        height, width, _ = image.shape
        pixels = as_tensor(image)[None].to(self._device)
        edge = (0, -width % STRIDE, 0, -height % STRIDE)
        coded = self._networks[quality - 1].compress(functional.pad(pixels, edge, mode="replicate"))
        strings = [strings[0] for strings in coded["strings"]]
        head = HEAD.pack(height, width, *coded["shape"], len(strings))
        # The quality, for the decoder has to find the network again, too.
        return head + bytes([quality]) + b"".join(struct.pack("<I", len(one)) + one for one in strings)

    @torch.inference_mode()
    def decompress(self, data: bytes) -> Image:
        height, width, rows, columns, count = HEAD.unpack_from(data)
        quality, position, strings = data[HEAD.size], HEAD.size + 1, []
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + length]])
            position += 4 + length
        decoded: Tensor = self._networks[quality - 1].decompress(strings, (rows, columns))["x_hat"][0]
        return to_pixels(decoded[:, :height, :width])


def load_compressai(text: str, device: str = "cpu") -> CompressaiContestant:
    """From `ARCHITECTURE=FILE[,FILE…]`. Raises ValueError for an unknown architecture, or files that do not fit it."""
    with quiet_torchscript():
        from compressai.zoo.image import model_architectures

    architecture, _, files = text.partition("=")
    if architecture not in model_architectures or not files:
        known = ", ".join(model_architectures)
        raise ValueError(f"compressai:{text} does not read compressai:ARCHITECTURE=FILE[,FILE…]; there are {known}")
    network = model_architectures[architecture]
    return CompressaiContestant(architecture, [_load(network, Path(file), device) for file in files.split(",")], device)


def _load(network: Any, path: Path, device: str) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        model = network.from_state_dict(_weights(content))
    except FileNotFoundError as error:
        raise ValueError(f"there are no weights at {path}") from error
    except (pickle.UnpicklingError, KeyError, RuntimeError, AttributeError, TypeError, EOFError) as error:
        raise ValueError(f"{path} holds no weights of {network.__name__}: {error!r:.300}") from error
    model.update(force=True)
    return model.eval().requires_grad_(False).to(device)


def _weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of a checkpoint, or the file as it is; of a network on several GPUs without its prefix."""
    state: Mapping[str, Tensor] = content.get("state_dict", content)
    return {name.removeprefix("module."): value for name, value in state.items()}
