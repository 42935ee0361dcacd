"""Whole streams of the built-in model, read once more by a decoder that was written from the format's page."""

from __future__ import annotations

import numpy as np
import pytest

import difficmh
from difficmh import fixed_point
from difficmh.bitstream import unpack
from difficmh.symbols import Z_LIMIT
from difficmh.tiling import padded_size
from tests.difficmh.reference_decoder import ReferenceDecoder
from tests.difficmh.reference_symbols import ReferenceModel, read_tags, read_y
from tests.golden.regenerate import CASES, GOLDEN

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("name", CASES)
def test_a_decoder_written_from_the_format_reads_the_golden_streams(lite: difficmh.codec.Codec, name: str) -> None:
    stream = (GOLDEN / f"{name}.dicm").read_bytes()
    frame = unpack(stream)
    header = frame.header
    model, decoder = ReferenceModel(lite.capsule), ReferenceDecoder(frame.payload)
    expected = lite.read(stream)
    assert read_tags(model, decoder) == list(expected.tags)
    height, width = (side // 64 for side in padded_size(header.height, header.width))
    y_hat = read_y(model, decoder, (height, width), header.quality)
    assert decoder.at_end()
    assert np.array_equal((y_hat / 1024).astype(np.float32), expected.latents.y_hat.numpy())


def test_symbols_of_z_are_activations_that_the_exact_networks_of_lite_take() -> None:
    """Their sums were proved exact for these alone."""
    assert Z_LIMIT <= fixed_point.LIMIT
