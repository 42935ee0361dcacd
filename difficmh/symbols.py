"""Symbols of z and y against the range coder: the same walk over the entropy model, writing or reading.

A batch of images walks together; each has its own stream. Positions whose scale index is 0 are so certain that nothing
is coded for them: their symbol is 0 on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh import checkerboard
from difficmh.cdf_tables import CdfTables
from difficmh.errors import BitstreamError
from difficmh.fixed_point import ONE
from difficmh.range_coder import SymbolDecoder, SymbolEncoder

SYMBOL_LIMIT, Z_LIMIT = 32767, 512
"""Symbols of y and of z lie within ± these: part of the format."""

Exchange = Callable[[Tensor, Tensor], Tensor]
"""`(means, indexes)` of one pass to its symbols: the encoder makes and stores them, the decoder reads them. All three
are `(B, C, h, w/2)` float64 tensors of integers; means in fixed point. Symbols at index 0 must be 0: they are not
coded."""

Place = tuple[slice, slice]
"""Rows and columns."""


class EntropyNetworks(Protocol):
    """What coding needs of an entropy model: how y is sliced, how many channels z has, and the walk over y."""

    @property
    def slices(self) -> tuple[int, ...]: ...

    @property
    def hyper_channels(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def traverse(self, z_symbols: Tensor, quality: int, exchange: Exchange) -> Tensor: ...


@dataclass(frozen=True)
class DecodedSymbols:
    """Symbols of z, `(B, N, h, w)` int32, and y_hat, `(B, M, 4h, 4w)` float32; of a whole image on the CPU."""

    z_symbols: Tensor
    y_hat: Tensor

    def room(self, rows: int, columns: int) -> DecodedSymbols:
        """Room on the CPU for as many channels of a whole image, `rows` x `columns` positions of z; not yet filled."""
        z_symbols = torch.empty(*self.z_symbols.shape[:2], rows, columns, dtype=torch.int32)
        return DecodedSymbols(z_symbols, torch.empty(*self.y_hat.shape[:2], 4 * rows, 4 * columns))

    def copy_into(self, whole: DecodedSymbols, z_place: Place, y_place: Place) -> None:
        """Fills these rows and columns of a whole image."""
        whole.z_symbols[(..., *z_place)] = self.z_symbols
        whole.y_hat[(..., *y_place)] = self.y_hat


@dataclass(frozen=True)
class EntropyTables:
    """Integer tables of the model: one per channel of z, one per scale index of y."""

    z: CdfTables
    y: CdfTables


def encode_symbols(
    model: EntropyNetworks, tables: EntropyTables, y: Tensor, z: Tensor, quality: int, encoders: Sequence[SymbolEncoder]
) -> Tensor:
    """Codes y `(B, M, h, w)` and z `(B, N, h/4, w/4)`, floats, into one encoder per image; quality index from 0.

    Returns y_hat `(B, M, h, w)` float32, exactly what a decoder gets.
    """
    z_symbols = torch.round(z.double()).clamp(-Z_LIMIT, Z_LIMIT)
    indexes = _channel_indexes(z_symbols.shape)
    for symbols, encoder in zip(_integers(z_symbols), encoders, strict=True):
        encoder.push(symbols.reshape(-1), indexes, tables.z)
    halves = iter(_passes(model, y))

    def exchange(mean: Tensor, index: Tensor) -> Tensor:
        symbols = torch.round(next(halves) - mean / ONE).clamp_(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        symbols = torch.where(index > 0, symbols, 0.0)
        for values, chosen, encoder in zip(_integers(symbols), _integers(index), encoders, strict=True):
            coded = chosen > 0
            encoder.push(values[coded], chosen[coded], tables.y)
        return symbols

    return model.traverse(z_symbols, quality, exchange)


def decode_latents(
    model: EntropyNetworks,
    tables: EntropyTables,
    z_size: tuple[int, int],
    quality: int,
    decoders: Sequence[SymbolDecoder],
) -> DecodedSymbols:
    """Reads z of `(h, w)` positions and then y from one decoder per image; quality index from 0.

    Raises BitstreamError for streams that hold no such symbols.
    """
    device = model.device
    shape = (len(decoders), model.hyper_channels, *z_size)
    indexes = _channel_indexes(shape)
    z_symbols = np.stack([decoder.pull(indexes, tables.z).reshape(shape[1:]) for decoder in decoders])
    if np.abs(z_symbols).max() > Z_LIMIT:
        raise BitstreamError("damaged: a hyperprior symbol is out of range")

    def exchange(mean: Tensor, index: Tensor) -> Tensor:
        symbols = np.zeros(index.shape, np.int32)
        for values, chosen, decoder in zip(symbols, _integers(index), decoders, strict=True):
            coded = chosen > 0
            values[coded] = decoder.pull(chosen[coded], tables.y)
        return torch.from_numpy(symbols).to(device).double()

    z = torch.from_numpy(z_symbols).to(device)
    return DecodedSymbols(z, model.traverse(z, quality, exchange))


def _passes(model: EntropyNetworks, y: Tensor) -> list[Tensor]:
    """y in coding order: anchors, then the others, of each slice, in float64."""
    return [half for part in y.double().split(model.slices, dim=1) for half in checkerboard.split(part)]


def _channel_indexes(shape: Sequence[int]) -> NDArray[np.int32]:
    """The table of each position of z, flattened over channel, row, column."""
    return np.repeat(np.arange(shape[1], dtype=np.int32), shape[2] * shape[3])


def _integers(x: Tensor) -> NDArray[np.int32]:
    return x.to(torch.int32).cpu().numpy()
