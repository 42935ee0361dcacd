"""What exactness costs the paper's latent codec: its entropy networks in integers against those in floating point."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Action, device_clock, time_in_rounds
from difficmh.fixed_point import ONE
from difficmh.sd21.exact_layers import LIMIT, ExactConv2d, ExactConvTranspose2d
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.official_coding import gaussian_tables
from difficmh.sd21.official_rans import OfficialDecoder, encode_official
from difficmh.tiling import Z_STRIDE

CODED_SYMBOLS = 20_000


@dataclass(frozen=True)
class EntropyCosts:
    """Seconds of one image through the entropy networks, in both arithmetics, and what the exact one takes beside it.

    Seconds are the processor's, summed over threads, on a CPU, and elapsed on a GPU. `exact_per_float` is a median over
    rounds. `integer_megabytes` are weights that only the exact path has. `largest_sum_bits`: no sum reaches two to the
    power of this; 52 would be refused. The last two are for one symbol of the official coder, which is plain Python.
    """

    image_side: int
    float_seconds: float
    exact_seconds: float
    exact_per_float: float
    integer_megabytes: float
    largest_sum_bits: float
    official_encode_microseconds: float
    official_decode_microseconds: float


def entropy_costs(lfgcm: Lfgcm, side: int, rounds: int) -> EntropyCosts:
    """Measures a frozen latent codec on one image of `side` pixels each way, a multiple of 64."""
    clock = time.process_time if lfgcm.device.type == "cpu" else device_clock(lfgcm.device)
    timings = time_in_rounds(network_actions(lfgcm, side), rounds, clock)
    coder = time_in_rounds(official_coder_actions(), rounds, time.process_time)
    return EntropyCosts(
        image_side=side,
        float_seconds=round(timings.best("float"), 4),
        exact_seconds=round(timings.best("exact"), 4),
        exact_per_float=round(timings.ratio("exact", "float"), 2),
        integer_megabytes=round(integer_bytes(lfgcm) / 1e6, 1),
        largest_sum_bits=round(largest_sum_bits(lfgcm), 1),
        official_encode_microseconds=round(1e6 * coder.best("encode") / CODED_SYMBOLS, 2),
        official_decode_microseconds=round(1e6 * coder.best("decode") / CODED_SYMBOLS, 2),
    )


def network_actions(lfgcm: Lfgcm, side: int) -> dict[str, Action]:
    """The same walk over y, all of whose symbols are 0, in both arithmetics."""
    z_symbols = torch.zeros(1, lfgcm.hyper_channels, side // Z_STRIDE, side // Z_STRIDE, device=lfgcm.device)
    return {
        "float": lambda: lfgcm.walk(lfgcm.z_hat(z_symbols), lambda means, _: means),
        "exact": lambda: lfgcm.traverse(z_symbols, 0, _zeros),
    }


def _zeros(means: Tensor, _indexes: Tensor) -> Tensor:
    return torch.zeros_like(means)


def official_coder_actions() -> dict[str, Action]:
    """Random symbols as likely as their tables say, to an official string and back."""
    generator = np.random.default_rng(0)
    tables = gaussian_tables()
    indexes = generator.integers(0, len(tables.rows), CODED_SYMBOLS)
    scales = np.exp(np.linspace(math.log(0.11), math.log(256), len(tables.rows)))[indexes]
    symbols = np.round(scales * generator.standard_normal(CODED_SYMBOLS)).astype(int).tolist()
    places = indexes.tolist()
    string = encode_official(symbols, places, tables)
    return {
        "encode": lambda: encode_official(symbols, places, tables),
        "decode": lambda: OfficialDecoder(string).pull(places, tables),
    }


def integer_bytes(lfgcm: Lfgcm) -> int:
    """Bytes of the buffers that `freeze` made."""
    buffers = (b for name, b in lfgcm.named_buffers() if name.rpartition(".")[2].startswith("integer_"))
    return sum(buffer.numel() * buffer.element_size() for buffer in buffers)


def largest_sum_bits(lfgcm: Lfgcm) -> float:
    """The base-2 logarithm of the largest sum that any exact layer could reach, from its weights alone."""
    largest = 0.0
    for layer in lfgcm.modules():
        if isinstance(layer, ExactConv2d | ExactConvTranspose2d):
            weight = layer.get_buffer("integer_weight").abs()
            outputs = weight.transpose(0, 1) if isinstance(layer, ExactConvTranspose2d) else weight
            largest = max(largest, float(outputs.flatten(1).sum(dim=1).max()) * LIMIT * ONE)
    return math.log2(largest)
