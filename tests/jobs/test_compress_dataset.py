"""The compression job as users run it: arguments, archive, resume, errors; with a fake codec on a real Ray."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import difficmh
from difficmh.capsule import write_manifest
from jobs import compress_dataset
from jobs.compress_dataset import main
from pipeline.compress import CompressJob
from pipeline.compress_request import InstalledCodec
from pipeline.manifest import Manifest
from pipeline.storage import Storage
from pipeline.table import open_part
from tests import corpora
from tests.difficmh.tiny_capsule import make_tiny_capsule
from tests.fakes import FINGERPRINT, FakeCodec, FakeCodecFactory, LocalPool
from tests.http_server import serving
from tests.jobs.reading import without_ray
from tests.s3_server import Bucket


@pytest.fixture(autouse=True)
def fake_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """`--codec` gives a fake one; what a test puts into the dictionary changes it."""
    capsule = tmp_path / "capsule"
    capsule.mkdir()
    (capsule / "config.json").write_text("{}")
    (capsule / "manifest.json").write_text('{"files": {"config.json": {}}}')
    known = {"fingerprint": FINGERPRINT}

    def installed(name: str) -> InstalledCodec:
        return InstalledCodec("fake", known["fingerprint"], capsule, FakeCodecFactory(capsule), range(1, 7), 3, 1000)

    monkeypatch.setattr(compress_dataset, "installed_codec", installed)
    return known


def rows(archive: Storage, folder: str = "data") -> list[dict[str, Any]]:
    parts = [open_part(io.BytesIO(archive.read(path))) for path in archive.list(folder)]
    return [row for part in parts for row in part.read().to_pylist()]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_shards_to_archive_and_resume(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(corpus / "*.tar"), "--archive", str(tmp_path / "archive")]
    archive = Storage.from_url(str(tmp_path / "archive"))
    assert main([*arguments, "--dry-run"]) == 0
    assert "0 shards done, 2 to do" in capsys.readouterr().out
    assert archive.list() == []

    assert main([*arguments, "--workers", "1"]) == 0
    assert [row["key"] for row in rows(archive)] == [f"{number:06d}" for number in range(6)]
    assert archive.list("capsule") == ["capsule/config.json", "capsule/manifest.json"]
    assert "2/2 shards, 6 images" in (output := capsys.readouterr()).err
    assert "images      6 (0 rejected, 0 skipped)" in output.out
    manifest = json.loads(archive.read("archive.json"))
    assert manifest["config"]["input"] == [str(corpus / "*.tar")]
    assert manifest["codec_fingerprint"] == FINGERPRINT
    before = archive.scan()

    assert main(arguments) == 0
    assert "2 shards done, 0 to do" in capsys.readouterr().out
    assert archive.scan() == before, "a complete archive is not touched"

    corpora.write_corpus(corpus, shards=3)
    (corpus / "corpus-000000.tar").unlink()
    (corpus / "corpus-000001.tar").unlink()
    assert main(arguments) == 0
    assert len(rows(archive)) == 9


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_too_many_rejects_make_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(corpora.odd_shards()["not-an-image"])
    arguments = ["--input", str(tmp_path / "a.tar"), "--archive", str(tmp_path / "archive")]
    assert main(arguments) == 1
    assert main([*arguments, "--max-rejects", "1"]) == 0
    (reject,) = rows(Storage.from_url(str(tmp_path / "archive")), "rejects")
    assert (reject["key"], reject["data"]) == ("000009", b"these bytes are no picture")


def test_an_effort_that_the_codec_has_not_claims_no_archive(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--input", str(corpus), "--archive", str(tmp_path / "archive"), "--effort", "1001"]) == 2
    assert one_error(capsys) == "error: fake cannot compress with effort 1001: it takes 0 to 1000"
    assert not (tmp_path / "archive").exists()


def test_a_start_that_fails_claims_no_archive(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    assert main(["--input", str(corpus), "--archive", str(tmp_path / "archive"), "--device", "cuda"]) == 2
    assert "no machine with a GPU" in one_error(capsys)
    assert not (tmp_path / "archive").exists()


def test_workers_that_do_not_start_claim_no_archive(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(device: str) -> FakeCodec:
        raise RuntimeError("the device has no memory left")

    without_ray(monkeypatch)
    codec = compress_dataset.installed_codec("fake")
    monkeypatch.setattr(compress_dataset, "installed_codec", lambda name: replace(codec, factory=full))
    arguments = ["--input", str(corpus), "--archive", str(tmp_path / "archive")]
    assert main([*arguments, "--quality", "4"]) == 2
    assert "error: a worker could not be started: RuntimeError: the device has no memory" in capsys.readouterr().err
    assert not (tmp_path / "archive").exists()
    monkeypatch.setattr(compress_dataset, "installed_codec", lambda name: codec)
    assert main([*arguments, "--quality", "3"]) == 0


def test_a_quality_that_the_codec_has_not_claims_no_archive(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--input", str(corpus), "--archive", str(tmp_path / "archive"), "--quality", "9"]) == 2
    assert one_error(capsys) == "error: fake cannot compress with quality 9: it has 1 to 6"
    assert not (tmp_path / "archive").exists()


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.usefixtures("ray_local")
def test_on_s3(s3: Bucket) -> None:
    for number in range(2):
        s3.put(f"in/shard-{number}.tar", corpora.shard_bytes(3, start=3 * number))
    options = ["--storage-options", json.dumps(s3.storage_options)]
    arguments = ["--input", f"{s3.url}/in/shard-{{0..1}}.tar", "--archive", f"{s3.url}/archive", *options]
    assert main(arguments) == 0
    archive = Storage.from_url(f"{s3.url}/archive", s3.storage_options)
    assert sorted(row["key"] for row in rows(archive)) == [f"{number:06d}" for number in range(6)]
    assert s3.server.storage_options["secret"].encode() not in archive.read("archive.json"), "credentials stay out"
    keys = s3.keys()
    assert main(arguments) == 0
    assert s3.keys() == keys


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_settings_that_do_not_fit_the_archive_are_refused(
    corpus: Path, tmp_path: Path, fake_codec: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    arguments = ["--input", str(corpus), "--archive", str(archive), "--dry-run"]
    archive.mkdir()
    settings = {"quality": 3, "effort": 0, "fidelity": "preview", "tags": "tagger"}
    manifest = Manifest("archive", "compress_dataset", "fake", FINGERPRINT, settings)
    (archive / "archive.json").write_text(manifest.to_json())
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--quality", "4"]) == 2
    assert "quality 3, not 4" in one_error(capsys)
    fake_codec["fingerprint"] = "f" * 16
    assert main(arguments) == 2
    assert "other weights" in one_error(capsys)
    assert main([*arguments, "--overwrite"]) == 0


def test_a_signed_address_is_stored_without_its_signature(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray(monkeypatch)
    (corpus / "odd.tar").write_bytes(corpora.odd_shards()["not-an-image"])
    with serving(corpus) as web:
        for signature in ("s3cr3t", "s3cr3t-anew"):
            signed = [f"{web}/{name}.tar?signature={signature}/x" for name in ("corpus-00000{0..1}", "odd")]
            places = ["--input", signed[0], "--input", signed[1], "--archive", str(tmp_path / "archive")]
            assert main([*places, "--max-rejects", "1"]) == 0
    assert "3 shards done, 0 to do" in capsys.readouterr().out
    archive = Storage.from_url(str(tmp_path / "archive"))
    assert {row["shard"] for row in rows(archive)} == {
        f"{web}/{name}.tar" for name in ("corpus-000000", "corpus-000001", "odd")
    }
    described = json.loads(archive.read("archive.json"))
    assert described["config"]["input"] == [f"{web}/corpus-00000{{0..1}}.tar", f"{web}/odd.tar"]
    stored = [archive.read(path) for path in archive.list()] + [path.encode() for path in archive.list()]
    assert not any(b"s3cr3t" in content for content in stored)
    (reject,) = rows(archive, "rejects")
    assert reject["shard"] == f"{web}/odd.tar"


def told_to_workers(monkeypatch: pytest.MonkeyPatch) -> list[CompressJob]:
    """Fills up with what `main` starts workers by, who then do nothing."""
    without_ray(monkeypatch)
    told: list[CompressJob] = []
    monkeypatch.setattr("pipeline.job.RayPool", lambda factory, size: told.append(factory) or LocalPool(factory))
    monkeypatch.setattr(compress_dataset, "execute", lambda *_: 0)
    return told


def test_effort_is_told_to_workers_and_decides_the_content(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_to_workers(monkeypatch)
    arguments = ["--input", str(corpus), "--archive", str(tmp_path / "archive"), "--effort"]
    assert main([*arguments, "4"]) == 0
    assert [workers.coding.effort for workers in told] == [4]
    capsys.readouterr()
    assert main([*arguments, "5"]) == 2
    assert "effort 4, not 5" in one_error(capsys)


def test_no_tags_is_told_to_workers_and_decides_the_content(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_to_workers(monkeypatch)
    arguments = ["--input", str(corpus), "--archive", str(tmp_path / "archive")]
    assert main([*arguments, "--no-tags"]) == 0
    assert [workers.coding.tags for workers in told] == ["none"]
    capsys.readouterr()
    assert main(arguments) == 2
    assert "tags none, not tagger" in one_error(capsys)


@pytest.mark.parametrize(("default", "qualities"), [(3, range(1, 7)), (1, range(1, 2))])
def test_without_a_quality_it_is_the_models_own(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: int, qualities: range
) -> None:
    codec = replace(compress_dataset.installed_codec("fake"), qualities=qualities, default_quality=default)
    monkeypatch.setattr(compress_dataset, "installed_codec", lambda name: codec)
    told = told_to_workers(monkeypatch)
    arguments = ["--input", str(corpus), "--archive", str(tmp_path / "archive")]
    assert main(arguments) == 0
    described = json.loads((tmp_path / "archive" / "archive.json").read_text())
    assert described["settings"]["quality"] == described["config"]["quality"] == default
    assert main([*arguments, "--quality", str(default)]) == 0, "the same number, asked for"
    assert [workers.coding.quality for workers in told] == [default] * 2


def test_a_codec_whose_configuration_has_no_name_has_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    capsule = make_tiny_capsule(tmp_path / "made")
    config = json.loads((capsule / "config.json").read_text())
    del config["name"]
    (capsule / "config.json").write_text(json.dumps(config))
    write_manifest(capsule)
    codec = compress_dataset.installed_codec(str(capsule))
    assert codec.name == "capsule" == difficmh.load(capsule).name


def test_shards_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tar").write_bytes(corpora.odd_shards()["no-images"])
    assert main(["--input", str(tmp_path / "a.tar"), "--archive", str(tmp_path / "archive")]) == 2
    assert "no images in 1 of 1 shards" in one_error(capsys)
    assert not (tmp_path / "archive").exists()


def test_no_shards_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", str(tmp_path / "none-*.tar"), "--archive", str(tmp_path / "archive")]) == 2
    assert "none-*.tar" in one_error(capsys)


@pytest.mark.s3
def test_no_such_bucket(s3: Bucket, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--storage-options", json.dumps(s3.storage_options)]
    missing = "s3://there-is-no-such-bucket/x"
    assert main(["--input", f"{missing}/*.tar", "--archive", str(tmp_path / "archive"), *options]) == 2
    assert "there-is-no-such-bucket" in one_error(capsys)
    assert main(["--input", str(corpus), "--archive", missing, *options]) == 2
    assert "there-is-no-such-bucket" in one_error(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--input", "a"],
        ["--input", "a", "--archive", "b", "--workers", "0"],
        ["--input", "a", "--archive", "b", "--batch-size", "0"],
        ["--input", "a", "--archive", "b", "--max-rejects", "many"],
        ["--input", "a", "--archive", "b", "--storage-options", "[]"],
        ["--input", "a", "--archive", "b", "--fidelity", "full"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_an_unknown_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    assert main(["--input", "a.tar", "--archive", str(tmp_path), "--codec", "nothing"]) == 2
    assert one_error(capsys).startswith("error: no codec 'nothing'")
