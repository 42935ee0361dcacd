"""Items and variants over Ray Data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import ray

from pipeline.ray_data import mapped


def make_repeater() -> Callable[[str, int], tuple[str, int]]:
    return lambda item, variant: (item * (variant + 1), variant)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_every_item_with_every_variant() -> None:
    # As many workers as cores: nothing else in the plan may wait for a core of its own.
    found = list(mapped(["a", "b"], 2, make_repeater, workers=int(ray.cluster_resources()["CPU"])))
    assert sorted(found) == [("a", 0), ("aa", 1), ("b", 0), ("bb", 1)]
