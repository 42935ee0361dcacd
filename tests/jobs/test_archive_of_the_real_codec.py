"""An archive that holds real streams and their own model, read by the library and by the decode job."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difficmh
import pipeline
from jobs import decode_dataset
from pipeline.capsule import copy_capsule
from pipeline.protocols import Mode
from pipeline.storage import Storage
from pipeline.table import TableRow
from tests.difficmh.tiny_capsule import make_tiny_capsule, photograph
from tests.jobs.reading import without_ray
from tests.pipeline import archives

SIZES = {"wide": (70, 130), "tall": (96, 64)}


@pytest.fixture(scope="module")
def archive(one_torch_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two images and a damaged third."""
    folder = tmp_path_factory.mktemp("real")
    capsule = make_tiny_capsule(folder / "tiny")
    codec = difficmh.load(capsule)
    storage = Storage.from_url(str(folder / "archive"))
    copy_capsule(storage, capsule)
    manifest = archives.manifest(codec=codec.name, codec_fingerprint=codec.fingerprint)
    archives.put(storage, "archive.json", manifest.to_json().encode())
    rows: list[TableRow] = []
    for key, (height, width) in SIZES.items():
        (stream,) = codec.compress([photograph(height, width)], quality=3, tags=[["car"]])
        fields = {"bitstream": stream, "codec": codec.name, "height": height, "width": width}
        rows.append(archives.row(key, **fields))
    broken = bytearray(rows[0].bitstream)
    broken[len(broken) // 2] ^= 0xFF
    rows.append(replace(rows[0], key="broken", bitstream=bytes(broken)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "FINGERPRINT", codec.fingerprint)
        archives.write_part(storage, "in/a.tar", rows)
    return storage


@pytest.mark.parametrize("mode", ["preview", "full"])
def test_get_is_what_the_codec_gives(archive: Storage, tmp_path: Path, mode: Mode) -> None:
    opened = pipeline.Archive.open(archive.url, codec_factory=difficmh.load, cache=tmp_path)
    for key, (height, width) in SIZES.items():
        image = opened.get(key, mode=mode)
        assert image.shape == (3, height, width)
        assert (image.min() >= 0, image.max() <= 1) == (True, True)
        (again,) = opened.codec.decompress([opened.bitstream(key)], mode=mode)
        assert torch.equal(image, again)
    with pytest.raises(difficmh.BitstreamError):
        opened.get("broken", mode=mode)


def test_a_copy_of_the_model_that_was_damaged_is_fetched_again(archive: Storage, tmp_path: Path) -> None:
    for _ in range(2):
        opened = pipeline.Archive.open(archive.url, codec_factory=difficmh.load, cache=tmp_path)
        assert opened.get("wide").shape == (3, 70, 130)
        (weights,) = tmp_path.glob("*/model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("how", [("--mode", "reference", "--steps"), ("--sampler", "ddim", "--steps")])
def test_steps_and_samplers_reach_the_codec(
    archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    without_ray(monkeypatch)
    places = ["--archive", archive.url, "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "models")]
    form = ["--layout", "files", "--format", "png", "--where", "key = 'wide'", "--dtype", "float32"]
    assert decode_dataset.main([*places, *form, *how, "2"]) == 0
    opened = pipeline.Archive.open(archive.url, codec_factory=difficmh.load, cache=tmp_path / "models")
    (expected,) = opened.codec.decompress([opened.bitstream("wide")], mode="reference", steps=2)
    (path,) = (tmp_path / "out").rglob("*.png")
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), (expected * 255).round().byte().permute(1, 2, 0).numpy())


def test_the_decode_job(archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    output = tmp_path / "out"
    known = ["--archive", archive.url, "--output", str(output), "--layout", "files", "--format", "png"]
    assert decode_dataset.main([*known, "--max-rejects", "1"]) == 0
    assert {path.stem for path in output.rglob("*.png")} == set(SIZES)
    (report,) = (output / "reports").iterdir()
    assert json.loads(report.read_text())["rejects"] == 1
