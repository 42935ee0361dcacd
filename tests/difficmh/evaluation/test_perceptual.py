"""LPIPS and DISTS by networks in their place: what they are given, and what becomes of the answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difficmh.evaluation import perceptual
from difficmh.evaluation.graders import Picture
from difficmh.evaluation.perceptual import PACKAGES, Perceptual


class LargestDifference(nn.Module):
    """In units of its input."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().max().reshape(1, 1, 1, 1)


@pytest.mark.parametrize(("name", "expected"), [("lpips", 2.0), ("dists", 1.0)])
def test_white_against_black(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, expected: float) -> None:
    package = SimpleNamespace(LPIPS=lambda net: LargestDifference(), DISTS=LargestDifference)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: object())
    monkeypatch.setattr(perceptual, "import_module", lambda name: package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / PACKAGES[name][1]).touch()
    grader = Perceptual(name)
    white, black = (np.full((8, 8, 3), level, np.uint8) for level in (255, 0))
    reference = grader.reference(Picture("white", white))
    assert grader.grade(reference, black) == {name: expected}
    assert grader.grade(reference, white) == {name: 0.0}
    (metric,) = grader.metrics
    assert (metric.name, metric.higher_is_better) == (name, False)
