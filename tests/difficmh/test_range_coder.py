import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.cdf_tables import CdfTables, gaussian_tables, tables_from_counts, tables_from_pmf
from difficmh.errors import BitstreamError
from difficmh.range_coder import _BITS_TABLES, _CLASS_TABLES, SymbolDecoder, SymbolEncoder
from tests.difficmh.reference_decoder import ReferenceDecoder

GAUSSIANS = gaussian_tables()
MIXED = tables_from_pmf(
    [np.array([0.9, 0.05]), np.array([1.0]), np.full(200, 1 / 250), np.array([1e-4])], [0, -5, 30, 9]
)
ESCAPING = tables_from_counts([[1, 65534]], [0])
"""A table whose escape bin is nearly certain: what a crafted stream would wish for."""

symbol = st.one_of(st.integers(-3, 3), st.integers(-300, 300), st.integers(-32768, 32767))
push = st.tuples(st.sampled_from([0, 1, 2]), st.lists(st.tuples(symbol, st.integers(0, 63)), max_size=60))
TABLES = (GAUSSIANS, MIXED, ESCAPING)


def as_arrays(tables: CdfTables, pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    symbols = np.array([value for value, _ in pairs], np.int32)
    return symbols, np.array([index % len(tables) for _, index in pairs], np.int32)


def encode(pushes: list[tuple[int, list[tuple[int, int]]]]) -> tuple[bytes, int]:
    encoder = SymbolEncoder()
    for which, pairs in pushes:
        encoder.push(*as_arrays(TABLES[which], pairs), TABLES[which])
    return encoder.finish(), encoder.checksum


@given(st.lists(push, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_symbols_come_back(pushes: list[tuple[int, list[tuple[int, int]]]]) -> None:
    payload, checksum = encode(pushes)
    decoder = SymbolDecoder(payload)
    for which, pairs in pushes:
        symbols, indexes = as_arrays(TABLES[which], pairs)
        assert decoder.pull(indexes, TABLES[which]).tolist() == symbols.tolist()
    assert decoder.checksum == checksum


@given(st.lists(push, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_decoder_written_from_the_format_agrees(pushes: list[tuple[int, list[tuple[int, int]]]]) -> None:
    payload, _ = encode(pushes)
    reference = ReferenceDecoder(payload)
    for which, pairs in pushes:
        symbols, indexes = as_arrays(TABLES[which], pairs)
        tables = [(TABLES[which].cdf_lists[i], int(TABLES[which].offsets[i])) for i in indexes]
        assert reference.pull(tables) == symbols.tolist()
    if sum(len(pairs) for _, pairs in pushes) >= 4:
        assert reference.at_end()


@pytest.mark.parametrize("count", range(6))
def test_streams_of_few_symbols_are_written_whole(count: int) -> None:
    # compressai alone writes outside its buffer for fewer than four.
    encoder = SymbolEncoder()
    rare = tables_from_counts([[1, 65533, 1]], [0])
    encoder.push(np.zeros(count, np.int32), np.zeros(count, np.int32), rare)
    payload = encoder.finish()
    assert len(payload) == 8 + 4 * (count // 2)
    assert SymbolDecoder(payload).pull(np.zeros(count, np.int32), rare).tolist() == [0] * count


def test_finishing_twice_gives_an_empty_stream() -> None:
    encoder = SymbolEncoder()
    encoder.push(np.arange(9), np.full(9, 20), GAUSSIANS)
    encoder.finish()
    assert len(encoder.finish()) == 8


def test_long_streams_cross_the_decoder_chunks() -> None:
    rng = np.random.default_rng(1)
    indexes = rng.integers(0, 64, 40_000).astype(np.int32)
    symbols = np.round(rng.standard_cauchy(40_000) * 5).clip(-32768, 32767).astype(np.int32)
    encoder = SymbolEncoder()
    encoder.push(symbols, indexes, GAUSSIANS)
    decoder = SymbolDecoder(encoder.finish())
    assert (decoder.pull(indexes, GAUSSIANS) == symbols).all()
    assert decoder.checksum == encoder.checksum == zlib.crc32(symbols.astype("<i2").tobytes()) & 0xFFFFFF


def test_bytes_of_a_stream_never_change() -> None:
    encoder = SymbolEncoder()
    encoder.push(np.array([0, -1, 2, 300, -32768, 32767]), np.array([5, 9, 20, 30, 0, 63]), GAUSSIANS)
    encoder.push(np.array([1, -5, 229, 9]), np.array([0, 1, 2, 3]), MIXED)
    assert encoder.finish().hex() == "be97e46047781e38feffad7ffafffc7f0616e2e34aec4e47"
    assert encoder.checksum == 0xF0A475


@pytest.mark.parametrize(
    ("symbols", "indexes"),
    [
        ([0, 1], [0]),
        ([0], [64]),
        ([0], [-1]),
        ([32768], [0]),
        ([-32769], [0]),
        ([1 << 40], [0]),
        ([0.5], [0]),
        ([[0]], [[0]]),
    ],
)
def test_what_cannot_be_coded_is_refused(symbols: list[int], indexes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"symbol|index"):
        SymbolEncoder().push(np.array(symbols), np.array(indexes), GAUSSIANS)


def test_indexes_without_a_table_are_refused_when_reading() -> None:
    with pytest.raises(ValueError, match="tables"):
        SymbolDecoder(SymbolEncoder().finish()).pull(np.array([64]), GAUSSIANS)


def test_unsigned_indexes_work() -> None:
    encoder = SymbolEncoder()
    encoder.push(np.array([-3], np.int8), np.array([50], np.uint8), GAUSSIANS)
    assert SymbolDecoder(encoder.finish()).pull(np.array([50], np.uint8), GAUSSIANS).tolist() == [-3]


@pytest.mark.parametrize("length", [0, 4, 7, 9, 11])
def test_payloads_of_impossible_length_are_refused(length: int) -> None:
    with pytest.raises(BitstreamError, match="too few or not whole words"):
        SymbolDecoder(b"\x55" * length)


@pytest.mark.parametrize("state", [0, (1 << 31) - 1, 1 << 63, (1 << 64) - 1])
def test_states_that_no_encoder_leaves_are_refused(state: int) -> None:
    with pytest.raises(BitstreamError, match="not a stream"):
        SymbolDecoder(state.to_bytes(8, "little"))


def test_reading_past_the_end_is_noticed_soon() -> None:
    encoder = SymbolEncoder()
    encoder.push(np.arange(50), np.full(50, 40), GAUSSIANS)
    decoder = SymbolDecoder(encoder.finish())
    assert decoder.pull(np.full(50, 40), GAUSSIANS).tolist() == list(range(50))
    with pytest.raises(BitstreamError, match=r"too early|no meaning"):
        decoder.pull(np.full(10_000_000, 40), GAUSSIANS)


@pytest.mark.parametrize("fill", [0x00, 0x0F, 0x55, 0xF0, 0xFE])
@pytest.mark.parametrize("tables", TABLES)
def test_crafted_payloads_end_in_an_error(fill: int, tables: CdfTables) -> None:
    decoder = SymbolDecoder(bytes([fill]) * 4 + b"\xff\xff\xff\x7f" + bytes([fill]) * 60_000)
    with pytest.raises(BitstreamError):
        decoder.pull(np.zeros(4_000_000, np.int32), tables)


def test_endless_escape_lengths_are_refused_before_they_are_followed() -> None:
    # The reserved bin, then a length of millions of nibbles: compressai would read far beyond any padding.
    with pytest.raises(BitstreamError, match="not a stream"):
        SymbolDecoder(b"\xff" * 7 + b"\x7f" + b"\xff" * 1_000_000)


def test_the_longest_escape_length_let_through_stays_within_the_padding() -> None:
    decoder = SymbolDecoder(b"\xff" * 7 + b"\x7f" + b"\xff" * 4 * 63)
    with pytest.raises(BitstreamError, match="no meaning"):
        decoder.pull(np.zeros(8192, np.int32), GAUSSIANS)


@pytest.mark.parametrize(
    "codes", [[(32, 0, _CLASS_TABLES)], [(8, 0, _CLASS_TABLES), (256, 7, _BITS_TABLES)]], ids=["class", "bits"]
)
def test_an_escape_inside_an_escape_is_refused(codes: list[tuple[int, int, CdfTables]]) -> None:
    encoder = SymbolEncoder()
    for bin, index, tables in ((1, 0, ESCAPING), *codes):
        encoder._put(np.array([bin], np.int32), np.array([index], np.intp), tables)
    decoder = SymbolDecoder(encoder.finish())
    with pytest.raises(BitstreamError, match="an escape inside an escape"):
        decoder.pull(np.zeros(1, np.int32), ESCAPING)


@given(st.binary(min_size=8, max_size=400), st.integers(0, 2), st.integers(0, 63))
@settings(max_examples=200, deadline=None)
def test_random_payloads_give_symbols_in_range_or_an_error(data: bytes, which: int, index: int) -> None:
    tables = TABLES[which]
    indexes = np.full(300, index % len(tables), np.int32)
    try:
        decoder = SymbolDecoder(data)
        values = decoder.pull(indexes, tables)
    except BitstreamError:
        return
    assert len(values) == 300
    assert np.abs(values).max() <= 32768


def test_the_coder_loads_without_torch_and_beside_compressai() -> None:
    code = (
        "import sys, difficmh.range_coder as r; assert 'torch' not in sys.modules, 'torch'; r.SymbolEncoder().finish()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
