"""What models can be asked for, known without their networks, is what the networks say."""

from __future__ import annotations

from typing import Any

import pytest

from difficmh.codec import Codec
from difficmh.errors import CapsuleError
from difficmh.limits import MOST_STEPS, check_drawing
from difficmh.sampler import TRAIN_STEPS


def test_samplers_of_lite(tiny_codec: Codec) -> None:
    assert MOST_STEPS["lite"] == tiny_codec.networks.samplers
    assert set(MOST_STEPS["lite"].values()) == {TRAIN_STEPS}
    assert {each.sampler for each in tiny_codec.networks.sampling.values()} == {"ddim"}


@pytest.mark.parametrize(
    ("config", "asked", "message"),
    [
        ({}, (None, "dpm++", None), r"sampler 'dpm\+\+' is not one of this model's: ddim$"),
        ({}, (None, None, "float16"), "runs in float32, not 'float16'"),
        ({"family": "sd21"}, (None, "euler", None), r"ddpm, ddim, dpm\+\+, unipc$"),
        ({"family": "sd21"}, (None, "ddim", "int8"), "runs in float32, bfloat16, float16, not 'int8'"),
        ({"family": "sd21"}, (1000, "unipc", None), "steps must be in 1..999, not 1000"),
    ],
)
def test_what_a_model_cannot_draw(config: dict[str, Any], asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_drawing(config, "full", *asked)


@pytest.mark.parametrize("config", [{}, {"family": "sd21"}])
def test_previews_and_modes_that_there_are_not(config: dict[str, Any]) -> None:
    check_drawing(config, "preview", None, None, "float32")
    for steps, sampler in ((4, None), (None, "ddim"), (4, "ddim")):
        with pytest.raises(ValueError, match="preview does not denoise: it takes neither steps nor sampler"):
            check_drawing(config, "preview", steps, sampler, None)
    with pytest.raises(ValueError, match=r"runs in float32.*, not 'int8'"):
        check_drawing(config, "preview", None, None, "int8")
    with pytest.raises(ValueError, match="mode 'best' is not one of preview, full, reference"):
        check_drawing(config, "best", None, None, None)


@pytest.mark.parametrize("config", [{"family": "later"}, {"family": "sd21", "codec": 5}])
def test_models_that_are_not_known(config: dict[str, Any]) -> None:
    with pytest.raises(CapsuleError, match="this version"):
        check_drawing(config, "full", 4, None, None)
