"""The catalogue of released files."""

from __future__ import annotations

import re

import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21.hub import parse_hub
from difficmh.sd21.sources import RATES, SHARED, Source, preset_sources


def test_each_rate_has_its_checkpoint_and_shares_the_rest() -> None:
    checkpoints = {preset_sources(rate)["checkpoint"].location for rate in RATES}
    assert len(checkpoints) == len(RATES)
    assert all({*SHARED, "checkpoint"} == set(preset_sources(rate)) for rate in RATES)
    with pytest.raises(ValueError, match="no model of rate 3"):
        preset_sources(3)


def test_every_source_is_well_formed() -> None:
    sources = [*SHARED.values(), *(preset_sources(rate)["checkpoint"] for rate in RATES)]
    for source in sources:
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
        if source.location.startswith("hub://"):
            parse_hub(source.location)
        else:
            assert source.location.startswith("https://")
            assert source.sha256


def test_a_digest_after_a_location_is_whole_or_refused() -> None:
    digest = "0123456789ABCDEF" * 4
    assert Source.parse(f"model.ckpt#sha256={digest}") == Source("model.ckpt", digest.lower())
    assert Source.parse("folder#1/model.ckpt") == Source("folder#1/model.ckpt")
    mistyped = (
        f"#sha256={digest[:63]}",
        f"#sha256={digest}0",
        f"#SHA256={digest}",
        "#sha256=",
        f"#sha256=g{digest[1:]}",
    )
    for end in mistyped:
        with pytest.raises(CapsuleError, match="no SHA-256: 64 hexadecimal digits"):
            Source.parse(f"s3://bucket/model.ckpt{end}")
