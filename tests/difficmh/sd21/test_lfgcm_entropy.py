"""The entropy networks: what encoder and decoder share, in both arithmetics."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difficmh.cdf_tables import GAUSSIAN_SCALES
from difficmh.fixed_point import ONE
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.lfgcm_entropy import LOWEST_INDEX, SCALE_STEPS
from difficmh.sd21.official_coding import scale_indexes
from difficmh.sd21.tables import coding_tables
from difficmh.symbols import decode_latents, encode_latents
from tests.difficmh.sd21.tiny_lfgcm import random_latents, tiny_lfgcm

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "sse4, one thread": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
    "avx2, two threads": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "2"},
    "all that the processor has, three threads": {"OMP_NUM_THREADS": "3"},
}


@pytest.fixture(scope="module")
def model() -> Lfgcm:
    return tiny_lfgcm()


def encode(model: Lfgcm, y: Tensor, z: Tensor) -> tuple[list[bytes], list[int], Tensor]:
    encoders = [SymbolEncoder() for _ in y]
    y_hat = encode_latents(model, coding_tables(model), y, model.centre(z), 0, encoders)
    return [encoder.finish() for encoder in encoders], [encoder.checksum for encoder in encoders], y_hat


def test_streams_come_back_exactly(model: Lfgcm) -> None:
    y, z = random_latents(batch=2, size=(2, 3))
    streams, checksums, y_hat = encode(model, y, z)
    decoders = [SymbolDecoder(stream) for stream in streams]
    decoded = decode_latents(model, coding_tables(model), (2, 3), 0, decoders)
    assert torch.equal(decoded.y_hat, y_hat)
    assert torch.equal(decoded.z_symbols, torch.round(model.centre(z)).int())
    assert [decoder.checksum for decoder in decoders] == checksums
    again = [SymbolDecoder(stream) for stream in streams]
    assert torch.equal(decode_latents(model, coding_tables(model), (2, 3), 0, again).y_hat, y_hat)


def test_every_value_is_within_half_a_step(model: Lfgcm) -> None:
    y, z = random_latents(size=(2, 2))
    _, _, y_hat = encode(model, 10 * y, z)
    assert (y_hat - 10 * y).abs().max() <= 0.5 + 1e-4


def test_neighbours_in_a_batch_change_nothing(model: Lfgcm) -> None:
    y, z = random_latents(batch=3, size=(1, 2))
    together, _, _ = encode(model, y, z)
    assert together == [encode(model, y[i : i + 1], z[i : i + 1])[0][0] for i in range(3)]


@pytest.mark.parametrize("extreme", [1e4, 1e9])
def test_extreme_values_still_come_back(model: Lfgcm, extreme: float) -> None:
    y, z = random_latents()
    streams, _, y_hat = encode(model, extreme * y, extreme * z)
    decoded = decode_latents(model, coding_tables(model), (1, 2), 0, [SymbolDecoder(streams[0])]).y_hat
    assert torch.equal(decoded, y_hat)
    assert torch.isfinite(y_hat).all()


def test_the_exact_walk_expects_what_the_float_walk_expects(model: Lfgcm) -> None:
    y, z = random_latents(size=(2, 2))
    prediction = model.predict(y, z)
    symbols = iter(model.passes(torch.round(y - prediction.means)))
    means: list[Tensor] = []
    indexes: list[Tensor] = []

    def exchange(mean: Tensor, index: Tensor) -> Tensor:
        means.append(mean / ONE)
        indexes.append(index)
        return next(symbols).double()

    model.traverse(torch.round(model.centre(z)), 0, exchange)
    for found, expected in zip(means, model.passes(prediction.means), strict=True):
        assert (found - expected).abs().max() < 1e-2
    expected_indexes = model.passes(scale_indexes(prediction.scales).clamp(min=LOWEST_INDEX))
    differences = [(a - b).abs() for a, b in zip(indexes, expected_indexes, strict=True)]
    assert max(difference.max() for difference in differences) <= 1
    assert torch.cat([difference.flatten() for difference in differences]).mean() < 0.05


def test_streams_are_as_long_as_the_likelihoods_say(model: Lfgcm) -> None:
    y, z = random_latents(size=(4, 4))
    prediction = model.predict(y, z)
    y = prediction.means + prediction.scales.clamp(min=0.11) * torch.randn_like(y)
    likelihoods = model.likelihoods(y, z, model.predict(y, z))
    bits = sum(part.item() for part in likelihoods.bits())
    (stream,), _, _ = encode(model, y, z)
    assert 8 * len(stream) == pytest.approx(bits, rel=0.05)


def test_scale_steps_are_those_of_the_gaussian_tables() -> None:
    assert list(SCALE_STEPS) == [math.floor(scale * ONE) for scale in GAUSSIAN_SCALES[:-1]]


def test_one_model_has_one_rate(model: Lfgcm) -> None:
    with pytest.raises(ValueError, match="quality index 1"):
        model.traverse(torch.zeros(1, 8, 1, 1), 1, lambda mean, index: mean)


def test_noise_takes_the_place_of_rounding(model: Lfgcm) -> None:
    y, z = random_latents()
    prediction = model.predict(y, z)
    rounded = model.likelihoods(y, z, prediction)
    to_rounded = (prediction.y_hat - y, model.quantize_z(z) - z)
    assert torch.allclose(model.likelihoods(y, z, prediction, to_rounded).y, rounded.y, atol=1e-5)
    assert torch.allclose(model.likelihoods(y, z, prediction, to_rounded).z, rounded.z, atol=1e-5)
    assert not torch.allclose(model.likelihoods(y, z, prediction, (0 * y + 0.4, 0 * z)).y, rounded.y, atol=1e-2)


PROBE = """
import json, sys, torch
from difficmh.range_coder import SymbolDecoder
from difficmh.sd21.tables import coding_tables
from difficmh.symbols import decode_latents
from tests.difficmh.sd21.tiny_lfgcm import tiny_lfgcm
request = json.load(sys.stdin)
device = request["device"]
model = tiny_lfgcm()
model.load_state_dict(torch.load(request["weights"], weights_only=True))
model.freeze()
tables = coding_tables(model)
model.to(device)
decoded = decode_latents(model, tables, (2, 2), 0, [SymbolDecoder(bytes.fromhex(request["stream"]))]).y_hat
torch.save(decoded.cpu(), request["decoded"])
"""


def travel(model: Lfgcm, folder: Path, device: str, environment: dict[str, str]) -> tuple[Tensor, Tensor]:
    """y_hat as encoded here, and as a process under another setting decodes it."""
    y, z = random_latents(size=(2, 2))
    (stream,), _, y_hat = encode(model, y, z)
    torch.save(model.state_dict(), folder / "weights.pt")
    request = {
        "device": device,
        "weights": str(folder / "weights.pt"),
        "decoded": str(folder / "decoded.pt"),
        "stream": stream.hex(),
    }
    subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(request),
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    return y_hat, torch.load(io.BytesIO((folder / "decoded.pt").read_bytes()), weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_streams_travel_between_processor_settings(model: Lfgcm, tmp_path: Path, name: str) -> None:
    here, there = travel(model, tmp_path, "cpu", SETTINGS[name])
    assert torch.equal(here, there)


@pytest.mark.gpu
def test_a_gpu_reads_the_same_symbols(model: Lfgcm, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here, there = travel(model, tmp_path, "cuda", {})
    assert torch.equal(here, there)
