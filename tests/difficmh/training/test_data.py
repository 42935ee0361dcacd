"""Crops to train on."""

from __future__ import annotations

import numpy as np
import torch

from difficmh.training.data import CropSource


def test_enlarged_crops_come_at_every_place_of_a_batch() -> None:
    """Losses that look at a part of a batch, for time, would otherwise see one kind only."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    source, generator = CropSource([noise], "cpu"), torch.Generator().manual_seed(0)
    batches = torch.stack([source.batch(4, 64, generator)[0] for _ in range(100)])
    roughness = batches.diff(dim=-1).abs().mean(dim=(2, 3, 4))  # enlarged noise is smoother
    enlarged = (roughness < 0.9 * roughness.max()).float().mean(dim=0)
    assert ((enlarged > 0.2) & (enlarged < 0.5)).all(), enlarged  # 0.35 of all


def test_a_batch_names_the_picture_of_each_crop() -> None:
    greys = [np.full((80 + 10 * level, 120, 3), level, np.uint8) for level in range(5)]  # one must be enlarged
    images, chosen = CropSource(greys, "cpu").batch(40, 96, torch.Generator().manual_seed(0))
    assert torch.equal((255 * images.mean(dim=(1, 2, 3))).round().long(), chosen)
