"""LPIPS and DISTS, where their packages and all their weights are on this machine; nothing is downloaded.

LPIPS (package `lpips`) brings its own linear weights but takes AlexNet's from torch's cache, DISTS (`DISTS_pytorch`)
VGG-16's. Both packages would download what is missing; here its absence is an error instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difficmh.evaluation.graders import Evidence, Image, Picture, as_tensor
from difficmh.evaluation.statistics import Metric, mean

PACKAGES = {"lpips": ("lpips", "alexnet-owt-7be5be79.pth"), "dists": ("DISTS_pytorch", "vgg16-397923af.pth")}
"""Package, and the file of torch's cache that it reads."""


class Perceptual:
    """One of the two. Raises ValueError where its package or weights are not on this machine."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        package, weights = PACKAGES[name]
        if find_spec(package) is None:
            raise ValueError(f"the measure {name} needs a package: pip install {package}")
        path = Path(torch.hub.get_dir()) / "checkpoints" / weights
        if not path.is_file():
            raise ValueError(f"the measure {name} needs weights that are not on this machine: {path}")
        module: Any = import_module(package)
        self._network = (module.LPIPS(net="alex") if name == "lpips" else module.DISTS()).to(device).eval()
        self._name, self._device = name, device
        self.metrics: Sequence[Metric] = (Metric(name, name.upper(), mean, higher_is_better=False),)

    def reference(self, picture: Picture) -> Tensor:
        return self._input(picture.pixels)

    @torch.inference_mode()
    def grade(self, reference: Tensor, decoded: Image) -> Evidence:
        return {self._name: float(self._network(reference, self._input(decoded)))}

    def _input(self, image: Image) -> Tensor:
        """`(1, 3, H, W)`: LPIPS wants [-1, 1], DISTS [0, 1]."""
        pixels = as_tensor(image)[None].to(self._device)
        return pixels * 2 - 1 if self._name == "lpips" else pixels
