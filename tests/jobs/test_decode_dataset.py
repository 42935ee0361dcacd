from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import decode_dataset
from pipeline.actors import pool_size
from pipeline.archive import Archive
from pipeline.storage import Storage
from tests.jobs import reading
from tests.pipeline.archives import put, write_archive


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    reading.without_ray(monkeypatch)
    reading.with_fake_codec(monkeypatch, tmp_path / "cache")
    return lambda *arguments: decode_dataset.main([str(argument) for argument in arguments])


def test_pictures_as_files(main: Any, tmp_path: Path) -> None:
    url, output = reading.archive(tmp_path), tmp_path / "out"
    assert main("--archive", url, "--output", output, "--layout", "files", "--format", "webp") == 0
    found = sorted(path.relative_to(output / "data").as_posix().split("/", 1)[1] for path in output.rglob("*.webp"))
    assert found == ["000.webp", "001.webp", "_/002.webp"]
    (picture,) = output.rglob("000.webp")
    with Image.open(picture) as image:
        assert "not the original photograph" in image.getexif()[0x010E]
        assert "difficmh" in image.getexif()[0x0131]
    described = json.loads((output / "pictures.json").read_text())
    assert described["settings"]["format"] == "webp"
    assert described["config"]["layout"] == "files"


def test_quality_decides_the_size(main: Any, tmp_path: Path) -> None:
    url = reading.archive(tmp_path)
    sizes = []
    for quality in (10, 95):
        output = tmp_path / f"out{quality}"
        assert main("--archive", url, "--output", output, "--layout", "files", "--quality", quality) == 0
        sizes.append(sum(path.stat().st_size for path in output.rglob("*.jpg")))
    assert sizes[0] < sizes[1]


def test_how_pictures_are_drawn_decides_what_is_written(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = reading.archive(tmp_path)
    put(Storage.from_url(url), "capsule/config.json", b"{}")
    known = ("--archive", url, "--output", tmp_path / "out", "--mode", "reference", "--sampler", "ddim")
    assert main(*known, "--steps", "7", "--dtype", "float32") == 0
    settings = json.loads((tmp_path / "out" / "pictures.json").read_text())["settings"]
    drawn = {name: settings[name] for name in ("mode", "steps", "sampler", "dtype")}
    assert drawn == {"mode": "reference", "steps": 7, "sampler": "ddim", "dtype": "float32"}
    for changed, line in ((("--dtype", "float32"), "steps 7, not None"), (("--steps", "7"), "dtype float32, not None")):
        assert main(*known, *changed) == 2
        assert line in capsys.readouterr().err


@pytest.mark.parametrize("asked", [("--sampler", "unipc"), ("--dtype", "float16")])
def test_what_the_model_cannot_draw_claims_no_output(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    url = reading.archive(tmp_path)
    put(Storage.from_url(url), "capsule/config.json", b"{}")
    assert main("--archive", url, "--output", tmp_path / "out", *asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert asked[1] in line
    assert line.startswith(f"error: {url}: ")
    assert "ValueError" not in line
    assert not (tmp_path / "out").exists()


def test_a_start_that_fails_claims_no_output(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.job.pool_size", pool_size)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    assert main("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--device", "cuda") == 2
    assert "no machine with a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--dry-run") == 0
    assert "0 shards done, 2 to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_how_many_images_match(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--dry-run")
    assert main(*known, "--where", "'car' = ANY(tags)") == 0
    assert "1 of 3 images match --where" in capsys.readouterr().out.splitlines()
    assert main(*known) == 0
    assert "--where" not in capsys.readouterr().out


def test_trouble_with_the_archive_is_not_told_of_the_output(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = reading.archive(tmp_path)

    def refuse(self: Archive, where: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Archive, "keys", refuse)
    assert main("--archive", archive, "--output", tmp_path / "out", "--dry-run", "--where", "width > 0") == 2
    assert capsys.readouterr().err.startswith(f"error: {archive}: access denied")


def test_a_query_without_a_hit_says_so(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", "--where")
    assert main(*known, "key = 'nowhere'", "--dry-run") == 0
    assert "0 of 3 images match --where" in capsys.readouterr().out
    assert main(*known, "key = 'nowhere'") == 0
    shown = capsys.readouterr().out
    assert "images      0 (0 rejected, 3 not asked for)" in shown
    assert "no image matches --where" in shown


def test_a_relative_path_is_the_same_place(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading.archive(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main("--archive", "archive", "--output", "out/") == 0
    assert f"{tmp_path}/out: 0 shards done" in capsys.readouterr().out
    assert main("--archive", tmp_path / "archive", "--output", tmp_path / "out") == 0
    assert "2 shards done, 0 to do" in capsys.readouterr().out


def test_another_archive_does_not_mix_in(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--archive", reading.archive(tmp_path), "--output", tmp_path / "out") == 0
    assert main("--archive", reading.archive(tmp_path / "other"), "--output", tmp_path / "out") == 2
    assert "other/archive" in capsys.readouterr().err


def test_the_model_is_kept_where_it_is_wanted(main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = reading.archive(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main("--archive", url, "--output", tmp_path / "out", "--cache", "models") == 0
    assert [path.read_text() for path in (tmp_path / "models").rglob("codec.txt")] == ["fake"]


def test_rejects_above_the_limit(main: Any, tmp_path: Path) -> None:
    known = ("--archive", reading.archive(tmp_path, damaged=True), "--output", tmp_path / "out")
    assert main(*known) == 1
    assert main(*known, "--max-rejects", "1") == 0


def test_other_settings_do_not_mix(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("--archive", reading.archive(tmp_path), "--output", tmp_path / "out")
    assert main(*known, "--where", "key = '000'") == 0
    assert main(*known) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(*known, "--overwrite") == 0
    names: list[str] = []
    for path in (tmp_path / "out").rglob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert {name for name in names if name.endswith(".jpg")} == {"000.jpg", "001.jpg", "_/002.jpg"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "colour = 1"), "columns: key, image_name"),
        (("--archive", "/nowhere/archive"), "no archive at /nowhere/archive"),
        (("--archive", "nonsense://x"), "nonsense"),
    ],
)
def test_errors_are_one_message_and_status_2(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert main("--archive", reading.archive(tmp_path), "--output", tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quality", "0"), "'0' is not a number from 1 to 100"),
        (("--quality", "50", "--format", "png"), "--quality is for jpg and webp"),
        (("--format", "gif"), "'gif'"),
        (("--mode", "best"), "'best'"),
        (("--mode", "preview", "--steps", "4"), "--mode preview has none"),
        (("--steps", "1001"), "'1001' is not a number from 1 to 1000"),
        (("--device", "tpu"), "'tpu'"),
        (("--workers", "0"), "'0' is not auto or a number above 0"),
        (("--max-rejects", "150%"), "'150%' is not a count, or a fraction such as 0.01 or 1%"),
        (("--storage-options", "[1]"), "'[1]' is not a JSON object"),
    ],
)
def test_wrong_usage_says_what_is_wanted(
    main: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main("--archive", "a", "--output", "b", *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_archive_is_only_read(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = reading.archive(tmp_path)
    before = sorted(Path(url).rglob("*"))
    for inside in ("", "/", "/pictures", "/data/.."):
        assert main("--archive", url, "--output", url + inside, "--overwrite") == 2
        assert "choose another place" in capsys.readouterr().err
    assert sorted(Path(url).rglob("*")) == before


def test_an_archive_is_only_read_by_whatever_name(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = reading.archive(tmp_path)
    before = sorted(Path(url).rglob("*"))
    (tmp_path / "link").symlink_to(url)
    (tmp_path / "reports").symlink_to(f"{url}/reports")
    for archive, output in (
        (f"file://{url}", f"{url}/reports"),
        (url, f"file://{url}/new"),
        (url, f"{tmp_path}/link/new"),
        (f"{tmp_path}/link", f"{tmp_path}/reports"),
    ):
        assert main("--archive", archive, "--output", output, "--overwrite") == 2
        assert "lies inside the archive" in capsys.readouterr().err
    assert sorted(Path(url).rglob("*")) == before


def test_places_that_are_none(main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = reading.archive(tmp_path)
    for output in ("", "s3://", "file:///"):
        assert main("--archive", url, "--output", output) == 2
        assert f"{output!r} names no folder" in capsys.readouterr().err
    assert main("--archive", f"{url}/archive.json", "--output", tmp_path / "out") == 2
    assert "archive.json: is a file, not a folder" in capsys.readouterr().err


@pytest.mark.s3
@pytest.mark.ray
def test_on_ray_over_s3(s3: Any, ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading.with_fake_codec(monkeypatch, tmp_path / "cache")
    storage = write_archive(f"{s3.url}/archive", [*reading.ROWS, reading.DAMAGED], s3.storage_options)
    arguments = ["--archive", storage.url, "--output", f"{s3.url}/pictures", "--format", "png", "--workers", "1"]
    options = ["--storage-options", json.dumps(s3.storage_options)]
    assert decode_dataset.main([*arguments, *options]) == 1
    output = Storage.from_url(f"{s3.url}/pictures", s3.storage_options)
    names: list[str] = []
    for path in output.list("data"):
        with tarfile.open(fileobj=io.BytesIO(output.read(path))) as tar:
            names += tar.getnames()
    assert sorted(name for name in names if name.endswith(".png")) == ["000.png", "001.png", "_/002.png"]
    assert len(output.list("rejects")) == 1
    assert not any(s3.storage_options["secret"] in output.read(path).decode() for path in ("pictures.json",))
