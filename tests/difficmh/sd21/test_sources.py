"""The catalogue of released files."""

from __future__ import annotations

import re

import pytest

from difficmh.sd21.fetch import parse_hub
from difficmh.sd21.sources import RATES, SEPARATE, SHARED, preset_sources


def test_each_rate_has_its_checkpoint_and_shares_the_rest() -> None:
    checkpoints = {preset_sources(rate)["checkpoint"].location for rate in RATES}
    assert len(checkpoints) == len(RATES)
    assert all({*SHARED, "checkpoint"} == set(preset_sources(rate)) for rate in RATES)
    with pytest.raises(ValueError, match="no model of rate 3"):
        preset_sources(3)


def test_every_source_is_well_formed() -> None:
    sources = [*SHARED.values(), *SEPARATE.values(), *(preset_sources(rate)["checkpoint"] for rate in RATES)]
    for source in sources:
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
        if source.location.startswith("hub://"):
            parse_hub(source.location)
        else:
            assert source.location.startswith("https://")
            assert source.sha256
