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
from difficmh.sd21.official_decoding import decode_official
from difficmh.surroundings import Tf32Settings, in_full_float32, in_plain_precision, while_making_networks
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


CUDA = torch.device("cuda")
CONVOLUTIONS = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch declares no such attribute


def set_float32_products(precision: str) -> Callable[[], None]:
    return lambda: torch.set_float32_matmul_precision(precision)


def set_newer(owner: object, precision: str) -> Callable[[], None]:
    return lambda: setattr(owner, "fp32_precision", precision)


PROGRAMS: dict[str, Callable[[], None]] = {
    "torch's own": lambda: None,
    "products high": set_float32_products("high"),
    "products medium": set_float32_products("medium"),
    "no TF32 in convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "TF32 in products": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "newer, convolutions": set_newer(CONVOLUTIONS, "ieee"),
    "newer, products": set_newer(torch.backends.cuda.matmul, "tf32"),
    "newer, everything": set_newer(torch.backends, "tf32"),
}
"""What a program may have set before it uses a codec."""


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Iterator[Tf32Settings]:
    everywhere, before = torch.backends.fp32_precision, Tf32Settings.read()
    PROGRAMS[request.param]()
    yield Tf32Settings.read()
    torch.backends.fp32_precision = everywhere
    before.apply()


def rounded() -> list[str]:
    """What float32 is rounded to in convolutions and in products."""
    return [CONVOLUTIONS.fp32_precision, torch.backends.cuda.matmul.fp32_precision]


class OnGpu:
    """What looks as if it computed on a GPU."""

    device = CUDA

    @in_plain_precision
    def run(self) -> list[str]:
        with in_full_float32(CUDA):  # a codec calls its tagger
            pass
        return rounded()

    @in_plain_precision
    def fail(self) -> None:
        raise KeyError


def test_no_tf32_on_a_gpu_and_the_programs_settings_after(program: Tf32Settings) -> None:
    assert OnGpu().run() == ["ieee", "ieee"]
    assert Tf32Settings.read() == program
    with pytest.raises(KeyError):
        OnGpu().fail()
    assert Tf32Settings.read() == program


def test_compilers_can_read_the_older_settings_within() -> None:
    with in_full_float32(CUDA):
        assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_cpu_leaves_the_settings_of_gpus() -> None:
    before = rounded()
    with in_full_float32(torch.device("cpu")):
        assert rounded() == before


def test_threads_that_enter_at_once_leave_what_the_program_had(program: Tf32Settings) -> None:
    second_is_within, first_has_left = threading.Event(), threading.Event()

    def first() -> None:
        with in_full_float32(CUDA):
            assert second_is_within.wait(10)
        first_has_left.set()

    def second() -> list[str]:
        with in_full_float32(CUDA):
            second_is_within.set()
            assert first_has_left.wait(10)
            return rounded()

    with ThreadPoolExecutor() as pool:
        done = [pool.submit(first), pool.submit(second)]
        assert done[1].result() == ["ieee", "ieee"]
        done[0].result()
    assert Tf32Settings.read() == program


def test_official_files_are_read_without_tf32() -> None:
    class Seen(Exception):
        pass

    class OfficialCodec:
        device = CUDA

        @property
        def networks(self) -> object:
            raise Seen(rounded())

    with pytest.raises(Seen, match="'ieee', 'ieee'"):
        decode_official(OfficialCodec(), b"")  # type: ignore[arg-type]
