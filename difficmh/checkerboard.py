"""The two halves of a checkerboard: anchors are coded first, the others with their help (He et al., CVPR 2021).

Anchors are the positions whose row + column is odd. A half keeps every row and half of its columns, so that a
`(B, C, H, W)` map with even W splits into two `(B, C, H, W/2)` maps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and non-anchors of `x`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return _alternate(odd, even), _alternate(even, odd)


def merge(anchors: Tensor, others: Tensor) -> Tensor:
    """Inverse of `split`."""
    return torch.stack((_alternate(others, anchors), _alternate(anchors, others)), dim=-1).flatten(-2)


def _alternate(a: Tensor, b: Tensor) -> Tensor:
    """Even rows of `a` and odd rows of `b`; differentiable."""
    return torch.stack((a[..., 0::2, :], b[..., 1::2, :]), dim=-2).flatten(-3, -2)
