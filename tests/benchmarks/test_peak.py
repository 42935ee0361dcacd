from __future__ import annotations

import gc
import mmap
import sys

import pytest
import torch

from benchmarks.peak import CLEAR, peak_bytes, reset_peak

CPU = torch.device("cpu")
MANY = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_the_peak_is_that_of_the_stretch() -> None:
    gc.collect()  # nothing that earlier tests left is to go meanwhile
    reset_peak(CPU)
    before = peak_bytes(CPU)
    with mmap.mmap(-1, MANY) as block:  # pages of its own: an allocator may have some left that are resident already
        for place in range(0, MANY, mmap.PAGESIZE):
            block[place] = 1
    assert peak_bytes(CPU) > before + MANY // 2
    if CLEAR.exists():
        reset_peak(CPU)
        assert peak_bytes(CPU) < before + MANY // 2
