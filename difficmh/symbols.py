"""Symbols of z and y against the range coder: the same walk over the entropy model, writing or reading.

A batch of images walks together; each has its own stream. Positions whose scale index is 0 are so certain that nothing
is coded for them: their symbol is 0 on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh import checkerboard
from difficmh.cdf_tables import PARTS, CdfTables
from difficmh.errors import BitstreamError
from difficmh.fixed_point import ONE
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.tiling import Y_STRIDE, Z_STRIDE, Rectangle

SYMBOL_LIMIT, Z_LIMIT = 32767, 512
"""Symbols of y and of z lie within ± these: part of the format."""

Exchange = Callable[[Tensor, Tensor], Tensor]
"""`(means, indexes)` of one pass to its symbols: the encoder makes and stores them, the decoder reads them. All three
are `(B, C, h, w/2)` float64 tensors of integers; means in fixed point. Symbols at index 0 must be 0: they are not
coded."""


class EntropyNetworks(Protocol):
    """What coding needs of an entropy model: how y is sliced, how many channels z has, and the walk over y."""

    @property
    def slices(self) -> tuple[int, ...]: ...

    @property
    def hyper_channels(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def traverse(self, z_symbols: Tensor, quality_index: int, exchange: Exchange) -> Tensor: ...


@dataclass(frozen=True)
class Latents:
    """What is coded of images: symbols of z, `(B, N, h, w)` int32, and y_hat, `(B, M, 4h, 4w)` float32.

    A `DecodedStream` has those of its image alone, without B.
    """

    z_symbols: Tensor
    y_hat: Tensor

    @classmethod
    def empty(cls, model: EntropyNetworks, images: int, height: int, width: int) -> Latents:
        """Room on the CPU for so many images of `height` × `width` pixels, multiples of 64; not yet filled."""
        z_shape = (images, model.hyper_channels, height // Z_STRIDE, width // Z_STRIDE)
        y_shape = (images, sum(model.slices), height // Y_STRIDE, width // Y_STRIDE)
        return cls(
            torch.empty(z_shape, dtype=torch.int32, device="cpu"),
            torch.empty(y_shape, dtype=torch.float32, device="cpu"),
        )

    def crop(self, place: Rectangle) -> Latents:
        """Those of a part of the images; they share memory."""
        (z_rows, z_columns), (y_rows, y_columns) = place.slices(Z_STRIDE), place.slices(Y_STRIDE)
        return Latents(self.z_symbols[..., z_rows, z_columns], self.y_hat[..., y_rows, y_columns])

    def fill(self, other: Latents) -> None:
        """Overwrites these with others of the same shapes, from any device."""
        self.z_symbols.copy_(other.z_symbols)
        self.y_hat.copy_(other.y_hat)

    def each(self) -> list[Latents]:
        """Those of each image, without B, on the CPU."""
        return [Latents(*both) for both in zip(self.z_symbols.cpu(), self.y_hat.cpu(), strict=True)]


@dataclass(frozen=True)
class EntropyTables:
    """Integer tables of the model: one per channel of z, one per scale index of y."""

    z: CdfTables
    y: CdfTables

    def to_arrays(self) -> dict[str, NDArray[np.int32]]:
        """As capsules store them: `z.cdfs`, `z.lengths`, `z.offsets`, and the same for y."""
        return {f"{name}.{part}": getattr(getattr(self, name), part).copy() for name in "zy" for part in PARTS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.int32]]) -> EntropyTables:
        """Inverse of `to_arrays`, whatever else `arrays` hold.

        Raises KeyError for an array that is missing and ValueError for arrays that are no tables.
        """
        z, y = (CdfTables(*(arrays[f"{name}.{part}"] for part in PARTS)) for name in "zy")
        return cls(z, y)


def encode_latents(
    model: EntropyNetworks,
    tables: EntropyTables,
    y: Tensor,
    z: Tensor,
    quality_index: int,
    encoders: Sequence[SymbolEncoder],
) -> Tensor:
    """Codes y `(B, M, h, w)` and z `(B, N, h/4, w/4)`, floats, into one encoder per image.

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

    return model.traverse(z_symbols, quality_index, exchange)


def decode_latents(
    model: EntropyNetworks,
    tables: EntropyTables,
    z_size: tuple[int, int],
    quality_index: int,
    decoders: Sequence[SymbolDecoder],
) -> Latents:
    """Reads z of `(h, w)` positions and then y from one decoder per image; on the networks' device.

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
    return Latents(z, model.traverse(z, quality_index, exchange))


def _passes(model: EntropyNetworks, y: Tensor) -> list[Tensor]:
    """y in coding order: anchors, then the others, of each slice, in float64."""
    return [half for part in y.double().split(model.slices, dim=1) for half in checkerboard.split(part)]


def _channel_indexes(shape: Sequence[int]) -> NDArray[np.int32]:
    """The table of each position of z, flattened over channel, row, column."""
    return np.repeat(np.arange(shape[1], dtype=np.int32), shape[2] * shape[3])


def _integers(x: Tensor) -> NDArray[np.int32]:
    return x.to(torch.int32).cpu().numpy()
