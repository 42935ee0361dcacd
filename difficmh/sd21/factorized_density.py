"""The learned density of the hyperprior z: one per channel, independent of place (Ballé et al., ICLR 2018, appendix).

The same model as compressai's entropy bottleneck, with the parameter names that compressai has had since 1.2.7, but in
the arithmetic of compressai 1.2.4, which made the released streams: later versions differ in the last bits of a
probability, which is enough to make other integer tables. `FactorizedDensity.quantile_loss` is for training, which no
job does yet.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.gradients import lower_bound

WIDTHS = (1, 3, 3, 3, 3, 1)
INIT_SCALE = 10.0
TAIL_MASS = 1e-9
LIKELIHOOD_BOUND = 1e-9


class FactorizedDensity(nn.Module):
    """Densities of `channels` channels, each given by its cumulative distribution, a small monotone network.

    `quantiles` `(C, 1, 3)` float are where the distribution has its lower tail, its median and its upper tail; their
    own loss, `quantile_loss`, keeps them there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        scale = INIT_SCALE ** (1 / (len(WIDTHS) - 1))
        pairs = list(pairwise(WIDTHS))
        starts = [math.log(math.expm1(1 / scale / outputs)) for _, outputs in pairs]
        self.matrices = nn.ParameterList(
            torch.full((channels, outputs, inputs), start)
            for (inputs, outputs), start in zip(pairs, starts, strict=True)
        )
        self.biases = nn.ParameterList(torch.empty(channels, n, 1).uniform_(-0.5, 0.5) for n in WIDTHS[1:])
        self.factors = nn.ParameterList(torch.zeros(channels, n, 1) for n in WIDTHS[1:-1])
        self.quantiles = nn.Parameter(torch.tensor([-INIT_SCALE, 0.0, INIT_SCALE]).repeat(channels, 1, 1))

    @property
    def medians(self) -> Tensor:
        """`(C, 1, 1)`, to add to `(B, C, h, w)` symbols."""
        return self.quantiles[:, :, 1:2]

    def logits(self, x: Tensor, *, learn: bool = True) -> Tensor:
        """Logits of the cumulative distribution at `x` `(C, 1, n)`; without `learn`, no gradient to the network."""
        parts = [[p if learn else p.detach() for p in group] for group in (self.matrices, self.biases, self.factors)]
        matrices, biases, factors = parts
        for matrix, bias, factor in zip(matrices, biases, [*factors, None], strict=True):
            x = torch.matmul(F.softplus(matrix), x) + bias
            if factor is not None:
                x = x + torch.tanh(factor) * torch.tanh(x)
        return x

    def mass(self, values: Tensor, *, learn: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of the unit interval around each of `values` `(C, 1, n)`, and the logits of its two ends."""
        lower = self.logits(values - 0.5, learn=learn)
        upper = self.logits(values + 0.5, learn=learn)
        # On the side where the sigmoids are small, their difference keeps its precision.
        sign = -torch.sign(lower + upper).detach()
        return torch.abs(torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)), lower, upper

    def likelihood(self, z: Tensor) -> Tensor:
        """Probability of the unit interval around each value of `z` `(B, C, h, w)`, at least 1e-9; same shape."""
        batch, channels, height, width = z.shape
        mass, _, _ = self.mass(z.transpose(0, 1).reshape(channels, 1, -1))
        return lower_bound(mass, LIKELIHOOD_BOUND).view(channels, batch, height, width).transpose(0, 1)

    def quantile_loss(self) -> Tensor:
        """How far the quantiles are from their places, a sum over channels; for an optimiser of their own."""
        edge = math.log(2 / TAIL_MASS - 1)
        target = torch.tensor([-edge, 0.0, edge], device=self.quantiles.device)
        return torch.abs(self.logits(self.quantiles, learn=False) - target).sum()

    @torch.no_grad()
    def range(self) -> tuple[Tensor, Tensor]:
        """How many integers below and above the median hold all but the tails, each `(C,)` int64."""
        low, median, high = self.quantiles[:, 0].unbind(dim=1)
        return torch.ceil(median - low).clamp(min=0).long(), torch.ceil(high - median).clamp(min=0).long()
