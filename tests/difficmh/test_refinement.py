"""Effort of the encoder: cheaper streams for the same picture, symbols of cores only, nothing for decoders to know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianConditional
from numpy.typing import NDArray
from torch import Tensor

import difficmh
from benchmarks.images import benchmark_images
from difficmh.codec import Codec
from difficmh.entropy_model import EntropyOutput
from difficmh.lite import LiteNetworks
from difficmh.refinement import Refinement, Window, estimated_bits, mixed_distortion, parts
from difficmh.tiling import Y_STRIDE, tiles
from tests.difficmh.tiny_capsule import photograph


def as_batch(*images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def networks(codec: Codec) -> LiteNetworks:
    assert isinstance(codec.networks, LiteNetworks)
    return codec.networks


def cost_of_stream(codec: Codec, image: NDArray[np.uint8], stream: bytes, quality: int) -> float:
    """What lambda makes of the stream's own bits and the distortion of its preview."""
    (preview,) = codec.decompress([stream], mode="preview")
    weight = networks(codec).model.config.lambdas[quality - 1]
    height, width, _ = image.shape
    return 8 * len(stream) / (height * width) + weight * float(mixed_distortion(preview[None], as_batch(image)))


@pytest.mark.parametrize("size", [(192, 192), (128, 320)], ids=["with MS-SSIM", "too small for it"])
@pytest.mark.parametrize("quality", [2, 5])
def test_effort_makes_streams_cheaper(lite: Codec, size: tuple[int, int], quality: int) -> None:
    height, width = size
    image = benchmark_images(2)[1][160 : 160 + height, 128 : 128 + width]
    costs = []
    for effort in (0, 6):
        (stream,) = lite.compress([image], quality=quality, tags=[[]], effort=effort)
        costs.append(cost_of_stream(lite, image, stream, quality))
    assert costs[1] < 0.995 * costs[0]


def test_neighbours_do_not_change_a_refined_stream(tiny_codec: Codec) -> None:
    images = [photograph(64, 128, seed) for seed in range(3)]
    together = tiny_codec.compress(images, quality=4, tags=[[]] * 3, effort=3)
    assert together == [tiny_codec.compress([image], quality=4, tags=[[]], effort=3)[0] for image in images]
    assert together != tiny_codec.compress(images, quality=4, tags=[[]] * 3)


def test_images_of_a_batch_are_refined_each_for_itself(tiny_codec: Codec) -> None:
    model, quality = networks(tiny_codec).model, torch.tensor([3, 3])
    images = as_batch(photograph(128, 128, 1), photograph(128, 128, 2))
    (tile,) = tiles(128, 128, 2048, 0)
    with torch.no_grad():
        y = model.g_a(images, quality)
        z = model.h_a(y)
    both = Refinement(model, Window(images, y, z, quality), tile).run(4)
    for one in range(2):
        part = slice(one, one + 1)
        alone = Refinement(model, Window(images[part], y[part], z[part], quality[part]), tile).run(4)
        torch.testing.assert_close(both[part], alone, rtol=0, atol=1e-3)


def test_no_step_and_no_better_step_leave_y_as_it_came(tiny_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    model, quality = networks(tiny_codec).model, torch.tensor([2])
    images = as_batch(photograph(64, 64))
    (tile,) = tiles(64, 64, 2048, 0)
    with torch.no_grad():
        y = model.g_a(images, quality)
        z = model.h_a(y)
    work = Refinement(model, Window(images, y, z, quality), tile)
    assert torch.equal(work.run(0), y)
    monkeypatch.setattr("difficmh.refinement.RATE", 100.0)
    assert torch.equal(work.run(3), y)


def test_only_the_core_of_a_tile_changes(tiny_codec: Codec) -> None:
    model, quality = networks(tiny_codec).model, torch.tensor([3])
    image = photograph(256, 512)
    tile = tiles(256, 512, 256, 64)[0]
    assert tile.window != tile.core
    rows, columns = tile.window.slices()
    images = as_batch(image[rows, columns])
    with torch.no_grad():
        y = model.g_a(images, quality)
        z = model.h_a(tile.crop(y, Y_STRIDE))
    work = Refinement(model, Window(images, y, z, quality), tile)
    core = work.run(4)
    assert core.shape == tile.crop(y, Y_STRIDE).shape
    changed = work._amid_surroundings(core) - y
    assert changed.abs().max() > 0
    assert torch.equal(tile.crop(changed, Y_STRIDE), core - tile.crop(y, Y_STRIDE))
    assert changed.count_nonzero() == tile.crop(changed, Y_STRIDE).count_nonzero()


def test_parts_cover_the_core_of_a_tile_and_take_their_z(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difficmh.refinement.PART", 128)
    tile = tiles(448, 576, 256, 64)[3]
    z = torch.arange(tile.core.height // 64 * (tile.core.width // 64)).reshape(1, 1, tile.core.height // 64, -1)
    covered = torch.zeros(tile.window.height, tile.window.width)
    together = torch.full((tile.window.height // 64, tile.window.width // 64), -1)
    for part, of_part in parts(tile, z):
        rows, columns = part.core.slices()
        covered[rows, columns] += 1
        rows, columns = part.core.slices(64)
        together[rows, columns] = of_part[0, 0]
        assert part.window.height <= tile.window.height
        assert part.window != part.core
    assert torch.equal(tile.crop(covered), torch.ones(tile.core.height, tile.core.width))
    assert covered.sum() == tile.core.height * tile.core.width
    assert torch.equal(tile.crop(together, 64), z[0, 0])


@pytest.mark.parametrize("kind", ["black", "white", "noise", "checks"])
def test_odd_pictures_never_get_worse(lite: Codec, kind: str) -> None:
    image = {
        "black": np.zeros((192, 192, 3), np.uint8),
        "white": np.full((192, 192, 3), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8),
        "checks": np.repeat(np.indices((192, 192)).sum(0)[..., None] % 2 * 255, 3, axis=2).astype(np.uint8),
    }[kind]
    plain, refined = (lite.compress([image], quality=3, tags=[[]], effort=effort)[0] for effort in (0, 2))
    one_byte = 8 / (192 * 192)  # what streams are rounded to
    assert cost_of_stream(lite, image, refined, 3) <= 1.002 * cost_of_stream(lite, image, plain, 3) + one_byte


def test_a_picture_of_several_tiles_is_refined_and_decodes(tiny_codec: Codec) -> None:
    image = photograph(300, 700)
    plain, refined = (tiny_codec.compress([image], quality=3, tags=[[]], effort=effort)[0] for effort in (0, 3))
    assert cost_of_stream(tiny_codec, image, refined, 3) < cost_of_stream(tiny_codec, image, plain, 3)


def test_estimated_bits_are_compressais() -> None:
    torch.manual_seed(0)
    means, scales = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5) * 3 + 0.11
    y_hat = torch.round(2 * torch.randn(2, 3, 4, 5)) + means
    _, likelihoods = GaussianConditional(None).eval()(y_hat, scales, means=means)
    expected = -torch.log2(likelihoods).flatten(1).sum(1)
    torch.testing.assert_close(estimated_bits(EntropyOutput(y_hat, means, scales)), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("effort", [-1, 1001])
def test_efforts_out_of_range_are_refused(tiny_codec: Codec, effort: int) -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.1000"):
        tiny_codec.compress([photograph(64, 64)], tags=[[]], effort=effort)


def test_refined_streams_are_ordinary_ones(tiny_codec: Codec) -> None:
    (stream,) = tiny_codec.compress([photograph(96, 96)], quality=3, tags=[["car"]], effort=2)
    described = difficmh.inspect(stream)
    assert (described.height, described.width, described.quality) == (96, 96, 3)
    assert tiny_codec.decompress([stream], mode="full")[0].shape == (3, 96, 96)
