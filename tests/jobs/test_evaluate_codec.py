"""The evaluation job from image files to its report."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from jobs import evaluate_codec
from tests.difficmh.test_metrics import photo


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    Image.fromarray(photo(40, 56)).save(folder / "a.PNG")
    Image.fromarray(photo(30, 44)).save(folder / "b.jpg")
    (folder / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "b.jpg", "key.jpg")
        tar.add(folder / "notes.txt", "key.txt")
    return tmp_path


def run(images: Path, *extra: str) -> dict[str, list[dict[str, float]]]:
    sources = ["--images", str(images / "photos"), str(images / "*.tar")]
    assert evaluate_codec.main([*sources, "--output", str(images / "out"), *extra]) == 0
    report: dict[str, list[dict[str, float]]] = json.loads((images / "out" / "evaluation.json").read_text())
    return report


def test_folders_and_tars_through_baselines(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(images, "--codec", "jpeg@20,60,90", "--codec", "webp@20,60,90")
    assert [row["images"] for row in report["means"]] == [3] * 6
    assert (images / "out" / "curves.png").exists()
    table = capsys.readouterr().out
    assert "BD rate against jpeg: webp" in table
    assert (images / "out" / "measurements.csv").read_text().count("shard.tar/key") == 6


def test_limit(images: Path) -> None:
    assert run(images, "--codec", "jpeg@20", "--limit", "1")["means"][0]["images"] == 1


@pytest.mark.parametrize(
    ("images_url", "codec", "message"),
    [("none", "jpeg", "none"), ("photos", "jpeg2000", "jpeg2000"), ("photos", "difficmh:nothing", "nothing")],
)
def test_what_cannot_work_is_said_before_any_work(
    images: Path, capsys: pytest.CaptureFixture[str], images_url: str, codec: str, message: str
) -> None:
    arguments = ["--images", str(images / images_url), "--codec", codec, "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (images / "out").exists()


def test_a_damaged_shard_is_no_evaluation(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = images / "shard.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    arguments = ["--images", str(shard), "--codec", "jpeg", "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    assert "shard.tar" in capsys.readouterr().err
