"""Symbols of y and z to strings of the official implementation and back, and the integer tables these need.

The entropy networks run in floating point here, as they do in the official code: what one machine wrote, another may
misread (it then raises BitstreamError, as the coder's final state disagrees). Our own streams are exact instead
(`symbols.py`). z is one string per image, y one string for the whole batch. Tables come with the model, as integers;
they are made once (`bottleneck_tables`, `gaussian_tables`) in the formulas of compressai 1.2.4. No job writes official
files yet: `encode_strings` is there for tests of the reading and for whoever wants to give them to the official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.cdf_tables import SCALE_MAX, SCALE_MIN, SCALES, TOTAL
from difficmh.errors import BitstreamError
from difficmh.sd21.factorized_density import TAIL_MASS, FactorizedDensity
from difficmh.sd21.lfgcm_entropy import LfgcmEntropy, normal_cdf
from difficmh.sd21.official_rans import OfficialDecoder, OfficialTables, encode_official
from difficmh.symbols import Latents

OTHER_ARITHMETIC = "or it was written under another arithmetic: --device cpu, or cuda, may read it"
"""The same symptoms: where a scale falls on another table, all that follows is misread."""


@dataclass(frozen=True)
class OfficialStrings:
    """Coded symbols of a batch: one string of y for all, one string of z for each."""

    y: bytes
    z: tuple[bytes, ...]


@dataclass(frozen=True)
class OfficialEntropyTables:
    """Integer tables of the model: one per channel of z, one per scale index of y."""

    z: OfficialTables
    y: OfficialTables


@torch.no_grad()
def encode_strings(model: LfgcmEntropy, tables: OfficialEntropyTables, y: Tensor, z: Tensor) -> OfficialStrings:
    """Codes y `(B, M, 4h, 4w)` and z `(B, N, h, w)`, float32, not centred."""
    z_symbols = torch.round(model.centre(z))
    channels = np.repeat(np.arange(z.shape[1]), z.shape[2] * z.shape[3]).tolist()
    z_strings = [encode_official(part.flatten().int().tolist(), channels, tables.z) for part in z_symbols]
    halves = iter(model.passes(y))
    symbols: list[int] = []
    indexes: list[int] = []

    def decode(means: Tensor, scales: Tensor) -> Tensor:
        rounded = torch.round(next(halves) - means)
        symbols.extend(rounded.flatten().int().tolist())
        indexes.extend(scale_indexes(scales).flatten().tolist())
        return rounded + means

    model.walk(model.z_hat(z_symbols), decode)
    return OfficialStrings(encode_official(symbols, indexes, tables.y), tuple(z_strings))


@torch.no_grad()
def decode_strings(
    model: LfgcmEntropy, tables: OfficialEntropyTables, strings: OfficialStrings, z_size: tuple[int, int]
) -> Latents:
    """Symbols of z of `(h, w)` positions, and y_hat. Raises BitstreamError for strings that hold no such symbols.

    Also where the strings were made under an arithmetic whose last bits differ.
    """
    z_symbols = torch.tensor([_decode_z(string, tables.z, z_size) for string in strings.z], device=model.device)
    z_symbols = z_symbols.view(len(strings.z), model.hyper_channels, *z_size)
    try:
        return Latents(z_symbols.int(), _decode_y(model, tables.y, strings.y, z_symbols))
    except BitstreamError as error:
        raise BitstreamError(f"{error}; {OTHER_ARITHMETIC}") from error


def _decode_y(model: LfgcmEntropy, tables: OfficialTables, string: bytes, z_symbols: Tensor) -> Tensor:
    decoder = OfficialDecoder(string)

    def decode(means: Tensor, scales: Tensor) -> Tensor:
        symbols = decoder.pull(scale_indexes(scales).flatten().tolist(), tables)
        return torch.tensor(symbols, dtype=torch.float32).view(means.shape).to(means.device) + means

    y_hat = model.walk(model.z_hat(z_symbols), decode).y_hat
    decoder.finish()
    if not torch.isfinite(y_hat).all():
        raise BitstreamError("damaged: the decoded latent is not finite")
    return y_hat


def _decode_z(string: bytes, tables: OfficialTables, size: tuple[int, int]) -> list[int]:
    """Channel by channel and lazily, so that a size without symbols behind it costs nothing."""
    decoder = OfficialDecoder(string)
    channels = chain.from_iterable(repeat(channel, size[0] * size[1]) for channel in range(len(tables.rows)))
    symbols = decoder.pull(channels, tables)
    decoder.finish()
    return symbols


def scale_table() -> Tensor:
    """The standard deviations of the Gaussian tables, `(64,)` float32, in the official rounding."""
    low, high = np.log(SCALE_MIN), np.log(SCALE_MAX)
    return torch.exp(torch.linspace(low, high, SCALES))


def scale_indexes(scales: Tensor) -> Tensor:
    """Table of each raw scale, the first whose standard deviation is not smaller; same shape, int64, in 0..63."""
    table = scale_table()[:-1].to(scales.device)
    return torch.bucketize(scales.clamp(min=SCALE_MIN).contiguous(), table)


# --- tables, made once ------------------------------------------------------------------------------------------------


@torch.no_grad()
def bottleneck_tables(density: FactorizedDensity) -> OfficialTables:
    """Tables of z, one per channel, as compressai 1.2.4 makes them."""
    below, above = density.range()
    lengths = below + above + 1
    medians = density.medians[:, :, 0]
    values = torch.arange(int(lengths.max()), device=medians.device) + (medians - below[:, None])
    mass, lower, upper = density.mass(values[:, None])
    tails = torch.sigmoid(lower[:, 0, 0]) + torch.sigmoid(-upper[:, 0, -1])
    return _official_tables(mass[:, 0], tails, lengths, -below)


@torch.no_grad()
def gaussian_tables() -> OfficialTables:
    """Tables of y, one per scale, as compressai 1.2.4 makes them. (`cdf_tables.py` has those of our own streams.)"""
    scales = scale_table()
    centres = torch.ceil(scales * -NormalDist().inv_cdf(TAIL_MASS / 2)).long()
    lengths = 2 * centres + 1
    distance = torch.abs(torch.arange(int(lengths.max())) - centres[:, None]).float()
    upper = normal_cdf((0.5 - distance) / scales[:, None])
    lower = normal_cdf((-0.5 - distance) / scales[:, None])
    return _official_tables(upper - lower, 2 * lower[:, 0], lengths, -centres)


def _official_tables(mass: Tensor, tails: Tensor, lengths: Tensor, offsets: Tensor) -> OfficialTables:
    """`mass` `(n, longest)`, of which each row uses its first `lengths`; `tails` `(n,)` go to the escape bins."""
    cdfs = np.zeros((len(mass), int(lengths.max()) + 2), np.int32)
    for row, part, tail, length in zip(cdfs, mass, tails, lengths.tolist(), strict=True):
        row[: length + 2] = _quantized_cdf([*part[:length].tolist(), float(tail)])
    return OfficialTables(cdfs, (lengths + 2).int().cpu().numpy(), offsets.int().cpu().numpy())


def _quantized_cdf(probabilities: Sequence[float]) -> NDArray[np.int64]:
    """Cumulative counts of 16 bits in which every bin has at least one, in compressai's way of sharing them out."""
    shares = np.floor(np.asarray(probabilities, np.float64) * TOTAL + 0.5).astype(np.int64)
    counts = shares * TOTAL // shares.sum()
    counts[-1] = TOTAL - counts[:-1].sum()
    for place in range(len(counts)):
        if counts[place] == 0:
            # The smallest bin that can spare a count gives it, the first of several.
            giver = int(np.where(counts > 1, counts, TOTAL + 1).argmin())
            counts[giver] -= 1
            counts[place] += 1
    return np.concatenate(([0], np.cumsum(counts)))
