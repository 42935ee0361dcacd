"""Counting what tensors are alive at once: storages once each, until they are released, with and without content."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.live_bytes import LiveBytes

KILOBYTE = 256
"""Values of float32."""


def test_storages_count_once_and_until_they_are_released() -> None:
    with LiveBytes("cpu") as live:
        first = torch.zeros(KILOBYTE)
        view = first.reshape(16, 16)[4:]
        assert live.now == 1024
        second = view + 1
        assert (live.now, live.peak) == (1024 + 1024, 2048)
        del first
        assert live.now == 2048  # the view still holds it
        del view
        assert (live.now, live.peak) == (1024, 2048)
        live.reset_peak()
        second.add_(1)
    assert live.peak == 1024


def test_sizes_are_those_of_the_allocator() -> None:
    with LiveBytes("cpu") as live:
        held = torch.zeros(1), torch.zeros(513, dtype=torch.uint8)
    assert live.now == 512 + 1024
    del held
    assert live.now == 0


def test_other_devices_do_not_count() -> None:
    with LiveBytes("cuda") as live:
        torch.zeros(KILOBYTE)
    assert live.peak == 0


def test_a_device_that_is_not_there_is_counted_without_being_used() -> None:
    with FakeTensorMode(), LiveBytes("cuda") as live:
        x = torch.randn(1, 8, 1024, 64, device="cuda")
        y = torch.nn.functional.conv2d(x, torch.randn(16, 8, 1, 1, device="cuda"))
    assert y.shape == (1, 16, 1024, 64)
    assert live.now == x.nbytes + y.nbytes


def test_fused_attention_stores_no_weights() -> None:
    with FakeTensorMode(), torch.inference_mode(), LiveBytes("cuda") as live:
        x = torch.randn(1, 8, 4096, 64, device="cuda")
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
    weights = 8 * 4096 * 4096 * 4
    assert live.peak < weights / 20
