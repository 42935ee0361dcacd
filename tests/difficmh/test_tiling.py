import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficmh.tiling import Rectangle, Tile, cores, pad, padded_size, tiles

sides = st.integers(1, 3000)
edges = st.sampled_from([64, 128, 320, 1024])
margins = st.sampled_from([0, 64, 192])


@given(sides, sides, edges)
@settings(max_examples=150, deadline=None)
def test_cores_partition_the_padded_image(height: int, width: int, tile: int) -> None:
    rows, columns = padded_size(height, width)
    covered = np.zeros((rows // 64, columns // 64), int)
    for core in cores(height, width, tile):
        covered[core.slices(64)] += 1
    assert (covered == 1).all()


@given(sides, sides, edges, margins)
@settings(max_examples=150, deadline=None)
def test_windows_hold_their_core_and_its_margin(height: int, width: int, tile: int, margin: int) -> None:
    rows, columns = padded_size(height, width)
    found = tiles(height, width, tile, margin)
    assert [part.core for part in found] == cores(height, width, tile)
    for part in found:
        core, window = part.core, part.window
        assert all(n % 64 == 0 for r in (core, window) for n in (r.top, r.left, r.height, r.width))
        assert core.height * core.width <= tile * tile
        assert window.top == max(0, core.top - margin)
        assert window.left == max(0, core.left - margin)
        assert window.top + window.height == min(rows, core.top + core.height + margin)
        assert window.left + window.width == min(columns, core.left + core.width + margin)


@given(sides, sides, edges)
@settings(max_examples=150, deadline=None)
def test_tiles_come_in_reading_order_and_similar_sizes(height: int, width: int, tile: int) -> None:
    found = cores(height, width, tile)
    assert [(c.top, c.left) for c in found] == sorted((c.top, c.left) for c in found)
    for lengths in ({c.height for c in found}, {c.width for c in found}):
        assert max(lengths) - min(lengths) <= 64


@given(sides, sides, edges)
@settings(max_examples=100, deadline=None)
def test_small_images_are_one_tile(height: int, width: int, tile: int) -> None:
    rows, columns = padded_size(height, width)
    assert (len(cores(height, width, tile)) == 1) == (rows * columns <= tile * tile)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [Rectangle(0, 0, 64, 64)]),
        ((2048, 2048), [Rectangle(0, 0, 2048, 2048)]),
        ((512, 8192), [Rectangle(0, 0, 512, 8192)]),
        ((64, 100_000), [Rectangle(0, 0, 64, 50048), Rectangle(0, 50048, 64, 49984)]),
        ((2049, 2048), [Rectangle(0, 0, 1088, 2048), Rectangle(1088, 0, 1024, 2048)]),
    ],
)
def test_cores_never_change(size: tuple[int, int], expected: list[Rectangle]) -> None:
    assert cores(*size, 2048) == expected


def test_a_hundred_megapixels() -> None:
    parts = tiles(10_000, 10_000, 2048, 128)
    assert len(parts) == 25
    assert max(part.window.height * part.window.width for part in parts) <= (2048 + 256) ** 2


def test_an_image_is_put_together_from_cropped_windows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 300, 500), np.uint8)
    height, width = padded_size(300, 500)
    whole = np.zeros((3, height, width), np.uint8)
    whole[:, :300, :500] = image
    latent = whole[:, ::8, ::8]
    joined, joined_latent = np.zeros_like(whole), np.zeros_like(latent)
    for part in tiles(300, 500, 128, 64):
        joined[:, *part.core.slices()] = part.crop(whole[:, *part.window.slices()])
        joined_latent[:, *part.core.slices(8)] = part.crop(latent[:, *part.window.slices(8)], 8)
    assert (joined == whole).all()
    assert (joined_latent == latent).all()


def test_padding_repeats_the_edges() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    padded = pad(image)
    assert padded.shape == (64, 64, 3)
    assert (padded[:2, :3] == image).all()
    assert (padded[2:, 0] == 3).all()
    assert (padded[0, 3:] == 2).all()
    assert (padded[2:, 3:] == 5).all()


def test_aligned_images_are_not_padded() -> None:
    assert pad(np.zeros((64, 128), np.uint8)).shape == (64, 128)


@pytest.mark.parametrize(
    ("height", "width", "tile", "margin"),
    [(0, 5, 64, 0), (5, -1, 64, 0), (5, 5, 0, 0), (5, 5, 100, 0), (5, 5, 64, 32), (5, 5, 64, -64)],
)
def test_other_numbers_are_refused(height: int, width: int, tile: int, margin: int) -> None:
    with pytest.raises(ValueError, match=r"pixels|multiples"):
        tiles(height, width, tile, margin)


@pytest.mark.parametrize("stride", [3, 128, 0, -8])
def test_strides_that_do_not_divide_the_alignment_are_refused(stride: int) -> None:
    whole = Rectangle(0, 0, 64, 64)
    with pytest.raises(ValueError, match=f"stride {stride} does not"):
        Tile(whole, whole).crop(np.zeros((64, 64)), stride)
