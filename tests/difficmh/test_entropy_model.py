"""The entropy model's two arithmetics, and the walk that encoder and decoder share."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from difficmh.cdf_tables import GAUSSIAN_SCALES, SCALE_MIN, SCALE_STEP
from difficmh.codec import Codec
from difficmh.entropy_model import EntropyModel
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.symbols import decode_latents, encode_latents


@torch.no_grad()
def test_coding_predicts_what_training_predicts(tiny_codec: Codec) -> None:
    model: EntropyModel = tiny_codec.networks.model.entropy
    image = torch.rand(1, 3, 128, 128)
    quality = torch.tensor([3])
    y = tiny_codec.networks.model.g_a(image, quality)
    z = tiny_codec.networks.model.h_a(y)
    trained = model(y, z, quality)
    encoder = SymbolEncoder()
    y_hat = encode_latents(model, tiny_codec.tables, y, z, 3, [encoder])
    # Rounding decisions may differ at ties only; predictions differ by the resolution of the fixed point.
    assert (y_hat - trained.y_hat).abs().gt(0.1).float().mean() < 0.02
    assert torch.allclose(y_hat, y, atol=4)


@torch.no_grad()
def test_the_stream_is_as_long_as_the_model_expects(tiny_codec: Codec) -> None:
    model: EntropyModel = tiny_codec.networks.model.entropy
    quality = torch.tensor([5])
    y = tiny_codec.networks.model.g_a(torch.rand(1, 3, 256, 256), quality)
    z = tiny_codec.networks.model.h_a(y)
    expected = model(y, z, quality)
    v = (torch.round(y - expected.means)).double()
    normal = torch.distributions.Normal(0.0, expected.scales.double())
    bits = -torch.log2((normal.cdf(v + 0.5) - normal.cdf(v - 0.5)).clamp(min=1e-9)).sum().item()
    alone, both = SymbolEncoder(), SymbolEncoder()
    encode_latents(model, tiny_codec.tables, y, z, 5, [both])
    z_symbols = torch.round(z).int().flatten().numpy()
    alone.push(
        z_symbols, torch.arange(z.shape[1]).repeat_interleave(z[0, 0].numel()).int().numpy(), tiny_codec.tables.z
    )
    assert 8 * (len(both.finish()) - len(alone.finish())) == pytest.approx(bits, rel=0.02)


@torch.no_grad()
def test_a_decoder_walks_the_same_way(tiny_codec: Codec) -> None:
    model = tiny_codec.networks.model.entropy
    y = 20 * torch.randn(2, 72, 8, 12)
    z = 5 * torch.randn(2, 8, 2, 3)
    encoders = [SymbolEncoder(), SymbolEncoder()]
    y_hat = encode_latents(model, tiny_codec.tables, y, z, 0, encoders)
    decoders = [SymbolDecoder(encoder.finish()) for encoder in encoders]
    assert torch.equal(decode_latents(model, tiny_codec.tables, (2, 3), 0, decoders).y_hat, y_hat)
    assert [d.checksum for d in decoders] == [e.checksum for e in encoders]


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_neighbours_and_memory_layout_change_no_symbol(lite: Codec, layout: torch.memory_format) -> None:
    """What a GPU does in batches, on the built-in networks: three streams together, and each alone."""
    model = copy.deepcopy(lite.networks.model.entropy).to(memory_format=layout)
    generator = torch.Generator().manual_seed(0)
    y = 20 * torch.randn(3, sum(model.slices), 8, 12, generator=generator)
    z = 5 * torch.randn(3, model.h_s.enter.in_channels, 2, 3, generator=generator)
    together = [SymbolEncoder() for _ in range(3)]
    y_hat = encode_latents(lite.networks.model.entropy, lite.tables, y, z, 2, together)
    streams = [encoder.finish() for encoder in together]
    for k, stream in enumerate(streams):
        alone = decode_latents(model, lite.tables, (2, 3), 2, [SymbolDecoder(stream)]).y_hat
        assert torch.equal(alone[0], y_hat[k])
    decoders = [SymbolDecoder(stream) for stream in reversed(streams)]
    assert torch.equal(decode_latents(model, lite.tables, (2, 3), 2, decoders).y_hat, y_hat.flip(0))


def test_scale_indexes_are_those_of_the_tables() -> None:
    expected = [SCALE_MIN * math.exp(k * SCALE_STEP) for k in range(64)]
    assert expected == pytest.approx(list(GAUSSIAN_SCALES))
