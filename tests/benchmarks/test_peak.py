from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.peak import CLEAR, peak_bytes, reset_peak

CPU = torch.device("cpu")
MANY = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_the_peak_is_that_of_the_stretch() -> None:
    reset_peak(CPU)
    before = peak_bytes(CPU)
    torch.ones(MANY // 4)
    assert peak_bytes(CPU) > before + MANY // 2
    if CLEAR.exists():
        reset_peak(CPU)
        assert peak_bytes(CPU) < before + MANY // 2
