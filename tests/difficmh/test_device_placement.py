"""Both families on a GPU that is only pretended: no operation mixes tensors of it with tensors of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import difficmh
from difficmh.capsule import BUILT_IN
from difficmh.codec import Codec, DecodedStream
from difficmh.limits import Mode
from difficmh.refinement import Refinement, Window
from difficmh.symbols import Latents, decode_latents
from difficmh.taggers.efficientnet import EfficientNetTagger
from difficmh.taggers.ram import RamTagger
from difficmh.tiling import Rectangle, Tile
from tests.difficmh.pretended_gpu import pretended_gpu
from tests.difficmh.sd21.tiny_sd21 import make_tiny_sd21
from tests.difficmh.taggers import small_ram
from tests.difficmh.tiny_capsule import photograph

TAGS = {"lite": ["bus", "tree"], "sd21": ["moth", "Ant"]}
PICTURES = [photograph(70, 90, seed) for seed in range(2)]


class Zeros:
    """A stream of symbols that are all 0."""

    def pull(self, indexes: NDArray[np.int32], _tables: object) -> NDArray[np.int32]:
        return np.zeros(indexes.shape, np.int32)


@pytest.fixture(params=["lite", "sd21"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(family: str, tiny_capsule: Path, tmp_path: Path) -> Codec:
    """Loaded anew for each test, which uses it up."""
    return difficmh.load(tiny_capsule if family == "lite" else make_tiny_sd21(tmp_path))


@pytest.fixture
def streams(codec: Codec, family: str) -> list[DecodedStream]:
    return [codec.read(stream) for stream in codec.compress(PICTURES, tags=[TAGS[family], []])]


def networks(codec: Codec) -> list[nn.Module]:
    found: Any = codec.networks
    if hasattr(found, "model"):
        return [found.model]
    diffusion = found.diffusion()
    return [found.lfgcm, found.vae, diffusion.denoiser, diffusion.text]


def test_compression_stays_on_the_gpu(codec: Codec) -> None:
    with pretended_gpu(networks(codec)):
        assert codec.device.type == "cuda"
        first, second = codec.compress(PICTURES, tags=[[], []])
    assert len(first) == len(second) > 0


@pytest.mark.parametrize("how", [("preview", None), ("full", "ddim"), ("reference", None)], ids=str)
def test_pictures_are_drawn_on_the_gpu(codec: Codec, streams: list[DecodedStream], how: tuple[Mode, str]) -> None:
    mode, sampler = how
    with pretended_gpu(networks(codec)):
        pictures = codec.draw(streams, mode=mode, sampler=sampler)
    assert [(picture.shape, picture.device.type) for picture in pictures] == [((3, 70, 90), "cuda")] * 2


def test_streams_of_one_size_and_quality_are_read_together_on_the_gpu(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []

    def decode(*arguments: Any) -> Latents:
        together.append(len(arguments[-1]))
        found = decode_latents(*arguments)
        assert found.y_hat.device.type == found.z_symbols.device.type == "cuda"
        return found

    monkeypatch.setattr("difficmh.codec.decode_latents", decode)
    images = [*PICTURES, photograph(60, 64), *PICTURES]
    qualities = codec.qualities.start, codec.qualities.stop - 1
    with pretended_gpu(networks(codec)):
        made = [codec.compress(images, quality=quality, tags=[[]] * 5) for quality in qualities]
        found = codec.read_all([*made[0], *made[1]])
    assert sorted(together) == ([1, 1, 4, 4] if len(codec.qualities) > 1 else [2, 8])
    assert all(one.latents.y_hat.device.type == one.latents.z_symbols.device.type == "cpu" for one in found)


def test_latents_are_read_on_the_gpu(codec: Codec) -> None:
    with pretended_gpu(networks(codec)), torch.inference_mode():
        found = decode_latents(codec.networks.entropy, codec.tables, (2, 3), 0, [Zeros(), Zeros()])  # type: ignore[list-item]
    assert found.y_hat.device.type == found.z_symbols.device.type == "cuda"


def test_the_cost_that_effort_minimises_is_counted_on_the_gpu(tiny_capsule: Path) -> None:
    networks: Any = difficmh.load(tiny_capsule).networks
    whole = Rectangle(0, 0, 192, 192)
    with pretended_gpu([networks.model]), torch.no_grad():
        images, quality = torch.empty(2, 3, 192, 192, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
        y = networks.model.g_a(images, quality)
        window = Window(images, y, networks.model.h_a(y), quality)
        cost = Refinement(networks.model, window, Tile(whole, whole)).cost(y)
    assert (cost.shape, cost.device.type) == ((2,), "cuda")


@pytest.mark.parametrize(
    "make",
    [lambda: EfficientNetTagger(BUILT_IN / "lite"), lambda: RamTagger(small_ram.random_network(), small_ram.TAGS)],
)
def test_pictures_are_tagged_on_the_gpu(make: Callable[[], Any]) -> None:
    tagger = make()
    with pretended_gpu(part for part in vars(tagger).values() if isinstance(part, nn.Module)):
        tagger.device = torch.device("cuda")
        scores = tagger.scores(PICTURES)
    assert (len(scores), scores.device.type) == (2, "cpu")


def test_a_tensor_left_behind_would_be_noticed(codec: Codec) -> None:
    moved = networks(codec)
    layer = next(module for module in moved[0].modules() if hasattr(module, "integer_bias"))
    with pretended_gpu(moved):
        layer.integer_bias = torch.empty_like(layer.integer_bias, device="cpu")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match=r"cuda.*cpu|cpu.*cuda"):
            codec.compress(PICTURES, tags=[[], []])
