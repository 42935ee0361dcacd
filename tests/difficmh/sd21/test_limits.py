"""What models of this family can be asked for, known without their networks, is what the networks say."""

from __future__ import annotations

from typing import get_args

import pytest

from difficmh.capsule import read_config
from difficmh.codec import Codec
from difficmh.limits import DTYPES, MOST_STEPS, check_drawing
from difficmh.networks import GenerativeMode
from difficmh.sd21 import loading, samplers


def test_samplers_and_precisions_of_sd21() -> None:
    assert MOST_STEPS["sd21"] == samplers.MOST_STEPS
    assert DTYPES["sd21"] == tuple(loading.TORCH_DTYPES)


def test_previews_in_every_precision(sd21_codec: Codec) -> None:
    for dtype in (None, *DTYPES["sd21"]):
        check_drawing(read_config(sd21_codec.capsule), "preview", None, None, dtype)


@pytest.mark.parametrize("mode", get_args(GenerativeMode))
def test_the_usual_sampler_bounds_the_steps(sd21_codec: Codec, mode: GenerativeMode) -> None:
    config = read_config(sd21_codec.capsule)
    most = MOST_STEPS["sd21"][sd21_codec.networks.sampling[mode].sampler]
    check_drawing(config, mode, most, None, None)
    with pytest.raises(ValueError, match=f"steps must be in 1..{most}, not {most + 1}"):
        check_drawing(config, mode, most + 1, None, None)
