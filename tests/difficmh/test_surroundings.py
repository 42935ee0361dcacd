"""Whatever a program has set in torch, a codec loads, codes and draws the same, and sets nothing itself."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import difficmh
from difficmh.codec import Codec
from difficmh.surroundings import while_making_networks
from tests.corpora import picture
from tests.difficmh.sd21.tiny_sd21 import make_tiny_sd21

PICTURE = picture(1, 72, 90)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float16": lambda: default_dtype(torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "default device": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module", params=["lite", "tiny", "sd21"])
def capsule(request: pytest.FixtureRequest, tiny_capsule: Path, tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    if request.param == "lite":
        return "lite"
    return tiny_capsule if request.param == "tiny" else make_tiny_sd21(tmp_path_factory.mktemp("sd21"))


def everything(codec: Codec, tags: list[list[str]] | None) -> tuple[bytes, Tensor, list[Tensor]]:
    effort = min(2, codec.networks.max_effort)
    (stream,) = codec.compress([PICTURE], tags=tags, effort=effort)
    drawn = [codec.decompress([stream], mode=mode, steps=steps)[0] for mode, steps in (("preview", None), ("full", 2))]
    return stream, codec.read(stream).latents.y_hat, drawn


@pytest.mark.parametrize("place", ["loading", "using"])
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_nothing_depends_on_the_settings_of_the_program(capsule: str | Path, name: str, place: str) -> None:
    tags = None if capsule == "lite" else [[]]  # lite's own tagger is made at the first picture
    expected = everything(difficmh.load(capsule), tags)
    with SURROUNDINGS[name]() if place == "loading" else nullcontext():
        codec = difficmh.load(capsule)
    with SURROUNDINGS[name]() if place == "using" else nullcontext():
        stream, y_hat, drawn = everything(codec, tags)
    assert stream == expected[0]
    torch.testing.assert_close(y_hat, expected[1], rtol=0, atol=0)
    torch.testing.assert_close(drawn, expected[2], rtol=0, atol=0)


def test_random_numbers_of_the_program_stay_what_they_were(capsule: str | Path) -> None:
    def state() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = state()
    everything(difficmh.load(capsule), None if capsule == "lite" else [[]])
    assert state() == before


def test_threads_that_load_at_once_leave_the_default_dtype(tiny_capsule: Path) -> None:
    first_is_within, second_is_within, first_has_left = (threading.Event() for _ in range(3))

    def first() -> None:
        with while_making_networks():
            first_is_within.set()
            second_is_within.wait(0.5)  # in vain, where the other has to wait
        first_has_left.set()

    def second() -> None:
        first_is_within.wait()
        with while_making_networks():
            second_is_within.set()
            first_has_left.wait()  # or else the first would put right what the second leaves

    with default_dtype(torch.bfloat16), ThreadPoolExecutor() as pool:
        for done in (pool.submit(first), pool.submit(second)):
            done.result()
        assert torch.get_default_dtype() is torch.bfloat16
