"""Tables go into a capsule and come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from difficmh.capsule import TABLES
from difficmh.errors import CapsuleError
from difficmh.sd21.official_coding import bottleneck_tables, gaussian_tables
from difficmh.sd21.tables import PARTS, capsule_tables, coding_tables, load_official_tables
from difficmh.zoo import load_tables
from tests.difficmh.sd21.tiny_lfgcm import tiny_lfgcm


def test_all_tables_come_back(tmp_path: Path) -> None:
    model = tiny_lfgcm()
    save_file(capsule_tables(model), tmp_path / TABLES)
    ours, official = load_tables(tmp_path), load_official_tables(tmp_path)
    pairs = (
        (ours.z, coding_tables(model).z),
        (ours.y, coding_tables(model).y),
        (official.z, bottleneck_tables(model.entropy_bottleneck)),
        (official.y, gaussian_tables()),
    )
    for found, made in pairs:
        assert all(np.array_equal(getattr(found, part), getattr(made, part)) for part in PARTS)


@pytest.mark.parametrize("spoiled", ["official.z.cdfs", "official.y.offsets"])
def test_no_official_tables(tmp_path: Path, spoiled: str) -> None:
    arrays = capsule_tables(tiny_lfgcm())
    save_file({name: array for name, array in arrays.items() if name != spoiled}, tmp_path / TABLES)
    with pytest.raises(CapsuleError, match="official"):
        load_official_tables(tmp_path)
    save_file({**arrays, spoiled: arrays[spoiled][:0]}, tmp_path / TABLES)
    with pytest.raises(CapsuleError, match="official"):
        load_official_tables(tmp_path)
