from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import SIZE_STEP, BatchLimits, SizeBatches

Size = tuple[int, int]


def batched(sizes: list[Size], limits: BatchLimits) -> list[list[int]]:
    """Indices into `sizes`, as batches."""
    batches: SizeBatches[int] = SizeBatches(limits)
    result = []
    for index, (height, width) in enumerate(sizes):
        result += list(batches.add(index, height, width))
    return result + list(batches.drain())


WIDE = BatchLimits(images=3, pixels=10**9, waiting=10**9)


def test_full_batches_leave_and_the_rest_is_drained_oldest_first() -> None:
    sizes = [(64, 64), (10, 200), (60, 50), (64, 1), (11, 199), (1, 1)]
    assert batched(sizes, WIDE) == [[0, 2, 3], [1, 4], [5]]


def test_a_batch_has_a_bound_on_pixels() -> None:
    assert batched([(10, 10)] * 5, BatchLimits(100, 250, 10**9)) == [[0, 1], [2, 3], [4]]
    assert batched([(10, 10), (40, 40), (10, 10)], BatchLimits(100, 250, 10**9)) == [[0], [1], [2]]


def test_the_oldest_leaves_when_too_much_waits() -> None:
    sizes = [(10, 10), (100, 10), (10, 300)]
    assert batched(sizes, BatchLimits(100, 10**9, 3500)) == [[0], [1], [2]]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=40),
    st.builds(BatchLimits, st.integers(1, 5), st.integers(1, 100_000), st.integers(1, 200_000)),
)
def test_every_image_is_in_one_batch_of_its_size(sizes: list[Size], limits: BatchLimits) -> None:
    result = batched(sizes, limits)
    assert sorted(index for batch in result for index in batch) == list(range(len(sizes)))
    assert result == batched(sizes, limits)
    for batch in result:
        areas = [sizes[index][0] * sizes[index][1] for index in batch]
        assert len(batch) <= limits.images
        assert len(batch) == 1 or sum(areas) <= limits.pixels
        assert len({tuple(-(-side // SIZE_STEP) for side in sizes[index]) for index in batch}) == 1
