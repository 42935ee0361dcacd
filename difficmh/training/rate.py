"""The densities that training pays bits by: compressai's factorised model for z, Gaussians for y.

Coding never sees these; it reads the integer tables that export makes of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from difficmh.cdf_tables import TOTAL, CdfTables
from difficmh.entropy_model import EntropyOutput
from difficmh.third_party import quiet_torchscript

with quiet_torchscript():
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional

TRAINING_ONLY = "rate."
"""Prefix of these densities among the weights of a model; a capsule has integer tables instead."""

FIT_STEPS, FIT_RATE = 600, 0.02


class RateModel(nn.Module):
    """Bits of one pass, differentiable, with uniform noise in place of rounding while training."""

    def __init__(self, hyper_channels: int) -> None:
        super().__init__()
        self.bottleneck = EntropyBottleneck(hyper_channels)
        self.gaussian = GaussianConditional(None)

    def forward(self, y: Tensor, z: Tensor, expected: EntropyOutput) -> Tensor:
        """Bits per image, `(B,)` float32, of y `(B, M, h, w)` and z `(B, N, h/4, w/4)`."""
        _, z_likelihoods = self.bottleneck(z)
        _, y_likelihoods = self.gaussian(y, expected.scales, means=expected.means)
        bits: Tensor = -torch.log2(y_likelihoods).flatten(1).sum(1) - torch.log2(z_likelihoods).flatten(1).sum(1)
        return bits

    @torch.no_grad()
    def z_probabilities(self, reach: int) -> Tensor:
        """Probability of each integer -reach … reach for each channel of z, `(N, 2 reach + 1)` float32."""
        values = torch.arange(-reach, reach + 1, dtype=torch.float32)
        likelihood, _, _ = self.bottleneck._likelihood(values.expand(self.bottleneck.channels, 1, -1))
        return likelihood[:, 0]

    def fit(self, z: CdfTables) -> float:
        """Learns the densities that `z`, the integer tables of a capsule, were made of: capsules hold no others.

        Returns what z would cost more than under the tables, in bits per symbol, mean over channels.
        """
        reach = max(int(-z.offsets.min()), int((z.offsets + z.sizes).max()))
        target = torch.zeros(len(z), 2 * reach + 1)
        for row, counts in enumerate(z.counts):
            start = int(z.offsets[row]) + reach
            target[row, start : start + int(z.sizes[row])] = torch.from_numpy(counts[: int(z.sizes[row])]) / TOTAL
        values = torch.arange(-reach, reach + 1, dtype=torch.float32).expand(len(z), 1, -1)
        adam = torch.optim.Adam([p for name, p in self.bottleneck.named_parameters() if name != "quantiles"], FIT_RATE)
        for _ in range(FIT_STEPS):
            likelihood = self.bottleneck._likelihood(values)[0][:, 0].clamp(min=1e-9)
            excess = (target * (target.clamp(min=1e-9).log2() - likelihood.log2())).sum(dim=1).mean()
            adam.zero_grad()
            excess.backward()
            adam.step()
        return float(excess.detach())
