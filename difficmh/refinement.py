"""Refinement of y for one picture: the encoder's search for fewer bits and less distortion, by gradient.

    y ─round─► y_hat ─entropy model─► bits ───────────┐
                └────g_s──► preview ──► distortion ───┴─► cost ──gradient──► y

Analysis transforms are made for all pictures; a few steps down the cost of this one make up for part of that (Campos et
al., "Content Adaptive Optimization for Neural Image Compression", CVPR Workshops 2019). Decoders know nothing of it.
Rounding passes gradients as if it were not there, so the cost of each step is that of symbols that could be coded, and
the best step is kept: the result is never worse than y as it came. Floating point estimates; what is coded goes through
exact integers as always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from difficmh.distortion import MS_SSIM_SIDE, distortion, squared_error
from difficmh.entropy_model import EntropyOutput
from difficmh.model import CodecModel
from difficmh.tiling import Y_STRIDE, Z_STRIDE, Tile, cores

RATE = 0.002
"""Length of the first steps in quantisation steps, root mean square over an image; they shorten to nothing."""

MOMENTUM = 0.8

PART, MARGIN = 768, 64
"""Pixels a side of what is refined at once, which bounds the memory for gradients, and of what is drawn around it."""

UNLIKELY = 1e-9
"""Likelihoods count as at least this."""

TINY = 1e-12


@dataclass(frozen=True)
class Window:
    """`B` images in one window, and what is coded of them: `images` `(B, 3, H, W)` in [0, 1], `y` `(B, M, H/16, W/16)`,
    `z` of the core alone, `quality_index` `(B,)` int64."""

    images: Tensor
    y: Tensor
    z: Tensor
    quality_index: Tensor


def refine(model: CodecModel, window: Window, tile: Tile, steps: int) -> Tensor:
    """The core's part of y after so many gradient steps, `(B, M, h, w)`; `window.y` is overwritten with it.

    Memory follows the size of a part, not of the tile: parts of the core are refined one after the other, each amid its
    surroundings as they are by then. Images do not influence each other.
    """
    for part, z in parts(tile, window.z):
        rows, columns = part.window.slices()
        y_rows, y_columns = part.window.slices(Y_STRIDE)
        seen = Window(window.images[..., rows, columns], window.y[..., y_rows, y_columns], z, window.quality_index)
        part.crop(seen.y, Y_STRIDE).copy_(Refinement(model, seen, part).run(steps))
    return cast(Tensor, tile.crop(window.y, Y_STRIDE))


def parts(tile: Tile, z: Tensor) -> Iterator[tuple[Tile, Tensor]]:
    """Parts of a tile's core with their surroundings, as places in its window; and z of each."""
    top, left = tile.core.top - tile.window.top, tile.core.left - tile.window.left
    for place in cores(tile.core.height, tile.core.width, PART):
        core = replace(place, top=place.top + top, left=place.left + left)
        rows, columns = place.slices(Z_STRIDE)
        yield Tile(core, core.grown(MARGIN, tile.window.height, tile.window.width)), z[..., rows, columns]


@dataclass(frozen=True)
class Refinement:
    """The work on a tile. Symbols belong to its core; what surrounds it is drawn beside it, so that cores meet without
    seams, and stays as it is."""

    model: CodecModel
    window: Window
    tile: Tile

    def run(self, steps: int) -> Tensor:
        """The core's y, refined.

        All gradients of an image are scaled alike: most symbols hardly move, and those where much is to be gained go to
        another integer. (Steps of equal length, as of Adam, move all of them, and gain less.)
        """
        core = self.tile.crop(self.window.y, Y_STRIDE)
        best = core, torch.full((len(core),), torch.inf, dtype=torch.float32, device=core.device)
        direction = torch.zeros_like(core)
        for step in range(steps):
            cost, gradient = self._cost_and_gradient(core)
            best = _cheaper(best, (core, cost))
            direction = MOMENTUM * direction + (1 - MOMENTUM) * gradient
            size = direction.square().mean((1, 2, 3), keepdim=True).sqrt() + TINY
            core = core - RATE * (1 - step / steps) ** 0.5 * direction / size
        with torch.no_grad():
            return _cheaper(best, (core, self.cost(core)))[0]

    def _cost_and_gradient(self, core: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            core = core.detach().requires_grad_()
            cost = self.cost(core)
            (gradient,) = torch.autograd.grad(cost.sum(), core)
        return cost.detach(), gradient

    def cost(self, core: Tensor) -> Tensor:
        """Bits per pixel of the core plus lambda times the window's distortion, `(B,)`."""
        expected = self.model.entropy(core, self.window.z, self.window.quality_index)
        pixels = self.tile.core.height * self.tile.core.width
        bits = estimated_bits(expected) / pixels
        preview = self.model.preview(self._amid_surroundings(expected.y_hat), self.window.quality_index)
        lambdas = torch.tensor(self.model.config.lambdas, dtype=torch.float32, device=core.device)
        share = self.window.images.shape[2] * self.window.images.shape[3] / pixels
        return bits + lambdas[self.window.quality_index] * share * mixed_distortion(preview, self.window.images)

    def _amid_surroundings(self, core: Tensor) -> Tensor:
        """The window's y with this core."""
        y = self.window.y.clone()
        self.tile.crop(y, Y_STRIDE).copy_(core)
        return y


def _cheaper(known: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """For each image the y of lower cost, and that cost."""
    better = other[1] < known[1]
    return torch.where(better[:, None, None, None], other[0], known[0]), torch.where(better, other[1], known[1])


def estimated_bits(expected: EntropyOutput) -> Tensor:
    """Bits of y_hat under its Gaussians, `(B,)`: the probability of half a quantisation step around it."""
    distance = (expected.y_hat - expected.means).abs()
    upper, lower = (torch.special.ndtr((offset - distance) / expected.scales) for offset in (0.5, -0.5))
    return -torch.log2((upper - lower).clamp(min=UNLIKELY)).flatten(1).sum(1)


def mixed_distortion(decoded: Tensor, images: Tensor) -> Tensor:
    """Distortion as in training, `(B,)`; squared error alone for pictures too small for MS-SSIM."""
    if min(images.shape[2:]) < MS_SSIM_SIDE:
        return squared_error(decoded, images)
    return distortion(decoded, images).mixed()
