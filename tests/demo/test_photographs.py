"""The demo's photographs are there without a download, and their shards are WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from demo.photographs import PHOTOGRAPHS, write_shards


def test_every_photograph_is_in_its_package_and_opens() -> None:
    for photograph in PHOTOGRAPHS:
        with Image.open(io.BytesIO(photograph.read())) as image:
            assert min(image.size) >= 300, photograph


def test_archive_keys_are_unique() -> None:
    keys = [photograph.archive_key for photograph in PHOTOGRAPHS]
    assert len(set(keys)) == len(keys)
    assert {"chelsea", "motorcycle.left", "motorcycle.right"} <= set(keys)


def test_shards_hold_every_file_unchanged(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    paths = write_shards(PHOTOGRAPHS, tmp_path, samples_per_shard=4)
    assert len(paths) > 1
    for path in paths:
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    for photograph in PHOTOGRAPHS:
        assert members[photograph.member] == photograph.read()
        assert json.loads(members[f"{photograph.key}.json"])["credit"] == photograph.credit


def test_same_photographs_give_the_same_shards(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_shards(PHOTOGRAPHS[:3], tmp_path / "a")]
    assert first == [path.read_bytes() for path in write_shards(PHOTOGRAPHS[:3], tmp_path / "b")]
