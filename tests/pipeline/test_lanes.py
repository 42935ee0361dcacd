"""Order, sharing of cores and errors of images that are worked on side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch

from pipeline.attempts import WorkerContext
from pipeline.lanes import Lanes


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_results_are_in_order(device: str, threads: int) -> None:
    with Lanes(WorkerContext(device, threads)) as lanes:
        assert lanes.map(doubled, range(20)) == list(range(0, 40, 2))
        assert lanes.map(doubled, []) == []


def test_a_gpu_gets_the_whole_batch() -> None:
    with Lanes(WorkerContext("cuda", 4)) as lanes:
        assert lanes.map(lambda items: [len(items)] * len(items), [1, 2, 3]) == [3, 3, 3]


def test_images_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def work(items: Sequence[int]) -> list[int]:
        both.wait(timeout=30)
        return list(items)

    with Lanes(WorkerContext("cpu", 2)) as lanes:
        assert lanes.map(work, [1, 2]) == [1, 2]


def test_a_lane_keeps_to_one_core_and_a_single_image_has_all() -> None:
    def cores(items: Sequence[int]) -> list[int]:
        return [torch.get_num_threads() for _ in items]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with Lanes(WorkerContext("cpu", 2)) as lanes:
            assert lanes.map(cores, [1, 2, 3]) == [1, 1, 1]
            assert lanes.map(cores, [1]) == [2]
    finally:
        torch.set_num_threads(before)


def test_an_error_reaches_the_caller() -> None:
    def work(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise ValueError("image 2")
        return list(items)

    with Lanes(WorkerContext("cpu", 2)) as lanes, pytest.raises(ValueError, match="image 2"):
        lanes.map(work, [1, 2, 3])
