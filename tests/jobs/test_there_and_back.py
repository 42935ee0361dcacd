"""Shards to an archive, back to pictures and answers, and those pictures to shards again: the jobs fit each other."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
from PIL import Image

import pipeline
from jobs import analyze_dataset, compress_dataset, decode_dataset
from jobs.compress_dataset import InstalledCodec
from tests.fakes import FakeCodecFactory
from tests.jobs import reading
from tests.pipeline.archives import FINGERPRINT, fake_codec


@pytest.fixture(autouse=True)
def jobs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three jobs in this process, with the fake codec."""
    capsule = tmp_path / "fake"
    capsule.mkdir()
    (capsule / "codec.txt").write_text("fake")
    files = {"codec.txt": {"sha256": hashlib.sha256(b"fake").hexdigest()}}
    (capsule / "manifest.json").write_text(json.dumps({"files": files}))
    codec = InstalledCodec("fake", FINGERPRINT, capsule, FakeCodecFactory(capsule))
    monkeypatch.setattr(compress_dataset, "installed_codec", lambda name: codec)
    reading.without_ray(monkeypatch)
    reading.with_fake_codec(monkeypatch, tmp_path / "cache")


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found.update({name: tar.extractfile(name).read() for name in tar.getnames()})  # type: ignore[union-attr]
    return found


@dataclass
class ImageSize:
    rows: int
    columns: int


class Sizes:
    """An analyzer as a user would write it."""

    name = "sizes"
    row_type = ImageSize

    def __call__(self, images: Sequence[Any]) -> list[ImageSize]:
        return [ImageSize(*image.shape[1:]) for image in images]


def sizes(device: str) -> Sizes:
    return Sizes()


def test_there_and_back(corpus: Path, tmp_path: Path) -> None:
    archive, pictures, answers = (str(tmp_path / name) for name in ("archive", "pictures", "answers"))
    assert compress_dataset.main(["--input", f"{corpus}/*.tar", "--archive", archive]) == 0
    assert decode_dataset.main(["--archive", archive, "--output", pictures, "--format", "png"]) == 0
    own = "python:tests.jobs.test_there_and_back:sizes"
    assert analyze_dataset.main(["--archive", archive, "--output", answers, "--analyzer", own]) == 0

    originals, decoded = members(corpus), members(tmp_path / "pictures" / "data")
    keys = {name.removesuffix(".jpg") for name in originals if name.endswith(".jpg")}
    assert keys == {name.removesuffix(".png") for name in decoded if name.endswith(".png")}
    for key in keys:
        original = np.asarray(Image.open(io.BytesIO(originals[f"{key}.jpg"])), np.float32)
        found = np.asarray(Image.open(io.BytesIO(decoded[f"{key}.png"])), np.float32)
        assert found.shape == original.shape
        assert abs(found - original).mean() < 12
        assert json.loads(decoded[f"{key}.json"])["reconstruction"] is True

    table = pyarrow.dataset.dataset(f"{answers}/data").to_table()
    opened = pipeline.Archive.open(archive, codec_factory=fake_codec, cache=tmp_path / "cache")
    joined = opened.query(columns=["key", "shard", "width"]).join(table, ["key", "shard"])
    assert joined.num_rows == len(keys)
    assert joined["width"].to_pylist() == joined["columns"].to_pylist()


def test_reconstructions_keep_saying_so_when_they_are_compressed_again(corpus: Path, tmp_path: Path) -> None:
    first, pictures, second = (str(tmp_path / name) for name in ("first", "pictures", "second"))
    assert compress_dataset.main(["--input", f"{corpus}/*.tar", "--archive", first]) == 0
    assert decode_dataset.main(["--archive", first, "--output", pictures]) == 0
    assert compress_dataset.main(["--input", f"{pictures}/data/*.tar", "--archive", second]) == 0
    again = pipeline.Archive.open(second)
    assert sorted(again.keys()) == sorted(pipeline.Archive.open(first).keys())
    found = again.query("CAST(json_extract(metadata, '$.json.reconstruction') AS BOOLEAN)")
    assert found.num_rows == again.info().totals.images
