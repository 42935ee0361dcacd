"""The demo from photographs to page, through the real jobs; without Ray, and with a codec without networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import __main__ as demo
from demo.photographs import PHOTOGRAPHS
from tests.jobs import reading

SHOWN = tuple(photograph for photograph in PHOTOGRAPHS if photograph.key in ("chelsea", "flower"))


@pytest.fixture(autouse=True)
def jobs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs run in this process, on two of the photographs."""
    reading.all_without_ray(monkeypatch, tmp_path)
    monkeypatch.setattr(demo, "PHOTOGRAPHS", SHOWN)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def test_photographs_become_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    demo.main(["--output", str(output), "--quality", "2"])
    page = (output / "index.html").read_text()
    assert page.count("data:image/webp") == 3 * len(SHOWN)
    assert f"{output}/archive" in page
    assert (output / "side-by-side.jpg").is_file()
    printed = capsys.readouterr().out
    for part in ("python jobs/compress_dataset.py", "--quality 2", "2 photographs", "chelsea", "flower", "preview "):
        assert part in printed


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for quality in ("2", "4"):
        demo.main(["--output", str(output), "--quality", quality])
    assert "quality 4" in (output / "index.html").read_text()


def test_a_job_that_fails_ends_the_demo_with_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(["--output", str(tmp_path / "out"), "--quality", "9"])
    assert ended.value.code == 2
    assert "quality 9" in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_folder_that_is_not_the_demo_s_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "archive" / "photo.jpg"
    precious.parent.mkdir()
    precious.write_bytes(b"the only copy")
    with pytest.raises(SystemExit, match="archive"):
        demo.main(["--output", str(tmp_path)])
    assert precious.read_bytes() == b"the only copy"
