"""Images for an evaluation, with the JSON beside them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.image_source import SourceImage, read_images
from pipeline.retry import BRIEF, PATIENT
from tests.corpora import tar_bytes
from tests.http_server import serving
from tests.pipeline.archives import noted_patience


def test_labels_lie_beside_images_in_folders_and_shards(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"first")
    (folder / "a.json").write_text(json.dumps({"objects": []}))
    (folder / "b.png").write_bytes(b"second")
    (folder / "b.json").write_text("no JSON")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "a.jpg", "key.jpg")
        tar.add(folder / "a.json", "key.json")
    assert list(read_images([str(folder), str(tmp_path / "*.tar")])) == [
        SourceImage("a.jpg", b"first", {"objects": []}),
        SourceImage("b.png", b"second"),
        SourceImage("shard.tar/key", b"first", {"objects": []}),
    ]
    assert [image.label for image in read_images([str(folder), str(tmp_path / "*.tar")], labelled=False)] == [None] * 3


def test_a_single_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.JPG").write_bytes(b"first")
    (tmp_path / "a.json").write_text(json.dumps({"objects": []}))
    (tmp_path / "b.png").write_bytes(b"second")
    monkeypatch.chdir(tmp_path)
    first = SourceImage("a.JPG", b"first", {"objects": []})
    assert list(read_images([str(tmp_path / "a.JPG"), "b.png"])) == [first, SourceImage("b.png", b"second")]
    with pytest.raises(JobError, match=r"c\.jpg"):
        list(read_images(["c.jpg"]))


def test_first_contact_is_brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"first")
    asked = noted_patience(monkeypatch, "exists", "read")
    assert len(list(read_images([str(tmp_path), str(tmp_path / "a.jpg")]))) == 2
    assert asked == {("exists", BRIEF), ("read", PATIENT)}


def test_a_folder_may_be_named_like_a_picture(tmp_path: Path) -> None:
    (tmp_path / "day.jpg").mkdir()
    (tmp_path / "day.jpg" / "a.jpg").write_bytes(b"first")
    assert list(read_images([str(tmp_path / "day.jpg")])) == [SourceImage("a.jpg", b"first")]


def test_a_folder_of_images_and_shards_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "shard.tar").write_bytes(b"")
    with pytest.raises(JobError, match=r"images and shards, such as shard\.tar"):
        list(read_images([str(tmp_path)]))


def test_names_that_come_again_get_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"first")
    assert [image.name for image in read_images([str(tmp_path)] * 3)] == ["a.jpg", "a.jpg~2", "a.jpg~3"]


def test_a_number_that_a_name_of_its_own_has_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"first")
    others = [f"o{number}.jpg" for number in range(40)]  # else both `k.jpg` would be one sample
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("k.jpg", *others, "k.jpg", "k~2.jpg"):
            tar.add(tmp_path / "a.jpg", name)
    names = [image.name for image in read_images([str(tmp_path / "s.tar")])]
    assert [name for name in names if "/k" in name] == ["s.tar/k", "s.tar/k~2", "s.tar/k~2~2"]


def test_shards_without_images_are_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(tmp_path / "notes.txt", "key.txt")
    with pytest.raises(JobError, match=r"shard\.tar holds no images"):
        list(read_images([str(tmp_path / "shard.tar")]))


def test_shards_and_pictures_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"first")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(tmp_path / "a.jpg", "key.jpg")
    with serving(tmp_path) as url:
        shard, picture = read_images([f"{url}/shard.tar", f"{url}/a.jpg"])
        assert (shard, picture) == (SourceImage("shard.tar/key", b"first"), SourceImage("a.jpg", b"first"))
        with pytest.raises(JobError, match="can be listed"):
            list(read_images([f"{url}/*.tar"]))


def test_one_picture_of_a_shard_that_has_no_bytes_is_told(tmp_path: Path) -> None:
    """It is one that cannot be read, as it would be in a folder; the shard is not damaged."""
    (tmp_path / "shard.tar").write_bytes(tar_bytes([("a.jpg", b"first"), ("b.jpg", b""), ("c.jpg", b"third")]))
    assert list(read_images([str(tmp_path / "shard.tar")])) == [
        SourceImage("shard.tar/b", b"", wrong="b.jpg has zero bytes"),
        SourceImage("shard.tar/a", b"first"),
        SourceImage("shard.tar/c", b"third"),
    ]
