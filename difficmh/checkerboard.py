"""The two halves of a checkerboard: anchors are coded first, the others with their help (He et al., CVPR 2021).

Anchors are the positions whose row + column is odd. A half keeps every row and half of its columns, so that a
`(B, C, H, W)` map with even W splits into two `(B, C, H, W/2)` maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and non-anchors of `x`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return _alternate(odd, even), _alternate(even, odd)


def merge(anchors: Tensor, others: Tensor) -> Tensor:
    """Inverse of `split`."""
    return torch.stack((_alternate(others, anchors), _alternate(anchors, others)), dim=-1).flatten(-2)


def conv_at_others(anchors: Tensor, weight: Tensor) -> Tensor:
    """What a convolution that keeps the size finds at the others, `(B, D, H, W/2)`, when only anchors are known.

    `anchors` are `(B, C, H, W/2)`, the others count as 0, `weight` is `(D, C, k, k)`, k odd. It is the second half of
    `split(conv2d(merge(anchors, 0), weight))` for a quarter of the work: neither what would be multiplied by 0 nor what
    would be thrown away is computed. The order of sums is another, so it is for exact integers only.
    """
    reach = weight.shape[-1] // 2
    halves = []
    for parity in (0, 1):  # of the row: from one to the next, anchors lie beside others on the other side
        # Taps that meet anchors: the odd columns in even rows of the kernel, the even columns in odd rows.
        kernel = weight.new_zeros(*weight.shape[:3], reach + 1)
        shift = (reach + parity) % 2
        kernel[:, :, 0::2, shift : shift + reach] = weight[:, :, 0::2, 1::2]
        kernel[:, :, 1::2] = weight[:, :, 1::2, 0::2]
        left = (reach + 1 - parity) // 2
        seen = F.pad(anchors, (left, reach - left, reach - parity, reach))
        halves.append(F.conv2d(seen, kernel, stride=(2, 1)))
    return torch.stack(halves, dim=-2).flatten(-3, -2)


def _alternate(a: Tensor, b: Tensor) -> Tensor:
    """Even rows of `a` and odd rows of `b`; differentiable."""
    return torch.stack((a[..., 0::2, :], b[..., 1::2, :]), dim=-2).flatten(-3, -2)
