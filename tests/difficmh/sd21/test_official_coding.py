"""Official strings: compressai's coder and ours agree, and damaged strings end in an error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressai.ans import BufferedRansEncoder
from compressai.entropy_models import GaussianConditional
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.errors import BitstreamError
from difficmh.sd21.lfgcm import Lfgcm
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
from difficmh.sd21.official_rans import OfficialDecoder, OfficialTables, encode_official
from tests.difficmh.sd21.tiny_lfgcm import random_latents, tiny_lfgcm

TABLES = OfficialTables(
    np.array([[0, 30000, 60000, 65536], [0, 65535, 65536, 0], [0, 1, 65536, 0]]),
    np.array([4, 3, 3]),
    np.array([-1, 5, 0]),
)
symbol = st.one_of(st.integers(-3, 8), st.integers(-(2**20), 2**20), st.integers(-(2**27) + 9, 2**27 - 9))
coded = st.lists(st.tuples(symbol, st.integers(0, 2)), min_size=4, max_size=80)


@pytest.fixture(scope="module")
def model() -> Lfgcm:
    return tiny_lfgcm()


@pytest.fixture(scope="module")
def tables(model: Lfgcm) -> OfficialEntropyTables:
    return OfficialEntropyTables(z=bottleneck_tables(model.entropy_bottleneck), y=gaussian_tables())


@given(coded)
@settings(max_examples=100, deadline=None)
def test_strings_are_those_of_compressai(pairs: list[tuple[int, int]]) -> None:
    symbols, indexes = [value for value, _ in pairs], [index for _, index in pairs]
    encoder = BufferedRansEncoder()
    encoder.encode_with_indexes(
        symbols, indexes, TABLES.cdfs.tolist(), TABLES.lengths.tolist(), TABLES.offsets.tolist()
    )
    string = encode_official(symbols, indexes, TABLES)
    assert string == encoder.flush()
    decoder = OfficialDecoder(string)
    assert decoder.pull(indexes, TABLES) == symbols
    decoder.finish()


@pytest.mark.parametrize("count", range(4))
def test_strings_of_few_symbols_come_back(count: int) -> None:
    # compressai's encoder writes outside its buffer for these.
    string = encode_official([7] * count, [2] * count, TABLES)
    decoder = OfficialDecoder(string)
    assert decoder.pull([2] * count, TABLES) == [7] * count
    decoder.finish()


def test_symbols_beyond_any_escape_are_refused() -> None:
    with pytest.raises(ValueError, match="too far outside"):
        encode_official([1 << 28], [0], TABLES)


@given(st.binary(min_size=8, max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_end_in_an_error_or_in_symbols(data: bytes) -> None:
    try:
        decoder = OfficialDecoder(data)
        decoder.pull([0, 1, 2] * 300, TABLES)
    except BitstreamError:
        return


def test_endless_escapes_are_refused() -> None:
    with pytest.raises(BitstreamError):
        OfficialDecoder(b"\xff" * 7 + b"\x7f" + b"\xff" * 4000).pull([0] * 10000, TABLES)


@pytest.mark.parametrize(
    ("cdfs", "lengths", "offsets"),
    [
        ([[0, 5, 5, 65536]], [4], [0]),
        ([[0, 5, 65535]], [3], [0]),
        ([[0, 5, 65536]], [4], [0]),
        ([[0, 65536]], [2], [0]),
        ([[0, 5, 65536]], [3], [0, 0]),
    ],
)
def test_tables_that_are_none_are_refused(cdfs: list[list[int]], lengths: list[int], offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="table"):
        OfficialTables(np.array(cdfs), np.array(lengths), np.array(offsets))


def test_latents_come_back(model: Lfgcm, tables: OfficialEntropyTables) -> None:
    y, z = random_latents(batch=2, size=(2, 2))
    strings = encode_strings(model, tables, y, z)
    decoded = decode_strings(model, tables, strings, (2, 2))
    assert torch.equal(decoded.z_symbols, torch.round(model.centre(z)).int())
    assert torch.allclose(decoded.y_hat, model.predict(y, z).y_hat, atol=1e-5)


def test_damage_is_noticed(model: Lfgcm, tables: OfficialEntropyTables) -> None:
    y, z = random_latents()
    strings = encode_strings(model, tables, y, z)
    damaged = [
        (strings.y[:-4], strings.z[0]),
        (strings.y + bytes(4), strings.z[0]),
        (strings.y, strings.z[0][:-4]),
        (bytes([strings.y[0] ^ 1]) + strings.y[1:], strings.z[0]),
        (strings.y, strings.z[0][:-1] + bytes([strings.z[0][-1] ^ 64])),
        (strings.y[:4], strings.z[0]),
        (bytes(8), strings.z[0]),
    ]
    for y_string, z_string in damaged:
        with pytest.raises(BitstreamError):
            decode_strings(model, tables, OfficialStrings(y_string, (z_string,)), (1, 2))


def test_another_arithmetic_is_named_where_it_may_be_the_reason(model: Lfgcm, tables: OfficialEntropyTables) -> None:
    """The entropy networks decide the tables of y alone."""
    strings = encode_strings(model, tables, *random_latents())
    with pytest.raises(BitstreamError, match=r"damaged.*another arithmetic.*--device cpu"):
        decode_strings(model, tables, OfficialStrings(strings.y + bytes(4), strings.z), (1, 2))
    with pytest.raises(BitstreamError) as refusal:
        decode_strings(model, tables, OfficialStrings(strings.y, (strings.z[0][:-4],)), (1, 2))
    assert "arithmetic" not in str(refusal.value)


def test_a_size_without_symbols_behind_it_is_refused_early(model: Lfgcm, tables: OfficialEntropyTables) -> None:
    y, z = random_latents()
    strings = encode_strings(model, tables, y, z)
    with pytest.raises(BitstreamError, match="damaged"):
        decode_strings(model, tables, strings, (50000, 50000))


def test_gaussian_tables_are_those_of_compressai() -> None:
    reference = GaussianConditional(scale_table().tolist())
    reference.update()
    tables = gaussian_tables()
    assert np.array_equal(tables.cdfs, reference._quantized_cdf.numpy())
    assert np.array_equal(tables.lengths, reference._cdf_length.numpy())
    assert np.array_equal(tables.offsets, reference._offset.numpy())


def test_scales_choose_the_table_that_compressai_chooses() -> None:
    reference = GaussianConditional(scale_table().tolist())
    scales = torch.cat((torch.linspace(-1, 300, 2000), scale_table())).view(1, 1, 1, -1)
    assert torch.equal(scale_indexes(scales).int(), reference.build_indexes(scales.clamp(min=0.11)))
