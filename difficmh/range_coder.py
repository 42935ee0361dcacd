"""Symbols to bytes and back: one rANS stream per image, checked at every step.

compressai's C++ coder does the arithmetic. It trusts its caller (a flush of fewer than four symbols writes outside its
buffer) and its input (the decoder reads past the end and follows escape codes of any length). So everything it is given
is checked here, values outside a table are escaped by a code of our own, and the decoder keeps account of the bits that
it used.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import struct
import sys
import zlib
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difficmh.cdf_tables import INT16, TOTAL, CdfTables, tables_from_counts
from difficmh.errors import BitstreamError

Integers = NDArray[np.integer[Any]]
Int32 = NDArray[np.int32]

_FIRST_STATE, _STATE_LIMIT, _STATE_BYTES = 1 << 31, 1 << 63, 8
_MIN_SYMBOLS = 4
"""compressai's flush has one word per symbol, but needs up to two more than one per two symbols."""

_CHUNK = 8192
"""Symbols between two looks at the account."""

_MAX_ONES_WORDS = 64
_PADDING = bytes(_CHUNK * 160 + _MAX_ONES_WORDS * 64 + (1 << 16))
"""Zeros after the stream: more than one chunk of symbols can read beyond its end before the account is checked.

A symbol reads 16 bits at most. A crafted one can enter compressai's escape code, whose length field is a run of nibbles
of value 15, each worth 15 nibbles of data. Such a run takes up to 8 nibbles from the state, 7 from the word after and 8
from each word of 32 ones between them, and there are no such words in the padding: 16 bits + 16 nibbles + 239 nibbles
(< 160 bytes) per symbol, and 60 bytes per word of ones in the stream. The last term covers the account's tolerance.
"""

_SLACK_BITS = 8.0
"""Bits by which the account may be overdrawn before a stream counts as ended."""

_DRIFT_BITS = 1e-4
"""Twice what a step can differ from its ideal cost: the state has 15 bits beyond a table's 16 or more."""

_PAD_TABLES = tables_from_counts([[TOTAL - 2, 1]], [0])
_CLASS_COUNTS = [(1 << 14) - 2, *(max(1, 1 << 14 >> c) for c in range(1, 16))]
_CLASS_TABLES = tables_from_counts([[*_CLASS_COUNTS, *_CLASS_COUNTS, 3]], [0])
_BITS_TABLES = tables_from_counts(
    [[(TOTAL - 2) >> n] * (1 << n) + [TOTAL - 1 - ((TOTAL - 2) >> n << n)] for n in range(1, 9)], [0] * 8
)
"""How a value outside its table is written after the others of its push (`docs/bitstream.md`, "Escapes")."""


def _load_rans() -> ModuleType:
    """compressai's coder without the rest of compressai, whose import takes torch and many seconds."""
    loaded = sys.modules.get("compressai.ans")
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec("compressai")
    places = package.submodule_search_locations if package else None
    spec = importlib.machinery.PathFinder.find_spec("compressai.ans", places)
    if spec is None or spec.loader is None:
        raise ImportError("compressai's rANS coder, compressai.ans, is not installed")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # So that a later ordinary import also sets the package's attribute. It gets the same types from the same library.
    sys.modules.pop("compressai.ans", None)
    return module


_rans = _load_rans()


class _Checksum:
    """CRC-32 over all symbols in order, as 16-bit little-endian integers; 24 bits of it are kept."""

    def __init__(self) -> None:
        self._crc = 0

    @property
    def checksum(self) -> int:
        """Of all symbols so far, 24 bits."""
        return self._crc & 0xFFFFFF

    def _add(self, symbols: Int32) -> None:
        self._crc = zlib.crc32(symbols.astype("<i2").tobytes(), self._crc)


class SymbolEncoder(_Checksum):
    """Collects symbols, then writes them as one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = _rans.BufferedRansEncoder()
        self._count = 0

    def push(self, symbols: Integers, indexes: Integers, tables: CdfTables) -> None:
        """Appends `symbols` `(n,)`, each coded with the table of the same place in `indexes` `(n,)`.

        Any value of the 16-bit range can be coded; what its table does not hold costs about 16 bits more. Raises
        ValueError for shapes that differ, values beyond 16 bits and indexes without a table.
        """
        index = _checked_indexes(indexes, tables)
        given = _one_dimensional(symbols, "symbols")
        if given.shape != index.shape:
            raise ValueError(f"{len(given)} symbols do not fit {len(index)} indexes")
        if len(given) == 0:
            return
        if given.min() < INT16.min or given.max() > INT16.max:
            raise ValueError("a symbol lies outside the 16-bit range")
        values: Int32 = given.astype(np.int32)
        bins, sizes = values - tables.offsets[index], tables.sizes[index]
        escaped = np.flatnonzero((bins < 0) | (bins >= sizes))
        below, above = bins[escaped], bins[escaped] - sizes[escaped] + 1
        bins[escaped] = sizes[escaped]
        self._put(bins, index, tables)
        if len(escaped):
            self._put_escapes(np.where(below < 0, below, above))
        self._add(values)

    def finish(self) -> bytes:
        """The stream of everything pushed: at least 8 bytes, a multiple of 4. Leaves the encoder without symbols.

        Raises ValueError for a stream that no decoder accepts, which takes symbols chosen for that purpose.
        """
        while self._count < _MIN_SYMBOLS:
            self._put(np.zeros(1, np.int32), np.zeros(1, np.intp), _PAD_TABLES)
        self._count = 0
        payload: bytes = self._encoder.flush()
        if _ones_words(payload) > _MAX_ONES_WORDS:
            raise ValueError("these symbols make a stream with too many words of ones")
        return payload

    def _put(self, bins: Int32, index: NDArray[np.intp], tables: CdfTables) -> None:
        top = int(index.max()) + 1
        lists, lengths = tables.cdf_lists[:top], tables.length_list[:top]
        self._encoder.encode_with_indexes(bins.tolist(), index.tolist(), lists, lengths, [0] * top)
        self._count += len(bins)

    def _put_escapes(self, distances: Int32) -> None:
        size = np.abs(distances)
        width = np.frexp(size)[1].astype(np.int32) - 1
        rest = size - (1 << width)
        self._put(width + 16 * (distances < 0), np.zeros(len(size), np.intp), _CLASS_TABLES)
        for shift in (0, 8):
            bits = np.clip(width - shift, 0, 8)
            some = bits > 0
            if some.any():
                self._put((rest[some] >> shift) & 0xFF, (bits[some] - 1).astype(np.intp), _BITS_TABLES)


class SymbolDecoder(_Checksum):
    """Reads the symbols of a stream in the order in which they were pushed, in the same pushes.

    Raises BitstreamError, here or when symbols are pulled, for bytes that are no such stream. Damage may also go
    unnoticed and give other symbols: compare `checksum` once all are read.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        if len(payload) < _STATE_BYTES or len(payload) % 4:
            raise BitstreamError(f"damaged: {len(payload)} bytes of coded symbols are too few or not whole words")
        (state,) = struct.unpack_from("<Q", payload)
        if not _FIRST_STATE <= state < _STATE_LIMIT or _ones_words(payload) > _MAX_ONES_WORDS:
            raise BitstreamError("damaged: the coded symbols are not a stream of this coder")
        self._bits_left = math.log2(state) - math.log2(_FIRST_STATE) + 8 * (len(payload) - _STATE_BYTES)
        self._decoder = _rans.RansDecoder()
        self._decoder.set_stream(payload + _PADDING)

    def pull(self, indexes: Integers, tables: CdfTables) -> Int32:
        """The next symbols, `(n,)` int32 within 16 bits, coded with the tables that `indexes` `(n,)` names.

        Raises BitstreamError where the stream holds no such symbols, ValueError for indexes without a table.
        """
        index = _checked_indexes(indexes, tables)
        if len(index) == 0:
            return np.zeros(0, np.int32)
        bins = self._take(index, tables)
        values = bins + tables.offsets[index]
        escaped = np.flatnonzero(bins == tables.sizes[index])
        if len(escaped):
            distances = self._take_escapes(len(escaped))
            values[escaped] += np.where(distances < 0, distances - bins[escaped], distances - 1)
            if values.min() < INT16.min or values.max() > INT16.max:
                raise BitstreamError("damaged: a symbol lies outside the 16-bit range")
        self._add(values)
        return values

    def _take(self, index: NDArray[np.intp], tables: CdfTables) -> Int32:
        parts = [self._take_chunk(index[at : at + _CHUNK], tables) for at in range(0, len(index), _CHUNK)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _take_chunk(self, index: NDArray[np.intp], tables: CdfTables) -> Int32:
        """Bin numbers; the escape bin is one of them."""
        top = int(index.max()) + 1
        lists, lengths = tables.cdf_lists[:top], tables.length_list[:top]
        output = self._decoder.decode_stream(index.tolist(), lists, lengths, [0] * top)
        # struct converts a list of small integers twice as fast as numpy.
        bins = np.frombuffer(struct.pack(f"={len(output)}i", *output), np.int32)
        if bins.min() < 0 or (bins > tables.sizes[index]).any():
            raise BitstreamError("damaged: the coded symbols use a code that has no meaning")
        cost = float(tables.bits[tables.starts[index] + bins].sum(dtype=np.float64))
        self._bits_left -= cost - _DRIFT_BITS * len(bins)
        if self._bits_left < -_SLACK_BITS:
            raise BitstreamError("damaged: the coded symbols end too early")
        return bins

    def _take_escapes(self, count: int) -> Int32:
        codes = self._take_plain(np.zeros(count, np.intp), _CLASS_TABLES)
        width = codes & 15
        rest = np.zeros(count, np.int32)
        for shift in (0, 8):
            bits = np.clip(width - shift, 0, 8)
            some = np.flatnonzero(bits)
            if len(some):
                rest[some] |= self._take_plain((bits[some] - 1).astype(np.intp), _BITS_TABLES) << shift
        size = (1 << width) + rest
        return np.where(codes < 16, size, -size)

    def _take_plain(self, index: NDArray[np.intp], tables: CdfTables) -> Int32:
        bins = self._take(index, tables)
        if (bins == tables.sizes[index]).any():
            raise BitstreamError("damaged: an escape inside an escape")
        return bins


def _one_dimensional(array: Integers, name: str) -> Integers:
    array = np.asarray(array)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be a one-dimensional integer array, not {array.dtype} with shape {array.shape}")
    return array


def _checked_indexes(indexes: Integers, tables: CdfTables) -> NDArray[np.intp]:
    index = _one_dimensional(indexes, "indexes").astype(np.intp)
    if len(index) and (index.min() < 0 or index.max() >= len(tables)):
        raise ValueError(f"an index names none of the {len(tables)} tables")
    return index


def _ones_words(payload: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(payload, "<u4") == 0xFFFFFFFF))
