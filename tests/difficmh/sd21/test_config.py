"""Configurations survive their trip through JSON, and what no codec can be is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from difficmh.sd21.config import DrawingConfig, Sd21Config
from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import DenoiserConfig
from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.sd21.plan import PRESETS
from difficmh.sd21.unet import UNetConfig
from difficmh.taggers.ram_head import RamConfig, SwinConfig

OTHER = Sd21Config(
    rate=8,
    tile=256,
    lfgcm=LfgcmConfig(slices=(2, 2, 4)),
    denoiser=DenoiserConfig(UNetConfig(widths=(32, 64), head_channels=16), ControlConfig(ratio=0.5)),
    tagger=RamConfig(SwinConfig(depths=(2, 2), heads=(1, 2)), tags=5),
    drawing=DrawingConfig(guidance=3.5, full_sampler="unipc", full_steps=4),
)


@pytest.mark.parametrize("config", [Sd21Config(), OTHER])
def test_a_trip_through_json(config: Sd21Config) -> None:
    assert Sd21Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_presets_differ_in_their_rate_alone() -> None:
    assert list(PRESETS) == ["sd21-r2", "sd21-r4", "sd21-r8", "sd21-r16", "sd21-r32"]
    assert {replace(Sd21Config(rate=rate), rate=4) for rate in PRESETS.values()} == {Sd21Config()}


@pytest.mark.parametrize(
    "change",
    [
        {"colour": 1},
        {"lfgcm": {"slices": []}},
        {"lfgcm": None},
        {"denoiser": {}},
        {"drawing": {"full_sampler": "euler"}},
        {"drawing": {"full_steps": 0}},
    ],
)
def test_no_codec(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Sd21Config.from_dict({**OTHER.to_dict(), **change})


def test_a_missing_part() -> None:
    fields = OTHER.to_dict()
    del fields["vae"]
    with pytest.raises(KeyError, match="vae"):
        Sd21Config.from_dict(fields)
