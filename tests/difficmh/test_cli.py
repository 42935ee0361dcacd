"""The tool around a codec without networks that writes real bitstreams: one mean colour per image, and its tags."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difficmh
from difficmh import bitstream, capsule, cli_commands
from difficmh.cdf_tables import gaussian_tables
from difficmh.cli import main
from difficmh.codec import Tagger
from difficmh.errors import BitstreamError, CapsuleError
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.tag_coder import TagPrior, decode_tags, encode_tags
from difficmh.vocabulary import TagScore

PRIOR = TagPrior(("bus", "car", "road"), np.array([2000, 9000, 8000], np.uint16))
TABLES = gaussian_tables()
CHANNELS = np.full(3, 60)


class ColourCodec:
    name = "lite"
    fingerprint = "0123456789abcdef"
    prior = PRIOR

    def tag(self, images: Sequence[np.ndarray]) -> list[list[TagScore]]:
        return [[TagScore("car", 0.9), TagScore("road", 0.8)] for _ in images]

    def tagger(self) -> Tagger:
        return self.tag

    def compress(
        self,
        images: Sequence[np.ndarray],
        *,
        quality: int = 3,
        tags: Sequence[Sequence[str]] | None = None,
        effort: int = 0,
    ) -> list[bytes]:
        if effort:
            raise ValueError(f"effort {effort} is not in 0..0, what this takes")
        if not 1 <= quality <= 6:
            raise ValueError(f"quality {quality} is not in 1..6")
        names = tags if tags is not None else [[score.name for score in scores] for scores in self.tag(images)]
        return [self._one(image, quality, found) for image, found in zip(images, names, strict=True)]

    def decompress(self, bitstreams: Sequence[bytes], *, mode: str = "full") -> list[torch.Tensor]:
        return [self._picture(data, mode) for data in bitstreams]

    def _one(self, image: np.ndarray, quality: int, tags: Sequence[str]) -> bytes:
        encoder = SymbolEncoder()
        encode_tags(tags, PRIOR, encoder)
        encoder.push(image.mean(axis=(0, 1)).astype(int), CHANNELS, TABLES)
        header = bitstream.Header(*image.shape[:2], quality, self.fingerprint[:8])
        return bitstream.pack(header, encoder.finish(), encoder.checksum)

    def _picture(self, data: bytes, mode: str) -> torch.Tensor:
        frame = bitstream.unpack(data, fingerprint=self.fingerprint)
        decoder = SymbolDecoder(frame.payload)
        decode_tags(decoder, PRIOR)
        colour = torch.from_numpy(decoder.pull(CHANNELS, TABLES)) // (2 if mode == "preview" else 1)
        if decoder.checksum != frame.symbol_checksum:
            raise BitstreamError("damaged: symbols")
        return (colour / 255.0)[:, None, None].expand(3, frame.header.height, frame.header.width)


@pytest.fixture(autouse=True)
def _codec(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, device: str = "cpu") -> ColourCodec:
        if name != "lite":
            raise CapsuleError(f"no model {name!r}; there is lite")
        return ColourCodec()

    def inspect(data: bytes) -> bitstream.BitstreamInfo:
        return bitstream.inspect(data, {ColourCodec.fingerprint[:8]: PRIOR}.get)

    monkeypatch.setattr(cli_commands, "capsule_of", {ColourCodec.fingerprint[:8]: "lite"}.get)
    monkeypatch.setattr(difficmh, "load", load, raising=False)
    monkeypatch.setattr(difficmh, "inspect", inspect, raising=False)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (48, 32), (200, 100, 50)).save(path, quality=95)
    return path


@pytest.fixture
def stream(photo: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["compress", str(photo)]) == 0
    capsys.readouterr()
    return photo.with_suffix(".dicm")


def inspected(path: Path) -> bitstream.BitstreamInfo:
    return difficmh.inspect(path.read_bytes())


def test_compress_writes_a_bitstream_beside_the_image(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo)]) == 0
    described = inspected(photo.with_suffix(".dicm"))
    assert (described.height, described.width, described.quality) == (32, 48, 3)
    assert described.tags == ("car", "road")
    out = capsys.readouterr().out
    for part in ("48 x 32", f"{described.bytes} bytes", "bit/pixel", "car, road", " s\n"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "tags"), [(["--tags", " bus , road,bus"], ("bus", "road")), (["--no-tags"], ()), (["--tags", ""], ())]
)
def test_tags_can_be_given(photo: Path, tmp_path: Path, arguments: list[str], tags: tuple[str, ...]) -> None:
    target = tmp_path / "small.dicm"
    assert main(["compress", str(photo), str(target), "--quality", "1", *arguments]) == 0
    assert inspected(target).tags == tags
    assert inspected(target).quality == 1


@pytest.mark.parametrize(("mode", "colour"), [("full", (200, 100, 50)), ("preview", (100, 50, 25))])
def test_decompress_gives_the_picture_of_the_mode(stream: Path, mode: str, colour: tuple[int, ...]) -> None:
    target = stream.with_name("again.png")
    assert main(["decompress", str(stream), str(target), "--mode", mode]) == 0
    with Image.open(target) as file:
        picture = np.asarray(file)
    assert picture.shape == (32, 48, 3)
    assert np.abs(picture.astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "name", "form"),
    [
        ([], "photo.decoded.png", "PNG"),
        (["--format", "webp"], "photo.decoded.webp", "WEBP"),
        (["OUT.JPEG"], "OUT.JPEG", "JPEG"),
        (["OUT", "--format", "jpg"], "OUT", "JPEG"),
    ],
)
def test_the_format_follows_option_or_suffix(stream: Path, arguments: list[str], name: str, form: str) -> None:
    arguments = [str(stream.with_name(part)) if part.startswith("OUT") else part for part in arguments]
    assert main(["decompress", str(stream), *arguments]) == 0
    with Image.open(stream.with_name(name)) as picture:
        assert picture.format == form


def test_a_picture_without_a_name_does_not_aim_at_the_original(
    stream: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even with --force, which a refusal to replace a file would advise."""
    before = photo.read_bytes()
    assert main(["decompress", str(stream), "--format", "jpg", "--force"]) == 0
    assert photo.read_bytes() == before
    assert "photo.decoded.jpg" in capsys.readouterr().out


def test_pictures_are_marked_as_reconstructions(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decompress", str(stream)]) == 0
    data = stream.with_suffix(".decoded.png").read_bytes()
    image = Image.open(io.BytesIO(data))
    assert "difficmh" in image.getexif()[305]
    assert "Reconstruction" in image.getexif()[270]
    assert b"Mode: full" in data
    assert "reconstruction" in capsys.readouterr().out


def test_info_prints_what_streams_say(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(stream)]) == 0
    out = capsys.readouterr().out
    for part in ("48 x 32", "car, road", "quality 3", "model 01234567", "v1"):
        assert part in out


def test_info_as_json_goes_on_after_a_bad_file(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = stream.with_name("bad.dicm")
    bad.write_bytes(stream.read_bytes()[:-1])
    assert main(["info", "--json", str(bad), str(stream.with_name("missing")), str(stream)]) == 1
    captured = capsys.readouterr()
    (entry,) = json.loads(captured.out)
    assert entry["file"] == str(stream)
    assert entry["tags"] == ["car", "road"]
    assert entry["width"] == 48
    first, second = captured.err.splitlines()
    assert "bad.dicm: damaged" in first
    assert "missing: No such file" in second


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_missing_input_is_one_line(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "missing.dicm"), str(tmp_path / "out.png")]) == 1
    assert capsys.readouterr().err == f"difficmh: {tmp_path / 'missing.dicm'}: No such file or directory\n"


def test_an_input_of_another_kind_is_named(photo: Path, stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decompress", str(photo)]) == 1
    assert main(["compress", str(stream), str(photo.with_name("other.dicm"))]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"difficmh: {photo}: not a difficmh bitstream"
    assert second.startswith(f"difficmh: {stream}: ")


def test_damage_leaves_no_file(stream: Path) -> None:
    data = bytearray(stream.read_bytes())
    data[-1] ^= 1
    stream.write_bytes(data)
    before = sorted(stream.parent.iterdir())
    assert main(["decompress", str(stream)]) == 1
    assert sorted(stream.parent.iterdir()) == before


def test_an_unknown_model_is_an_error(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo), "--codec", "heavy"]) == 1
    assert "no model 'heavy'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "9"], "quality 9 is not in 1..6"),
        (["--tags", "car,unicorn"], "unicorn"),
        (["nowhere/out.dicm"], "not a directory"),
    ],
)
def test_wrong_use_is_one_line(
    photo: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(photo), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["out.tiff"], "which image format"), (["out.jpg", "--format", "png"], "the suffix is not that of")],
)
def test_formats_that_cannot_be_written_are_wrong_use(
    stream: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decompress", str(stream), str(stream.with_name(arguments[0])), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("form", ["jpg", "webp"])
def test_the_quality_of_the_file_can_be_chosen(stream: Path, form: str) -> None:
    errors = []
    for number, quality in enumerate((["--picture-quality", "5"], ["--picture-quality", "100"], [])):
        target = stream.with_name(f"{number}.{form}")
        assert main(["decompress", str(stream), str(target), *quality]) == 0
        errors.append(_error_of(target))
    assert errors[0] > max(errors[1:])


def _error_of(picture: Path) -> int:
    with Image.open(picture) as file:
        return int(np.abs(np.asarray(file).astype(int) - (200, 100, 50)).max())


def test_a_png_has_no_quality(stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--format", "png"], [str(stream.with_name("out.png"))]):
        assert main(["decompress", str(stream), *arguments, "--picture-quality", "90"]) == 2
        assert "--picture-quality is for jpg and webp" in capsys.readouterr().err
    for wrong in ("0", "101", "high"):
        with pytest.raises(SystemExit):
            main(["decompress", str(stream), "--format", "jpg", "--picture-quality", wrong])


def test_nothing_is_overwritten_unless_forced(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = photo.with_suffix(".dicm")
    target.write_bytes(b"precious")
    assert main(["compress", str(photo)]) == 2
    assert target.read_bytes() == b"precious"
    assert "--force" in capsys.readouterr().err
    assert main(["compress", str(photo), "--force"]) == 0
    assert inspected(target).width == 48


def test_effort_reaches_the_codec(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(photo), "--effort", "9"]) == 2
    assert "effort 9 is not in" in capsys.readouterr().err
    assert main(["compress", str(photo), "--effort", "0"]) == 0


def test_trouble_with_a_gpu_is_one_line(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(next(messages))

    messages = iter(["CUDA out of memory. Tried to allocate 2 GiB\nSee the documentation", "a defect"])
    monkeypatch.setattr(difficmh, "load", broken)
    assert main(["compress", str(photo), "--device", "cuda"]) == 1
    assert capsys.readouterr().err == "difficmh: CUDA out of memory. Tried to allocate 2 GiB\n"
    with pytest.raises(RuntimeError, match="a defect"):
        main(["compress", str(photo)])


def test_the_input_is_never_overwritten(photo: Path) -> None:
    before = photo.read_bytes()
    assert main(["compress", str(photo), str(photo), "--force"]) == 2
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["models"],
        ["compress"],
        ["compress", "a", "--tags", "b", "--no-tags"],
        ["compress", "a.png", "--tags", "car,", "street"],
        ["models", "fetch", "sd21-r4", "sd21-r8", "--dry-run"],
        ["models", "tags", "lite", "lite"],
    ],
)
def test_arguments_that_make_no_sense_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("command", [[], ["compress"], ["decompress"], ["info"], ["models"], ["models", "verify"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    assert "usage: difficmh" in capsys.readouterr().out


def write_capsule(place: Path) -> str:
    """Files that a manifest seals and nothing could load; the fingerprint."""
    place.mkdir()
    for name in capsule.DECODING_FILES:
        (place / name).write_text(name)
    return capsule.write_manifest(place)


def test_models_are_listed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    fingerprint = write_capsule(small)
    monkeypatch.setattr(capsule, "BUILT_IN", tmp_path)
    assert main(["models", "list"]) == 0
    assert main(["models", "verify"]) == 0
    assert main(["models", "verify", str(small)]) == 0
    out = capsys.readouterr().out
    assert out.count(fingerprint) == 3
    assert out.count("intact") == 2
    (small / "tags.json").write_text("tags.jsom")
    assert main(["models", "verify", "missing", "small"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("difficmh: missing: no codec")
    assert "tags.json is not the file" in second


@pytest.mark.parametrize("files", ["[]", '{"tags.json": 3}', '{"tags.json": {"bytes": "9"}}'])
def test_a_broken_model_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: str
) -> None:
    for name in ("a", "b"):
        write_capsule(tmp_path / name)
    (tmp_path / "a" / capsule.MANIFEST).write_text(f'{{"format": 1, "fingerprint": "0", "files": {files}}}')
    monkeypatch.setattr(capsule, "BUILT_IN", tmp_path)
    assert main(["models", "list"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("b\t")
    assert "a is no model capsule" in printed.err


def test_the_tool_starts_without_torch() -> None:
    code = "import sys, difficmh.cli; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
