"""Sizes of workers for clusters of several machines, which are only described here."""

from __future__ import annotations

from typing import Literal

import pytest

from pipeline.actors import PoolSize, pool_size
from pipeline.errors import JobError

Node = dict[str, float]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The machines that Ray tells of; a test fills it. One more has died."""
    nodes: list[Node] = []
    dead = {"Alive": False, "Resources": {"CPU": 128.0, "GPU": 8.0}}
    monkeypatch.setattr(
        "pipeline.actors.ray.nodes", lambda: [dead, *({"Alive": True, "Resources": node} for node in nodes)]
    )
    return nodes


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 64, "GPU": 8}], PoolSize(8, 8, 1.0)),
        ([{"CPU": 16, "GPU": 1}], PoolSize(1, 8, 1.0)),
        ([{"CPU": 4, "GPU": 1}, {"CPU": 96, "GPU": 8}], PoolSize(9, 4, 1.0)),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 64, "GPU": 1}], PoolSize(5, 2, 1.0)),
        ([{"CPU": 4, "GPU": 8}], PoolSize(8, 0.5, 1.0)),
        ([{"CPU": 8}] * 4, PoolSize(16, 2)),
        ([{}], PoolSize(1, 1)),
        ([], PoolSize(1, 1)),
    ],
)
def test_one_worker_per_gpu_or_two_cores(cluster: list[Node], nodes: list[Node], expected: PoolSize) -> None:
    cluster += nodes
    assert pool_size("auto", 100) == expected


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ([7, 7], "auto", PoolSize(6, 2)),
        ([5, 5, 5, 5], "auto", PoolSize(8, 2)),
        ([1, 1, 1], "auto", PoolSize(3, 1)),
        ([8, 8], 3, PoolSize(3, 4)),
        ([8, 2], 2, PoolSize(2, 4)),
        ([8, 8], 20, PoolSize(20, 1)),
    ],
)
def test_every_worker_finds_room_on_a_machine(
    cluster: list[Node], cores: list[int], workers: int | Literal["auto"], expected: PoolSize
) -> None:
    cluster += [{"CPU": each} for each in cores]
    assert pool_size(workers, 100) == expected


@pytest.mark.parametrize("workers", ["auto", 1, 2])
def test_no_worker_asks_for_more_cores_than_a_machine_has(cluster: list[Node], workers: int) -> None:
    cluster += [{"CPU": 8}, {"CPU": 4}, {"CPU": 8}, {"CPU": 8}]
    assert pool_size(workers, 1) == PoolSize(1, 8)


def test_machines_without_what_a_worker_needs_do_not_count(cluster: list[Node]) -> None:
    cluster += [{"CPU": 64}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}, {"GPU": 8}]
    assert pool_size("auto", 100) == PoolSize(2, 4, 1.0)
    assert pool_size("auto", 1) == PoolSize(1, 4, 1.0)


def test_more_workers_than_gpus_share_them(cluster: list[Node]) -> None:
    cluster += [{"CPU": 16, "GPU": 2}]
    assert pool_size(4, 100) == PoolSize(4, 4, 0.5)
    assert pool_size(3, 100) == PoolSize(3, 4, 0.5)
    assert pool_size(64, 100) == PoolSize(64, 0.25, 1 / 32)


def test_a_device_that_is_asked_for(cluster: list[Node]) -> None:
    cluster += [{"CPU": 8, "GPU": 1}, {"CPU": 8}]
    assert pool_size("auto", 100, "cuda") == PoolSize(1, 8, 1.0)
    assert pool_size("auto", 100, "cpu") == PoolSize(8, 2)
    cluster.pop(0)
    with pytest.raises(JobError, match="no machine with a GPU"):
        pool_size("auto", 100, "cuda")
