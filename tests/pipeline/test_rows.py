import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.records import Sample
from pipeline.rows import PSNR_CEILING, archive_row, decode_sample, plain_text, psnr_db, strict_json
from tests import corpora
from tests.fakes import FakeTag


def decode(data: bytes) -> Any:
    return np.full((6, 8, 3), len(data) % 256, np.uint8)


def test_a_row_says_what_the_image_was() -> None:
    sample = Sample("dir/a", "s3://b/s.tar", "dir/a.jpg", b"abc", {"json": {"x": 1}})
    row = archive_row(decode_sample(sample, decode), "fake", b"12345", [FakeTag("car", 0.5)], 30.0)
    assert (row.key, row.image_name, row.shard) == ("dir/a", "dir/a.jpg", "s3://b/s.tar")
    assert (row.width, row.height, row.original_bytes) == (8, 6, 3)
    assert row.original_sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert row.bits_per_pixel == pytest.approx(8 * 5 / 48)
    assert (row.tags, row.tag_scores, row.psnr_db) == (["car"], [0.5], 30.0)
    assert json.loads(row.metadata) == {"json": {"x": 1}}


def test_names_that_are_no_text_can_be_stored() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert plain_text(name) == "caf\\udce9"
    assert plain_text("Zürich 日本") == "Zürich 日本"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"b": 1, "a": [1.5, None]}, {"a": [1.5, None], "b": 1}),
        ({"a": math.nan, "b": [math.inf, {"c": -math.inf}]}, {"a": None, "b": [None, {"c": None}]}),
        ({"a": "\ud800"}, {"a": "?"}),
    ],
)
def test_metadata_is_strict_json(metadata: dict[str, Any], expected: dict[str, Any]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = strict_json(metadata)
    assert json.loads(text, parse_constant=refuse) == expected
    text.encode()


@pytest.mark.parametrize("height", [1, 100, 600])
def test_psnr_is_that_of_the_rounded_pixels(height: int) -> None:
    original = corpora.picture(1, height, 50)
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 4, original.shape), 0, 255)
    tensor = torch.from_numpy(noisy).permute(2, 0, 1).float() / 255
    error = np.mean((np.rint(noisy) - original.astype(float)) ** 2)
    assert psnr_db(original, tensor) == pytest.approx(10 * math.log10(255**2 / error), abs=1e-6)


def test_psnr_of_an_exact_copy_is_finite() -> None:
    original = corpora.picture(1)
    tensor = torch.from_numpy(original).permute(2, 0, 1).float() / 255
    assert psnr_db(original, tensor) == PSNR_CEILING


def test_psnr_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reconstruction"):
        psnr_db(corpora.picture(1, 8, 9), torch.zeros(3, 9, 8))
