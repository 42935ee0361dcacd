"""The snippets of docs/operations.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pipeline
from pipeline.archive import Archive
from pipeline.commit import output_name
from pipeline.records import ShardSource
from tests.pipeline.archives import row, write_archive
from tests.test_layering import ROOT


@pytest.fixture
def snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """They speak of `archive`, its first shard and the key 000123 there."""
    write_archive(
        tmp_path / "archive", [row(key, shard) for shard in ("in/a.tar", "in/b.tar") for key in ("000123", "1")]
    )
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "operations.md").read_text()
    text = text.replace("s3://bucket/archive", "archive")
    text = text.replace("day01-0123456789ab", output_name(ShardSource("in/a.tar", 0, "")))
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_shards_set_aside_and_bytes(snippets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    exec(snippets[0], {})
    shown = capsys.readouterr().out
    assert "0 rows" in shown
    assert str(sum(path.stat().st_size for path in Path("archive").rglob("*") if path.is_file())) in shown


def test_streams_are_looked_at(snippets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    exec(snippets[1], {})
    lines = capsys.readouterr().out.splitlines()  # the archive's streams are a fake codec's
    assert [line.split()[1] for line in lines] == ["000123", "1"] * 2
    assert all("not a difficmh bitstream" in line for line in lines)


def test_a_picture_is_deleted(snippets: list[str]) -> None:
    exec(snippets[2], {})
    archive: Archive = pipeline.Archive.open("archive")
    left = [(known["shard"], known["key"]) for known in archive.query(columns=["key", "shard"]).to_pylist()]
    assert sorted(left) == [("in/a.tar", "1"), ("in/b.tar", "000123"), ("in/b.tar", "1")]
    assert archive.info().totals.images == 3
    assert archive.bitstream("1", shard="in/a.tar")
