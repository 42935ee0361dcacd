"""The crops of the model card's picture lie inside photographs that the packages carry."""

from __future__ import annotations

import pytest

from demo.failures import FAILURES, Failure
from demo.photographs import PHOTOGRAPHS
from difficmh.images import decode_image


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.what)
def test_a_crop_lies_inside_its_photograph(failure: Failure) -> None:
    (photograph,) = (one for one in PHOTOGRAPHS if one.key == failure.key)
    height, width, _ = decode_image(photograph.read()).shape
    assert failure.top + failure.side <= height
    assert failure.left + failure.side <= width
