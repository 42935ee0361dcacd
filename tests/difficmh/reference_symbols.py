"""A second decoder of whole streams down to y_hat, written from `docs/bitstream.md` alone: NumPy's 64-bit integers.

It reads streams of one tile, and a capsule's files without the code that wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tests.difficmh.reference_decoder import ReferenceDecoder, Table

Int64 = NDArray[np.int64]
BOUND = 512 * 1024


def rounded_ratio(number: Int64, divisor: int) -> Int64:
    """number / divisor, ties to even."""
    whole, rest = np.divmod(number, divisor)
    return whole + ((2 * rest > divisor) | ((2 * rest == divisor) & (whole % 2 == 1)))


def leaky(x: Int64) -> Int64:
    return np.maximum(x, rounded_ratio(x, 8)).clip(-BOUND, BOUND)


def shuffled(x: Int64) -> Int64:
    """Four channels to one of twice the height and width."""
    channels, height, width = x.shape
    grouped = x.reshape(channels // 4, 2, 2, height, width)
    return grouped.transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * height, 2 * width)


class ReferenceModel:
    def __init__(self, capsule: Path) -> None:
        self.weights = load_file(capsule / "model.safetensors")
        arrays = load_file(capsule / "tables.safetensors")
        self.tables = {name: self._tables(arrays, name) for name in "zy"}
        self.tags: list[dict[str, Any]] = json.loads((capsule / "tags.json").read_text())["tags"]
        self.slices: list[int] = json.loads((capsule / "config.json").read_text())["codec"]["entropy"]["slices"]

    @staticmethod
    def _tables(arrays: dict[str, NDArray[Any]], name: str) -> list[Table]:
        ends = np.cumsum(arrays[f"{name}.lengths"])[:-1]
        cdfs = np.split(arrays[f"{name}.cdfs"], ends)
        return [(cdf.tolist(), int(offset)) for cdf, offset in zip(cdfs, arrays[f"{name}.offsets"], strict=True)]

    def fixed(self, name: str, scale: int) -> Int64:
        return np.rint(self.weights[f"entropy.{name}"].astype(np.float64) * scale).astype(np.int64)

    def conv(self, name: str, x: Int64) -> Int64:
        weight, bias = self.fixed(f"{name}.weight", 4096), self.fixed(f"{name}.bias", 1024)
        reach = weight.shape[2] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(1, 2))
        sums = np.tensordot(weight, windows, axes=((1, 2, 3), (0, 3, 4)))
        return rounded_ratio(sums, 4096) + bias[:, None, None]

    def features(self, z: Int64) -> Int64:
        x = leaky(self.conv("h_s.enter", 1024 * z))
        x = leaky(self.conv("h_s.mix_32", leaky(shuffled(self.conv("h_s.up_32", x)))))
        return leaky(self.conv("h_s.mix_16", leaky(shuffled(self.conv("h_s.up_16", x)))))


def read_tags(model: ReferenceModel, decoder: ReferenceDecoder) -> list[str]:
    priors = [min(tag["prior"], 65533) for tag in model.tags]
    found = decoder.pull([([0, 65534 - q, 65534, 65535, 65536], 0) for q in priors])
    return [tag["name"] for tag, present in zip(model.tags, found, strict=True) if present]


def read_y(model: ReferenceModel, decoder: ReferenceDecoder, size: tuple[int, int], quality: int) -> Int64:
    """y_hat in 1024ths, `(M, height, width)`, of an image whose padded size is 64 times `size`."""
    tables = model.tables["z"]
    z = decoder.pull([table for table in tables for _ in range(size[0] * size[1])])
    features = model.features(np.array(z).reshape(len(tables), *size))
    bias = model.fixed("quality_bias", 1024)[quality - 1][:, :, None, None]
    done: list[Int64] = []
    for number, channels in enumerate(model.slices):
        start = sum(model.slices[:number])
        known = features
        if done:
            earlier = np.concatenate(done).clip(-BOUND, BOUND)
            known = np.concatenate((features, leaky(model.conv(f"contexts.{number}.channel", earlier))))
        done.append(_read_slice(model, decoder, number, known, bias[:, start : start + channels]))
    return np.concatenate(done)


def _read_slice(model: ReferenceModel, decoder: ReferenceDecoder, number: int, known: Int64, bias: Int64) -> Int64:
    y_hat = np.zeros((bias.shape[1], *known.shape[1:]), np.int64)
    row, column = np.indices(known.shape[1:])
    local = np.zeros_like(model.conv(f"contexts.{number}.local", y_hat))
    for parity in (1, 0):
        x = np.concatenate((known, local))
        for layer in (0, 1):
            x = leaky(model.conv(f"contexts.{number}.mix.convs.{layer}", x))
        mean, scale = np.split(model.conv(f"contexts.{number}.mix.convs.2", x), 2)
        mean = (mean + bias[0]).clip(-BOUND, BOUND)
        index = rounded_ratio(scale + bias[1], 1024).clip(0, 63)
        here = np.broadcast_to((row + column) % 2 == parity, y_hat.shape)
        coded = here & (index > 0)
        symbols = np.zeros_like(y_hat)
        symbols[coded] = decoder.pull([model.tables["y"][k] for k in index[coded]])
        y_hat[here] = (1024 * symbols + mean)[here]
        local = leaky(model.conv(f"contexts.{number}.local", y_hat.clip(-BOUND, BOUND)))
    return y_hat
