"""The tool with real networks, as a user runs it: image, stream, picture, and everything that goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import difficmh
from difficmh import cli_commands
from difficmh.capsule import MODELS_VARIABLE, VOCABULARY, capsule_fingerprint
from difficmh.cli import main
from difficmh.codec import Tagger
from difficmh.images import decode_image
from tests.difficmh.tiny_capsule import TAGS, make_tiny_capsule, photograph

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.bmp"
    Image.fromarray(photograph(70, 90)).save(path)
    return path


@pytest.fixture
def stream(photo: Path, tiny_capsule: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["compress", str(photo), "--codec", str(tiny_capsule), "--quality", "5", "--tags", "car"]) == 0
    capsys.readouterr()
    return photo.with_suffix(".dicm")


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error: one line."""
    err = capsys.readouterr().err
    assert err.startswith("difficmh: ")
    assert err.count("\n") == 1
    return err


def test_the_time_of_a_picture_is_without_the_loading_of_the_tagger(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    codec = difficmh.load("lite")
    make, now = codec.tagger, time.perf_counter

    def tagger() -> Tagger:
        events.append("tagger")
        return make()

    def clock() -> float:
        events.append("clock")
        return now()

    monkeypatch.setattr(difficmh, "load", lambda *_, **__: replace(codec, tagger=tagger))
    monkeypatch.setattr(cli_commands.time, "perf_counter", clock)
    assert main(["compress", str(photo)]) == 0
    assert events[:2] == ["tagger", "clock"]


@pytest.mark.parametrize("mode", ["preview", "full"])
def test_a_picture_comes_back(photo: Path, stream: Path, tiny_capsule: Path, mode: str) -> None:
    target = stream.with_name(f"{mode}.png")
    assert main(["decompress", str(stream), str(target), "--codec", str(tiny_capsule), "--mode", mode]) == 0
    before, after = decode_image(photo.read_bytes()), decode_image(target.read_bytes())
    assert after.shape == before.shape
    (picture,) = difficmh.load(tiny_capsule).decompress([stream.read_bytes()], mode=mode)
    assert np.abs(after - 255 * picture.permute(1, 2, 0).numpy()).max() < 0.51


def test_a_picture_names_its_model_and_not_where_that_lies(stream: Path, tiny_capsule: Path) -> None:
    target = stream.with_name("out.webp")
    assert main(["decompress", str(stream), str(target), "--codec", str(tiny_capsule), "--mode", "preview"]) == 0
    data = target.read_bytes()
    assert f"Codec: tiny {capsule_fingerprint(tiny_capsule)[:8]}".encode() in data
    assert str(tiny_capsule.parent).encode() not in data


def test_a_stream_of_other_weights(stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_tiny_capsule(tmp_path, seed=1)
    assert main(["decompress", str(stream), "--codec", str(other)]) == 1
    assert f"{stream}: made with another model" in complaint(capsys)


def test_the_model_of_a_stream_is_found_by_its_fingerprint(
    stream: Path, tiny_capsule: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fetched one here; what has no name is to be named, and the line says how."""
    monkeypatch.setenv("DIFFICMH_MODELS", str(stream.parent / "nowhere"))
    assert main(["decompress", str(stream), "--mode", "preview"]) == 1
    fingerprint = capsule_fingerprint(tiny_capsule)[:8]
    assert f"{stream}: made with the model {fingerprint}, none of" in (said := complaint(capsys))
    assert said.endswith("name its model with --codec\n")
    monkeypatch.setenv("DIFFICMH_MODELS", str(tiny_capsule.parent))
    assert main(["decompress", str(stream), "--mode", "preview"]) == 0
    assert stream.with_suffix(".decoded.png").is_file()


def test_tags_of_a_model_without_a_name(stream: Path, tiny_capsule: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(stream)]) == 0
    assert "tags: unknown model (name it with --codec)" in capsys.readouterr().out
    assert main(["info", str(stream), "--codec", "lite"]) == 0
    assert "tags: unknown model" in capsys.readouterr().out
    assert main(["info", str(stream), "--codec", str(tiny_capsule)]) == 0
    assert "tags: car" in capsys.readouterr().out
    assert main(["info", str(stream), "--codec", "nothing"]) == 1
    assert "no codec 'nothing'" in complaint(capsys)


def test_a_cut_stream_needs_no_networks(
    stream: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difficmh, "load", None)
    stream.write_bytes(stream.read_bytes()[:-5])
    assert main(["decompress", str(stream)]) == 1
    assert f"{stream}: damaged" in complaint(capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mode", "preview", "--steps", "4"], "preview does not denoise"),
        (["--mode", "preview", "--sampler", "ddim"], "preview does not denoise"),
        (["--sampler", "unipc"], "sampler 'unipc' is not one of this model's: ddim"),
        (["--steps", "0"], "steps must be in 1..1000, not 0"),
    ],
)
def test_what_a_model_cannot_draw_is_said_before_it_is_loaded(
    stream: Path,
    tiny_capsule: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("difficmh.load")
    assert main(["decompress", str(stream), "--codec", str(tiny_capsule), *options]) == 2
    assert words in complaint(capsys)


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_device_that_does_not_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "a", "--device", "tpu"])
    assert ended.value.code == 2
    assert "invalid choice: 'tpu'" in capsys.readouterr().err


def test_a_damaged_model(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsule = make_tiny_capsule(tmp_path)
    with (capsule / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert main(["compress", str(photo), "--codec", str(capsule), "--no-tags"]) == 1
    assert "model.safetensors is not the file" in complaint(capsys)


def test_a_folder_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, Path(".")):
        assert main(["compress", str(folder)]) == 1
        assert complaint(capsys) == f"difficmh: {folder}: Is a directory\n"


def test_a_folder_is_no_place_to_write(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo.with_suffix(".dicm").mkdir()
    assert main(["compress", str(photo), "--force"]) == 2
    assert complaint(capsys) == f"difficmh: {photo.with_suffix('.dicm')} is a directory\n"


def test_a_dash_is_no_file(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo), "-"]) == 2
    assert complaint(capsys) == "difficmh: OUT is a file; - is none\n"


def test_a_full_disk_names_the_output_and_leaves_nothing(
    stream: Path, tiny_capsule: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    target = stream.with_name("out.png")
    before = sorted(stream.parent.iterdir())
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert main(["decompress", str(stream), str(target), "--codec", str(tiny_capsule), "--mode", "preview"]) == 1
    assert complaint(capsys) == f"difficmh: {target}: No space left on device\n"
    assert sorted(stream.parent.iterdir()) == before


def test_an_interrupt_is_no_traceback(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_commands, "decode_image", interrupt)
    assert main(["compress", str(photo)]) == 130
    assert complaint(capsys) == "difficmh: interrupted\n"


@pytest.mark.slow
@pytest.mark.timeout(300)  # three processes, two of them with torch
def test_the_built_in_model_from_a_shell(photo: Path) -> None:
    """With its own tagger; nothing but the results is printed, no library's warnings either."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "difficmh.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=photo.parent, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "photo.dicm: 90 x 70" in run("compress", "photo.bmp")
    assert "quality 3" in run("info", "photo.dicm")
    assert "photo.jpg" in run("decompress", "photo.dicm", "photo.jpg", "--mode", "preview")
    assert decode_image((photo.parent / "photo.jpg").read_bytes()).shape == (70, 90, 3)


def test_out_may_stand_behind_options(stream: Path, tiny_capsule: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = stream.with_name("behind.png")
    assert main(["decompress", str(stream), "--codec", str(tiny_capsule), "--mode", "preview", str(target)]) == 0
    assert target.is_file()
    with pytest.raises(SystemExit):
        main(["decompress", str(stream), "one.png", "--mode", "preview", "two.png"])
    assert "unrecognized arguments: two.png" in capsys.readouterr().err


def test_what_is_no_file_is_not_replaced(stream: Path, tiny_capsule: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = stream.with_name("pipe.png")
    os.mkfifo(pipe)
    assert main(["decompress", str(stream), str(pipe), "--codec", str(tiny_capsule), "--force"]) == 2
    assert "no file that could be replaced" in complaint(capsys)
    assert pipe.is_fifo()


def test_a_link_is_followed_and_permissions_stay(stream: Path, tiny_capsule: Path) -> None:
    real, link = stream.with_name("real.png"), stream.with_name("link.png")
    real.write_bytes(b"old")
    real.chmod(0o600)
    link.symlink_to(real)
    assert (
        main(["decompress", str(stream), str(link), "--codec", str(tiny_capsule), "--mode", "preview", "--force"]) == 0
    )
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"\x89PNG")
    assert real.stat().st_mode & 0o777 == 0o600


def test_a_name_that_the_terminal_cannot_spell(photo: Path, tiny_capsule: Path) -> None:
    odd = photo.rename(photo.with_name("ünï.bmp"))
    command = [sys.executable, "-m", "difficmh.cli", "compress", str(odd), "--codec", str(tiny_capsule), "--no-tags"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, odd.with_suffix(".dicm").is_file()) == (0, True), done.stderr


def test_the_tags_of_a_model(
    tiny_capsule: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built in, fetched and of a folder."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    (tmp_path / "sd21-r4").symlink_to(tiny_capsule)
    for model in (str(tiny_capsule), "sd21-r4"):
        assert main(["models", "tags", model]) == 0
        assert capsys.readouterr().out.splitlines() == list(TAGS)
    assert main(["models", "tags"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == sorted(names)
    assert "car" in names
    assert main(["models", "tags", "nothing"]) == 1
    assert "no codec 'nothing'" in complaint(capsys)


def test_tags_that_a_model_was_not_sealed_with_are_not_told(
    tiny_capsule: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Streams would be refused, or hold other tags."""
    altered = tmp_path / "altered"
    shutil.copytree(tiny_capsule, altered)
    (altered / VOCABULARY).write_text((tiny_capsule / VOCABULARY).read_text().replace('"bus"', '"bat"'))
    assert main(["models", "tags", str(altered)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tags.json is not the file that the manifest describes" in captured.err


def test_whoever_reads_tags_may_stop_early() -> None:
    command = [sys.executable, "-m", "difficmh.cli", "models", "tags"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert (running.stderr.read(), running.wait(timeout=60)) == ("", 0)
