"""Which files of tars and folders are training pictures, under which keys, and with which JSON."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difficmh.errors import ImageError
from difficmh.images import SUFFIXES, decode_image
from difficmh.training.data import read_samples
from difficmh.training.files import picture_files
from pipeline.keys import Distinct
from pipeline.records import Sample
from pipeline.shards import read_shard


def shard(place: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(place, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return place


def folder(place: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def encoded(level: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (level,) * 3).save(file, form)
    return file.getvalue()


def found(path: Path) -> dict[str, tuple[bytes, object]]:
    files = list(picture_files([path], Counter()))
    by_key = {file.key: (file.data, file.metadata) for file in files}
    assert len(by_key) == len(files)
    return by_key


def archived(path: Path) -> list[str]:
    """The keys under which compression would archive the pictures of a shard."""
    distinct = Distinct()
    with path.open("rb") as file:
        return [distinct(item.key) for item in read_shard(file, str(path)) if isinstance(item, Sample)]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg"], ["a", "a.jpg"]),
        (["a.left.jpg", "a.right.jpg"], ["a.left", "a.right"]),
        (["a.left.jpg"], ["a"]),
        (["a.jpg", "a.seg.png", "a.png"], ["a", "a.seg", "a.png"]),
        (["v1.0/a.jpg", "v1.0/b.jpg"], ["v1.0/a", "v1.0/b"]),
        (["a.jpg", "a.jpg", "a.JPG"], ["a", "a~2", "a~3"]),
        (["a.png", "a.jpg", "b.jpg", "a.png", "a.jpg"], ["a", "a.jpg", "b", "a~2", "a.jpg~2"]),
        (["a.left.jpg", "a.left.jpg"], ["a", "a.left"]),
        (["./a.jpg", "/b.jpg"], ["a", "b"]),
        (["a..jpg", "a.left.jpg", "a.png"], ["a", "a.left", "a.png"]),
        (["a..jpg", "a..jpg"], ["a", "a~2"]),
    ],
)
def test_each_picture_of_a_shard_has_a_key_of_its_own(tmp_path: Path, names: list[str], keys: list[str]) -> None:
    path = shard(tmp_path / "one.tar", *((name, str(place).encode()) for place, name in enumerate(names)))
    assert {key: data for key, (data, _) in found(path).items()} == {
        key: str(place).encode() for place, key in enumerate(keys)
    }
    assert archived(path) == keys


def test_hidden_files_and_the_traces_of_macos_are_no_pictures(tmp_path: Path) -> None:
    """They end a run otherwise: `._a.png` holds no picture."""
    names = ["._a.png", "__MACOSX/._b.png", "__MACOSX/c.png", ".d.jpg", "e/._f.jpg", "a.png"]
    files = [(name, b"a") for name in names]
    assert list(found(shard(tmp_path / "one.tar", *files))) == ["a"]
    assert list(found(folder(tmp_path / "folder", dict(files)))) == ["a.png"]


def test_json_is_attached_in_both_spellings(tmp_path: Path) -> None:
    labels = {"shared": {"labels": ["car"]}, "own": {"labels": ["bus"]}}
    files = {
        "a.json": json.dumps(labels["shared"]).encode(),
        "a.left.jpg": b"1",
        "a.right.jpg": b"2",
        "a.right.json": json.dumps(labels["own"]).encode("utf-8-sig"),
        "b.jpg": b"3",
        "b.json": b"[1]",
        "c.jpg": b"4",
        "c.json": b"{",
        "d.jpg": b"5",
    }
    expected = [labels["shared"], labels["own"], {}, {}, {}]
    in_shard = found(shard(tmp_path / "one.tar", *files.items()))
    assert list(in_shard) == ["a.left", "a.right", "b", "c", "d"]
    assert [metadata for _, metadata in in_shard.values()] == expected
    in_folder = found(folder(tmp_path / "folder", files))
    assert list(in_folder) == ["a.left.jpg", "a.right.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [metadata for _, metadata in in_folder.values()] == expected


@pytest.mark.parametrize("label_first", [False, True])
def test_where_a_name_comes_again_each_picture_has_its_own_json(tmp_path: Path, label_first: bool) -> None:
    files = [("a.jpg", b"1"), ("a.json", b'{"n": 1}'), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.json", b'{"n": 3}')]
    if label_first:
        files = [files[1], files[0], files[2], files[4], files[3]]
    path = shard(tmp_path / "one.tar", *files)
    assert found(path) == {"a": (b"1", {"n": 1}), "b": (b"2", {}), "a~2": (b"3", {"n": 3})}
    distinct = Distinct()
    with path.open("rb") as file:
        samples = [item for item in read_shard(file, str(path)) if isinstance(item, Sample)]
    in_archive = {distinct(sample.key): (sample.image, sample.metadata.get("json", {})) for sample in samples}
    assert in_archive == found(path)
    twice = shard(tmp_path / "two.tar", ("c.json", b'{"n": 1}'), ("c.json", b'{"n": 2}'), ("c.jpg", b"4"))
    assert found(twice) == {"c": (b"4", {"n": 1})}


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".tif", "TIFF"),
        (".TIFF", "TIFF"),
        (".bmp", "BMP"),
        (".gif", "GIF"),
        (".ppm", "PPM"),
        (".jp2", "JPEG2000"),
        (".jfif", "JPEG"),
        (".avif", "AVIF"),
    ],
)
def test_every_format_that_the_codec_reads_is_read(tmp_path: Path, suffix: str, form: str) -> None:
    if suffix.lower() not in SUFFIXES:
        pytest.skip(f"this Pillow has no {form}")
    (sample,) = read_samples([shard(tmp_path / "one.tar", (f"a{suffix}", encoded(90, form)))])
    assert sample.pixels.shape == (16, 20, 3)
    assert abs(int(np.median(sample.pixels)) - 90) < 3


def test_what_is_passed_over_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        ("a.png", encoded(9)),
        ("a.json", b"{}"),
        ("a.cls", b"3"),
        ("b.cls", b"4"),
        ("notes", b""),
        (".x.txt", b""),
    ]
    assert len(read_samples([shard(tmp_path / "one.tar", *files), folder(tmp_path / "more", dict(files))])) == 2
    assert capsys.readouterr().out == "6 files passed over as no images: 4 .cls, 2 without suffix\n"
    read_samples([shard(tmp_path / "two.tar", files[0])])
    assert capsys.readouterr().out == ""


def test_a_picture_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [("a.jpg", encoded(9)), ("a.png", b"text"), ("b.png", encoded(9)[:-30])]
    (sample,) = read_samples([shard(tmp_path / "one.tar", *files)])
    assert sample.key == "a"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("2 pictures left out that cannot be read: a.png (not an image of a known format); b (")


def test_where_no_picture_can_be_read_the_first_are_named(tmp_path: Path) -> None:
    files = [(f"{k:02}.png", b"text") for k in range(12)]
    with pytest.raises(ImageError, match=r"^no picture to train on: 12 pictures left out .*; 09 \(not .*\); 2 more$"):
        read_samples([shard(tmp_path / "one.tar", *files)])


def cut_inside_a_file(whole: bytes) -> bytes:
    return whole[: 3 * 512 + 5]


def cut_between_files(whole: bytes) -> bytes:
    return whole[: 2 * 512]


def header_lost(whole: bytes) -> bytes:
    return whole[: 2 * 512] + bytes([0x5A]) * 512 + whole[3 * 512 :]


def garbage_behind_the_end(whole: bytes) -> bytes:
    return whole + b"text" * 128


@pytest.mark.parametrize("form", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("damage", [cut_inside_a_file, cut_between_files, header_lost, garbage_behind_the_end])
def test_a_damaged_shard_is_refused_and_named(tmp_path: Path, form: str, damage: Callable[[bytes], bytes]) -> None:
    """The standard library reads most of these without a word, short of what is behind the damage."""
    path = shard(tmp_path / "one.tar", *((f"{number}.png", encoded(9)) for number in range(3)))
    damaged = damage(path.read_bytes())
    path.write_bytes({"w": bytes, "w:gz": gzip.compress, "w:xz": lzma.compress}[form](damaged))
    with pytest.raises(ValueError, match=r"one\.tar is damaged, or no tar: .*; mend it or leave it out$"):
        read_samples([path])


@pytest.mark.parametrize(
    "content",
    [b"", b"text" * 200, gzip.compress(bytes(9000))[:-9], lzma.compress(b"text")],
    ids=["empty", "text", "gzip cut short", "xz of text"],  # gzip's bytes hold the time, and ids are to stay
)
def test_what_is_no_tar_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"one\.tar is damaged, or no tar: .+; mend it or leave it out$"):
        read_samples([tmp_path / "one.tar"])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_shards_joined_one_behind_the_other_are_read_whole(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    first = shard(tmp_path / "first.tar", ("a.png", b"1"), ("b.png", b"2")).read_bytes()
    second = shard(tmp_path / "second.tar", ("a.png", b"3")).read_bytes()
    (tmp_path / "both.tar").write_bytes(pack(first + second))
    assert {key: data for key, (data, _) in found(tmp_path / "both.tar").items()} == {"a": b"1", "b": b"2", "a~2": b"3"}
    assert archived(tmp_path / "both.tar") == ["a", "b", "a~2"]


def test_the_suffixes_are_those_of_what_is_read() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tiff", ".mpo"} <= SUFFIXES
    assert not SUFFIXES & {".eps", ".pdf", ".dng", ".pfm", ".mp4"}
    assert decode_image(encoded(9)).shape == (16, 20, 3)


def test_a_picture_by_itself_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "a.JPG").write_bytes(encoded(9))
    with pytest.raises(ValueError, match=r"a\.JPG is a picture: name the folder"):
        found(tmp_path / "a.JPG")
