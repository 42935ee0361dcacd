"""The job that makes the tagger's files, from a shard to tags of an image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difficmh.taggers.efficientnet import EfficientNetTagger
from jobs import train_tagger

COUNT = 14


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Small pictures, every other one plain and labelled `fog`."""
    random = np.random.default_rng(0)
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        for row in range(COUNT):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8) if row % 2 else np.full((32, 32, 3), 200, np.uint8)
            metadata = {"source": "s", "label_kind": "boxes", "labels": [] if row % 2 else ["fog"], "detected": []}
            add(tar, f"{row:03d}.png", png(pixels))
            add(tar, f"{row:03d}.json", json.dumps(metadata).encode())
    return path


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_what_is_no_tar_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path, tmp_path / "missing.tar"):
        assert train_tagger.main(["--data", str(place), "--output", str(tmp_path / "capsule")]) == 2
        assert capsys.readouterr().err == f"error: {place} is no WebDataset tar\n"


@pytest.mark.parametrize("wrong", [("--device", "tpu"), ("--epochs", "0"), ("--epochs", "-3")])
def test_wrong_usage_is_said_before_any_work(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_tagger.main(["--data", "a.tar", "--output", "b", *wrong])
    assert ended.value.code == 2
    assert repr(wrong[1]) in capsys.readouterr().err


def test_from_shard_to_tagger(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsule, tags = tmp_path / "capsule", tmp_path / "tags.json"
    places = ["--data", str(shard), "--output", str(capsule), "--cache", str(tmp_path / "cache")]
    assert train_tagger.main([*places, "--image-tags", str(tags)]) == 0
    assert "held back" in json.loads(capsys.readouterr().out)
    content = json.loads(tags.read_text())
    assert len(content["tags"]) == COUNT
    tagger = EfficientNetTagger(capsule)
    assert list(tagger.vocabulary.names) == content["names"]
    assert "fog" in {tag.name for tag in tagger([np.full((32, 32, 3), 200, np.uint8)])[0]}
    assert len(list((tmp_path / "cache").iterdir())) == 1
