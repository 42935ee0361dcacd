"""Bringing archive, photographs and decoded files together."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.photographs import PHOTOGRAPHS
from demo.results import ArchivedPicture, collect_pictures, most_useful_tag, tag_query
from pipeline.query import Where
from pipeline.table import ARCHIVE_SCHEMA

CHELSEA = next(photograph for photograph in PHOTOGRAPHS if photograph.key == "chelsea")
ARCHIVED = ArchivedPicture("chelsea", ["cat"], 451, 300, original_bytes=240_512, bits_per_pixel=0.5, psnr_db=30.5)


def decode_image(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def decoded(tmp_path: Path) -> dict[str, Path]:
    """What the decode job leaves: a folder per part with a file per key."""
    folders = {}
    for level, mode in ((50, "preview"), (150, "full")):
        folders[mode] = tmp_path / mode
        part = folders[mode] / "photographs-000000-0123456789ab"
        part.mkdir(parents=True)
        Image.new("RGB", (451, 300), (level,) * 3).save(part / "chelsea.png")
    return folders


def test_picture_has_the_decoded_files_and_the_row(decoded: dict[str, Path]) -> None:
    (picture,) = collect_pictures(PHOTOGRAPHS, {"chelsea": ARCHIVED}, decoded, decode_image)
    assert (picture.preview.mean(), picture.full.mean()) == (50, 150)
    assert picture.original.shape == (300, 451, 3)
    assert picture.stored_bytes == round(0.5 * 451 * 300 / 8)
    assert picture.original_bytes == len(CHELSEA.read())
    assert (picture.tags, picture.preview_psnr, picture.original_format) == (["cat"], 30.5, "PNG")


def test_missing_file_is_named(decoded: dict[str, Path]) -> None:
    next(decoded["full"].rglob("*.png")).unlink()
    with pytest.raises(FileNotFoundError, match=r"chelsea\.png"):
        collect_pictures(PHOTOGRAPHS, {"chelsea": ARCHIVED}, decoded, decode_image)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([["cat"], ["cat", "car"], ["dog"]], "cat"),
        ([["outdoors", "cat"], ["outdoors", "dog"]], "cat"),
        ([["outdoors"], ["outdoors"]], "outdoors"),
        ([[], []], None),
    ],
)
def test_search_is_for_a_tag_that_tells_pictures_apart(tags: list[list[str]], expected: str | None) -> None:
    assert most_useful_tag(replace(ARCHIVED, tags=each) for each in tags) == expected


def test_query_is_one_that_the_archive_takes() -> None:
    schema = ARCHIVE_SCHEMA.remove(ARCHIVE_SCHEMA.get_field_index("bitstream"))
    for tag in ("cat", "cat's eye"):
        assert Where(tag_query(tag), schema).columns == ["tags"]
