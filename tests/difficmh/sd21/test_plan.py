"""What a preset needs and what would be downloaded, without torch, network or files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21.fetch import Fetcher
from difficmh.sd21.plan import CAPSULE_BYTES, PRESETS, check_before, describe, fetch_all, plan, remove_downloads
from difficmh.sd21.sources import SHARED
from tests.difficmh.sd21.fake_server import DATA, URL, Server


def test_every_preset_is_planned_with_sizes(tmp_path: Path) -> None:
    for name in PRESETS:
        files = plan(name, {}, tmp_path)
        assert {file.role for file in files} == {*SHARED, "checkpoint"}
        assert sum(file.missing for file in files) == pytest.approx(11_656_000_000, rel=1e-3)
    with pytest.raises(ValueError, match="no released model 'sd21-r3'"):
        plan("sd21-r3", {}, tmp_path)


def test_checkpoints_of_two_presets_do_not_meet(tmp_path: Path) -> None:
    places = [file.name for name in PRESETS for file in plan(name, {}, tmp_path) if file.role == "checkpoint"]
    assert len(set(places)) == len(PRESETS)


def test_what_is_here_is_not_counted(tmp_path: Path) -> None:
    here = tmp_path / "licences" / "RAM.txt"
    here.parent.mkdir()
    here.write_bytes(b"x")
    partial = tmp_path / "sd21-r4" / "model.ckpt.partial"
    partial.parent.mkdir()
    partial.write_bytes(bytes(2_000_000))
    files = {file.role: file for file in plan("sd21-r4", {}, tmp_path)}
    assert files["licences/RAM.txt"].missing == 0
    assert files["checkpoint"].missing == 11_654_100_259 - 2_000_000
    lines = describe(files.values(), tmp_path / "sd21-r4", "bfloat16")
    assert any("11.65 GB; 2.00 MB of it here" in line for line in lines)
    assert lines[-2].startswith("to download: 11.65 GB")
    assert "4.20 GB" in lines[-1]


def test_other_locations_replace_and_join(tmp_path: Path) -> None:
    others = {"checkpoint": f"{URL}?a=1/2", "tagger": "hub://o/n/ram.pth", "stable_diffusion": None}
    files = {file.role: file for file in plan("sd21-r4", others, tmp_path)}
    assert files["checkpoint"].name == "sd21-r4/model.ckpt"
    assert (files["tagger"].name, files["tagger"].size) == ("tagger/ram.pth", None)
    assert "stable_diffusion" not in files
    assert describe(files.values(), tmp_path, "float32")[-2].endswith("and 2 of unknown size")


def test_what_cannot_work_is_refused_before_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = plan("sd21-r4", {}, tmp_path / "downloads")
    (tmp_path / "there").mkdir()
    with pytest.raises(CapsuleError, match="exists already"):
        check_before(files, tmp_path / "downloads", tmp_path / "there", "float32")
    lost = plan("sd21-r4", {"checkpoint": str(tmp_path / "lost.ckpt")}, tmp_path)
    with pytest.raises(CapsuleError, match=r"no file .*lost\.ckpt \(checkpoint\)"):
        check_before(lost, tmp_path, tmp_path / "new", "float32")
    usage = shutil.disk_usage(tmp_path)._replace(free=11_700_000_000)
    monkeypatch.setattr("difficmh.sd21.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(CapsuleError, match=r"11\.7 GB free, and 19\.9 GB are needed"):
        check_before(files, tmp_path / "downloads", tmp_path / "new", "float32")
    usage = usage._replace(free=11_656_000_000 + CAPSULE_BYTES["float32"] + (80 << 20))
    check_before(files, tmp_path / "downloads", tmp_path / "new", "float32")


def test_everything_planned_is_fetched_by_role(tmp_path: Path) -> None:
    files = [file for file in plan("sd21-r4", {"checkpoint": URL}, tmp_path) if file.role == "checkpoint"]
    found = fetch_all(files, Fetcher(tmp_path, Server()))
    assert found["checkpoint"].path == tmp_path / "sd21-r4" / "model.ckpt"
    assert found["checkpoint"].path.read_bytes() == DATA
    again, other = (
        next(file for file in plan("sd21-r4", {"checkpoint": url}, tmp_path) if file.role == "checkpoint")
        for url in (URL, URL.replace("org", "net"))
    )
    assert (again.whole, again.missing) == (True, 0)
    assert (other.whole, other.name) == (False, again.name)


def test_a_download_that_is_also_given_by_its_path_is_not_removed(tmp_path: Path) -> None:
    downloaded = [file for file in plan("sd21-r4", {"checkpoint": URL}, tmp_path) if file.role == "checkpoint"]
    fetched = fetch_all(downloaded, Fetcher(tmp_path, Server()))
    path = str(fetched["checkpoint"].path)
    given = [file for file in plan("sd21-r4", {"tagger": path}, tmp_path) if file.role == "tagger"]
    everything = fetched | fetch_all(given, Fetcher(tmp_path))
    assert remove_downloads([*downloaded, *given], everything, tmp_path) == 0
    assert Path(path).exists()
    assert remove_downloads(downloaded, fetched, tmp_path) == len(DATA)
    assert [left.name for left in tmp_path.iterdir()] == ["fetched.json"]


RUN = "CNscale1.0_1_1_8_2_WTagGCM_bs16x1_lr0.00005_cfg7.0"


@pytest.mark.parametrize(
    "location",
    ["sd21-r8/model.ckpt", "s3://r4/difficmh_r8.ckpt", f"hub://o/n/{RUN}/model.ckpt", "https://x.org/R8.ckpt?v=r4"],
)
def test_a_checkpoint_of_another_rate_by_its_name_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(CapsuleError, match="is of sd21-r8 by its name, not of sd21-r4"):
        plan("sd21-r4", {"checkpoint": location}, tmp_path)
    assert plan("sd21-r8", {"checkpoint": location}, tmp_path)


@pytest.mark.parametrize("location", ["model.ckpt", "s3://r8/model.ckpt", "r81.ckpt", "sd21-r8/r4.ckpt", "for8.ckpt"])
def test_names_that_state_no_other_rate_are_taken(tmp_path: Path, location: str) -> None:
    assert plan("sd21-r4", {"checkpoint": location}, tmp_path)
