"""What a grader is: it looks at an original once, and then at each decoded version of it.

Evidence is whatever the `combine` of a metric takes; it has to be small and picklable, for it is kept until the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from difficmh.evaluation.statistics import Metric
from difficmh.images import Pixels

Image: TypeAlias = Pixels
Evidence: TypeAlias = Mapping[str, Any]
"""Name of a metric to what this picture says about it; metrics about which it says nothing are left out."""


@dataclass(frozen=True)
class Box:
    """An object: its class, and `(x1, y1, x2, y2)` relative to the picture, in [0, 1]."""

    label: str
    corners: tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """What people marked in a picture. `classes` are all that were looked for: others may be there unmarked."""

    boxes: tuple[Box, ...]
    classes: frozenset[str]


@dataclass(frozen=True)
class Picture:
    """One picture of the evaluation: `pixels` is `(H, W, 3)` uint8 sRGB; `truth` is None where nothing is marked."""

    name: str
    pixels: Image
    truth: Truth | None = None


class Grader(Protocol):
    """Measures decoded pictures against their original. `decoded` has the shape and dtype of the original's pixels."""

    @property
    def metrics(self) -> Sequence[Metric]: ...
    def reference(self, picture: Picture) -> Any:
        """All that `grade` needs to know of the original, found out once."""
        ...

    def grade(self, reference: Any, decoded: Image) -> Evidence: ...


def as_tensor(image: Image) -> Tensor:
    """`(H, W, 3)` uint8 to `(3, H, W)` float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
