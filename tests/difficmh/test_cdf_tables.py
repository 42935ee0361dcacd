import math

import numpy as np
import pytest

from difficmh.cdf_tables import GAUSSIAN_SCALES, CdfTables, gaussian_tables, tables_from_counts, tables_from_pmf


def counts(tables: CdfTables, index: int) -> list[int]:
    return np.diff(tables.cdf_lists[index]).tolist()


def test_counts_become_cumulative_with_a_reserved_bin_at_the_end() -> None:
    tables = tables_from_counts([[65533, 1, 1], [65000, 535]], [-1, 7])
    assert tables.cdf_lists == [[0, 65533, 65534, 65535, 65536], [0, 65000, 65535, 65536]]
    assert tables.lengths.tolist() == [5, 4]
    assert tables.sizes.tolist() == [2, 1]
    assert tables.starts.tolist() == [0, 5]


def test_tables_survive_storage_as_integer_arrays() -> None:
    tables = gaussian_tables()
    again = CdfTables(tables.cdfs.copy(), tables.lengths.astype(np.int64), tables.offsets.astype(np.int16))
    assert again.cdf_lists == tables.cdf_lists
    assert again.offsets.dtype == np.int32


@pytest.mark.parametrize(
    ("cdfs", "lengths", "offsets"),
    [
        ([0, 1, 65535, 65536], [4], [0, 0]),
        ([0, 1, 65535, 65536], [3], [0]),
        ([0, 65535, 65536], [3], [0]),
        ([1, 2, 65535, 65536], [4], [0]),
        ([0, 1, 65534, 65536], [4], [0]),
        ([0, 5, 65535, 65535], [4], [0]),
        ([0, 5, 5, 65535, 65536], [5], [0]),
        ([0, 70000, 65535, 65536], [4], [0]),
        ([0, 1, 65535, 65536], [4], [-32769]),
        ([0, 1, 65535, 65536], [4], [32768]),
        ([0, 1, 65535, 65536 + (1 << 32)], [4], [0]),
        ([0.0, 1.0, 65535.0, 65536.0], [4], [0]),
        ([[0, 1, 65535, 65536]], [4], [0]),
        ([], [], []),
        ([0, 1, 65535, 65536], [-4], [0]),
        ([*range(8194), 65535, 65536], [8196], [0]),
    ],
)
def test_arrays_that_are_no_tables_are_refused(cdfs: list[int], lengths: list[int], offsets: list[int]) -> None:
    with pytest.raises(ValueError, match=r"table|integer|32 bits"):
        CdfTables(np.array(cdfs), np.array(lengths, np.int64), np.array(offsets, np.int64))


def test_tables_cannot_be_changed_behind_their_back() -> None:
    cdfs = np.array([0, 9, 65535, 65536], np.int32)
    tables = CdfTables(cdfs, np.array([4]), np.array([0]))
    cdfs[1] = 0
    assert tables.cdfs[1] == 9
    with pytest.raises(ValueError, match="read-only"):
        tables.cdfs[1] = 0


def test_probabilities_are_kept_to_a_count() -> None:
    tables = tables_from_pmf([np.array([0.5, 0.25, 0.125])], [3])
    got = counts(tables, 0)
    assert sum(got) == 65536
    assert got[-1] == 1
    assert np.abs(np.array(got[:-1]) - 65535 * np.array([0.5, 0.25, 0.125, 0.125])).max() <= 1


def test_impossible_values_keep_one_count() -> None:
    assert counts(tables_from_pmf([np.array([0.0, 1.0, 0.0])], [0]), 0) == [1, 65532, 1, 1, 1]


def test_many_rare_values_do_not_spoil_the_common_ones() -> None:
    pmf = np.full(5000, 1e-9)
    pmf[0] = 1 - pmf[1:].sum()
    assert counts(tables_from_pmf([pmf], [0]), 0)[0] == 65535 - 5000


@pytest.mark.parametrize("pmf", [[], [-0.1, 1.0], [0.7, 0.7], [math.nan, 0.5], [math.inf], [[0.5]], [1e-6] * 9000])
def test_what_is_no_distribution_is_refused(pmf: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        tables_from_pmf([np.array(pmf)], [0])


def test_gaussian_tables_cover_the_scales() -> None:
    tables = gaussian_tables()
    assert len(tables) == len(GAUSSIAN_SCALES) == 64
    assert GAUSSIAN_SCALES[0] == pytest.approx(0.11)
    assert GAUSSIAN_SCALES[-1] == pytest.approx(256)
    assert (tables.sizes == 1 - 2 * tables.offsets).all()
    assert tables.offsets.max() == -1
    assert tables.offsets.min() >= -2048


@pytest.mark.parametrize("index", [0, 12, 40, 63])
def test_gaussian_tables_cost_little_more_than_the_entropy(index: int) -> None:
    tables, scale = gaussian_tables(), GAUSSIAN_SCALES[index]
    reach = -int(tables.offsets[index])
    values = np.arange(-reach, reach + 1)
    edges = [math.erf((k - 0.5) / scale / math.sqrt(2)) / 2 for k in [*values.tolist(), reach + 1]]
    pmf = np.diff(edges)
    ideal = -(pmf * np.log2(np.maximum(pmf, 1e-300))).sum()
    start = tables.starts[index]
    assert 0 <= (pmf * tables.bits[start : start + len(pmf)]).sum() - ideal < 0.03


def test_gaussian_tables_never_change() -> None:
    tables = gaussian_tables([0.11, 1.0, 4.0])
    assert counts(tables, 1) == [1, 15, 392, 3971, 15841, 25094, 15841, 3971, 392, 15, 1, 1, 1]
    assert tables.lengths.tolist() == [6, 14, 44]
