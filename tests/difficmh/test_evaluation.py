"""Codecs side by side: descriptions, measurements, the report."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import difficmh
from difficmh.baselines import Baseline
from difficmh.evaluation import Image, Measurement, measure, parse_contestant
from difficmh.evaluation_report import compare, mean_rows, write_report
from tests.difficmh.test_metrics import photo
from tests.fakes import FakeCodec


@dataclass(frozen=True)
class Rounding:
    """Keeps the upper bits of each sample: exact sizes, known errors."""

    name: str = "rounding"
    qualities: tuple[int, ...] = (2, 4)

    def compress(self, image: Image, quality: int) -> bytes:
        height, width, _ = image.shape
        data = bytes([height, width]) + (image >> (8 - quality) << (8 - quality)).tobytes()
        return data + bytes(quality)

    def decompress(self, data: bytes) -> Image:
        height, width = data[:2]
        return np.frombuffer(data[2 : 2 + 3 * height * width], np.uint8).reshape(height, width, 3)


def test_measurements_count_real_bytes_and_measure_the_decoded_image() -> None:
    image = np.full((10, 20, 3), 0b10110000, np.uint8)
    coarse, fine = measure(Rounding(), [("flat", image)])
    assert (coarse.stored_bytes, coarse.image, coarse.height, coarse.width) == (2 + 600 + 2, "flat", 10, 20)
    assert coarse.bits_per_pixel == 8 * 604 / 200
    assert coarse.psnr == pytest.approx(20 * np.log10(255 / 0b00110000), abs=1e-3)
    assert fine.psnr == 100
    assert coarse.ssimulacra2 is None
    assert coarse.compress_seconds >= 0


@pytest.mark.parametrize(
    ("text", "qualities"), [("webp@5", (5,)), ("jpeg@10,30-32", (10, 30, 31, 32)), ("avif", (10, 25, 42, 60))]
)
def test_baselines_by_description(text: str, qualities: tuple[int, ...]) -> None:
    contestant = parse_contestant(text)("cpu")
    assert isinstance(contestant, Baseline)
    assert tuple(contestant.qualities) == qualities


@pytest.mark.parametrize("text", ["jpeg2000", "webp@best", "webp@1-", "lite", "difficmh:lite@x:full"])
def test_descriptions_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"jpeg2000|webp@|lite"):
        parse_contestant(text)


@pytest.mark.parametrize(
    ("text", "name", "qualities"),
    [
        ("difficmh:lite@1-3:preview", "lite preview", (1, 2, 3)),
        ("difficmh:lite", "lite full", (1, 2, 3, 4, 5, 6)),
        ("difficmh:some:where/mine@2", "mine full", (2,)),
    ],
)
def test_learned_codecs_by_description(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, name: str, qualities: tuple[int, ...]
) -> None:
    monkeypatch.setattr(difficmh, "load", lambda capsule, device: FakeCodec(tmp_path, device))
    contestant = parse_contestant(text)("cpu")
    assert (contestant.name, tuple(contestant.qualities)) == (name, qualities)
    image = photo(21, 30)
    decoded = contestant.decompress(contestant.compress(image, qualities[0]))
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8


def test_decoded_tensors_are_rounded_to_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        def decompress(self, streams: list[bytes], mode: str) -> list[torch.Tensor]:
            return [torch.tensor([-0.1, 0.4999 / 255, 1.2]).reshape(3, 1, 1)]

    monkeypatch.setattr(difficmh, "load", lambda capsule, device: Constant())
    assert parse_contestant("difficmh:lite")("cpu").decompress(b"").ravel().tolist() == [0, 0, 255]


def synthetic(codec: str, saving: float) -> list[Measurement]:
    first = Measurement(codec, 1, "a", 8, 8, 64, 0.1, 20.0, 8.0, None, 0.5, 0.25)
    return [
        replace(first, quality=i, image=image, bits_per_pixel=rate * saving * factor, psnr=20.0 + 3 * i)
        for i, rate in enumerate((0.05, 0.1, 0.2, 0.4, 0.8), 1)
        for image, factor in (("a", 0.5), ("b", 1.5))
    ]


def test_means_are_over_the_images_of_a_quality() -> None:
    rows = mean_rows(synthetic("x", 1.0))
    assert [row.quality for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].images == 2
    assert rows[0].bits_per_pixel == pytest.approx(0.05)


def test_comparison_at_fixed_rates_and_by_bd_rate() -> None:
    comparison = compare(mean_rows(synthetic("webp", 1.0) + synthetic("lite", 0.75)), ["webp"])
    assert comparison.bd_rate["psnr"]["webp"] == pytest.approx({"webp": 0, "lite": -25}, abs=1e-6)
    assert comparison.at_rate["psnr"]["webp"][:2] == pytest.approx([26, 29])
    assert "ssimulacra2" not in comparison.bd_rate


def test_report_files_and_table(tmp_path: Path) -> None:
    text = write_report(tmp_path, synthetic("webp", 1.0) + synthetic("lite preview", 0.75), ["webp"])
    assert "BD rate against webp: lite preview -25.0%" in text
    assert len(list(csv.DictReader((tmp_path / "measurements.csv").read_text().splitlines()))) == 20
    assert len(json.loads((tmp_path / "evaluation.json").read_text())["means"]) == 10
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
