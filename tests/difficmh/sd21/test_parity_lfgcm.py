"""The latent codec against numbers of the official implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from difficmh.fixed_point import ONE
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.sd21.lfgcm import Lfgcm, LfgcmOutput, bits_per_pixel
from difficmh.sd21.lfgcm_entropy import LOWEST_INDEX
from difficmh.sd21.official_coding import (
    OfficialEntropyTables,
    OfficialStrings,
    bottleneck_tables,
    decode_strings,
    encode_strings,
    gaussian_tables,
    scale_indexes,
    scale_table,
)
from difficmh.sd21.official_format import OfficialStream, pack_tags, read_official, unpack_tags, write_official
from difficmh.sd21.official_rans import OfficialDecoder, OfficialTables
from difficmh.sd21.tables import coding_tables
from difficmh.symbols import decode_latents, encode_latents
from tests.difficmh.parity_fixtures import FOLDER, facts, needs_parity, tensors
from tests.difficmh.sd21.tiny_lfgcm import fixture_lfgcm

pytestmark = needs_parity

CASES = ("b1", "b2")
FILES = ("bitstream_tags", "bitstream_notags", "bitstream_zerotags")


@pytest.fixture(scope="module")
def model() -> Lfgcm:
    return fixture_lfgcm()


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return tensors("lfgcm_small_io")


@pytest.fixture(scope="module")
def tables(numbers: dict[str, Tensor]) -> OfficialEntropyTables:
    """As stored, not as made here."""

    def stored(name: str) -> OfficialTables:
        parts = ("quantized_cdf", "cdf_length", "offset")
        return OfficialTables(*(numbers[f"tables.{name}.{part}"].numpy() for part in parts))

    return OfficialEntropyTables(z=stored("bottleneck"), y=stored("gaussian"))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{request.param}."
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


@pytest.fixture
def output(model: Lfgcm, case: dict[str, Tensor]) -> LfgcmOutput:
    with torch.no_grad():
        return model(case["x"], case["ref"])


def close(actual: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    # Relative too: z reaches hundreds, of which float32 keeps seven digits.
    assert_close(actual, expected, atol=atol, rtol=2e-6)


@torch.no_grad()
def test_analysis(model: Lfgcm, case: dict[str, Tensor]) -> None:
    y, z = model.analyze(case["x"], case["ref"])
    close(y, case["y"])
    close(z, case["z"])
    close(model.quantize_z(z), case["z_hat"])
    close(model.z_hat(torch.round(model.centre(z))), case["z_hat"])


@torch.no_grad()
def test_networks_behind_the_hyperprior(model: Lfgcm, case: dict[str, Tensor]) -> None:
    close(model.hyper_dec(case["z_hat"]), case["hyper_params"])
    close(model.f_c(case["z_hat"]), case["f_c"])


def test_the_forward_pass(output: LfgcmOutput, case: dict[str, Tensor]) -> None:
    close(output.prediction.means, case["means"])
    close(output.prediction.scales, case["scales"])
    close(output.prediction.y_hat, case["y_hat_forward"])
    close(output.guide, case["c_latent_forward"], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["", "_noisy"])
def test_likelihoods_and_rates(model: Lfgcm, output: LfgcmOutput, case: dict[str, Tensor], kind: str) -> None:
    noise = (case["noise_y"], case["noise_z"]) if kind else None
    likelihoods = model.likelihoods(*model.analyze(case["x"], case["ref"]), output.prediction, noise)
    close(likelihoods.y, case[f"lik_y{kind}"])
    close(likelihoods.z, case[f"lik_z{kind}"])
    y, z = bits_per_pixel(likelihoods, *case["x"].shape[-2:])
    close(y, case[f"bpp_y{kind}"])
    close(z, case[f"bpp_z{kind}"])


def test_the_quantile_loss(model: Lfgcm, numbers: dict[str, Tensor]) -> None:
    assert_close(model.entropy_bottleneck.quantile_loss(), numbers["aux_loss"], rtol=1e-6, atol=0)


@torch.no_grad()
def test_symbols_and_tables_in_order(model: Lfgcm, output: LfgcmOutput, case: dict[str, Tensor]) -> None:
    y, _ = model.analyze(case["x"], case["ref"])
    symbols = model.passes(torch.round(y - output.prediction.means))
    indexes = model.passes(scale_indexes(output.prediction.scales))
    assert torch.equal(torch.cat([part.flatten() for part in symbols]).int(), case["symbols"])
    assert torch.equal(torch.cat([part.flatten() for part in indexes]).int(), case["indexes"])


def test_tables_are_made_as_stored(model: Lfgcm, tables: OfficialEntropyTables, numbers: dict[str, Tensor]) -> None:
    assert torch.equal(scale_table(), numbers["tables.gaussian.scale_table"])
    for made, stored in ((bottleneck_tables(model.entropy_bottleneck), tables.z), (gaussian_tables(), tables.y)):
        for part in ("cdfs", "lengths", "offsets"):
            assert np.array_equal(getattr(made, part), getattr(stored, part))


@torch.no_grad()
def test_strings_to_the_byte_and_back(model: Lfgcm, tables: OfficialEntropyTables, case: dict[str, Tensor]) -> None:
    y, z = model.analyze(case["x"], case["ref"])
    strings = encode_strings(model, tables, y, z)
    assert strings.y == _bytes(case["y_string"])
    assert strings.z == tuple(_bytes(case[f"z_string.{i}"]) for i in range(len(z)))
    decoded = decode_strings(model, tables, strings, (z.shape[2], z.shape[3]))
    close(decoded.y_hat, case["y_hat"])
    close(model.guide(decoded.y_hat, decoded.z_symbols), case["c_latent"], atol=1e-3)


def test_strings_hold_these_symbols(tables: OfficialEntropyTables, case: dict[str, Tensor]) -> None:
    decoder = OfficialDecoder(_bytes(case["y_string"]))
    assert decoder.pull(case["indexes"].tolist(), tables.y) == case["symbols"].tolist()
    decoder.finish()


@torch.no_grad()
def test_the_exact_walk_stays_near_the_float_walk(model: Lfgcm, case: dict[str, Tensor]) -> None:
    """Official symbols through the integer networks: means within a hundredth, indexes next to each other."""
    symbols = iter(model.passes(torch.round(case["y"] - case["means"])))
    indexes: list[Tensor] = []
    differences: list[Tensor] = []
    expected = iter(model.passes(case["means"].double()))

    def exchange(mean: Tensor, index: Tensor) -> Tensor:
        differences.append((mean / ONE - next(expected)).abs().max())
        indexes.append(index.flatten())
        return next(symbols).double()

    y_hat = model.traverse(torch.round(model.centre(case["z_hat"])), 0, exchange)
    assert max(differences) < 1e-2
    assert (y_hat - case["y_hat"]).abs().max() < 1e-2
    shift = (torch.cat(indexes) - case["indexes"].clamp(min=LOWEST_INDEX)).abs()
    assert shift.max() <= 1
    assert shift.mean() < 0.01


@torch.no_grad()
def test_our_own_stream_of_the_same_picture(model: Lfgcm, case: dict[str, Tensor]) -> None:
    y, z = model.analyze(case["x"], case["ref"])
    own = coding_tables(model)
    encoders = [SymbolEncoder() for _ in y]
    y_hat = encode_latents(model, own, y, model.centre(z), 0, encoders)
    streams = [encoder.finish() for encoder in encoders]
    size = (z.shape[2], z.shape[3])
    decoded = decode_latents(model, own, size, 0, [SymbolDecoder(stream) for stream in streams])
    assert torch.equal(decoded.y_hat, y_hat)
    assert (y_hat - y).abs().max() <= 0.5 + 1e-4
    official = len(case["y_string"]) + sum(len(case[f"z_string.{i}"]) for i in range(len(z)))
    assert sum(map(len, streams)) < 1.05 * official


@pytest.mark.parametrize("name", FILES)
def test_official_files_are_read_and_written_to_the_byte(name: str) -> None:
    data = (FOLDER / f"{name}.bin").read_bytes()
    stream, expected = read_official(data), facts("bitstream")[f"{name}.bin"]
    assert (stream.z_height, stream.z_width) == (expected["z_h"], expected["z_w"])
    for string, place in zip((stream.y_string, stream.z_string), expected["strings"], strict=True):
        assert string == data[place["offset"] : place["offset"] + place["length"]]
    tags = expected.get("tag_ids", []) if "num_tags" in expected else None
    assert stream.tags == (None if tags is None else tuple(tags))
    assert write_official(stream) == data


def test_tags_are_packed_like_the_official_ones() -> None:
    for vector in facts("bitstream")["tag_code_vectors"]:
        packed = bytes.fromhex(vector["hex"])
        assert pack_tags(vector["ids"]) == packed
        assert unpack_tags(packed, len(vector["ids"])) == tuple(vector["ids"])


@torch.no_grad()
def test_a_picture_to_the_official_file_and_back(model: Lfgcm, tables: OfficialEntropyTables) -> None:
    numbers, told = tensors("e2e_small_io"), facts("e2e_small")
    y, z = model.analyze(numbers["control"], numbers["ref_latent"])
    strings = encode_strings(model, tables, y, z)
    stream = OfficialStream(z.shape[2], z.shape[3], strings.y, strings.z[0], tuple(told["tags"]))
    assert write_official(stream) == (FOLDER / "bitstream_tags.bin").read_bytes()
    read = read_official(_bytes(numbers["bitstream"]))
    assert read.padded_size == tuple(told["padded_size"])
    strings = OfficialStrings(read.y_string, (read.z_string,))
    decoded = decode_strings(model, tables, strings, (read.z_height, read.z_width))
    close(model.guide(decoded.y_hat, decoded.z_symbols), numbers["c_latent"], atol=1e-3)


def test_gradients_of_the_density(model: Lfgcm) -> None:
    """What only the rate of z reaches has the official gradient norms."""
    numbers, told = tensors("train_loss_io"), facts("train_loss")
    image = numbers["image01"].permute(0, 3, 1, 2)
    output = model(image, numbers["x_start"])
    rate = sum(bits_per_pixel(output.rounded, *image.shape[-2:]))
    assert_close(rate.item(), told["losses"]["cos/mid/zero"]["V/l_bpp"], rtol=1e-4, atol=0)
    density: Any = model.entropy_bottleneck
    parameters = dict(density.named_parameters())
    gradients = torch.autograd.grad(told["weights"]["l_bpp"] * rate, list(parameters.values()))
    old_names = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor", "quantiles": "quantiles"}
    for name, gradient in zip(parameters, gradients, strict=True):
        new = next(new for new in old_names if name.startswith(new))
        expected = told["grad_l2_norms"][f"preprocess_model.entropy_bottleneck.{name.replace(new, old_names[new])}"]
        assert_close(gradient.norm().item(), expected, rtol=1e-3, atol=0)


def _bytes(values: Tensor) -> bytes:
    return values.numpy().tobytes()
