from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch import Tensor

from pipeline.archive import Archive
from pipeline.attempts import WorkerContext
from pipeline.commit import set_aside
from pipeline.decompress import DecodeJob
from pipeline.errors import JobError, TransientError, Verdict, decide
from pipeline.manifest import Manifest, make_plan
from pipeline.pictures import PictureStyle
from pipeline.records import Drawing
from pipeline.storage import Storage
from pipeline.table import TableRow
from tests.corpora import image_bytes
from tests.fakes import FakeCodec
from tests.pipeline.archives import fake_codec, row, run_job, write_archive

METADATA = {"weather": "rain", "boxes": [[0, 1, 2, 3]]}


def encode(image: np.ndarray[Any, Any], format: str, description: Mapping[str, str]) -> bytes:
    """As `difficmh.images.encode_image` does it, with the description where a test finds it."""
    exif = Image.Exif()
    exif[0x010E] = description["Description"]
    return image_bytes(image, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[format], exif=exif)


def make_job(tmp_path: Path, rows: Sequence[TableRow], url: str = "", **fields: Any) -> DecodeJob:
    storage = write_archive(url or tmp_path / "archive", rows, fields.pop("options", None))
    archive = Archive.open(storage.url, storage.options, fake_codec, cache=tmp_path / "cache")
    output = Storage.from_url(f"{url}-pictures" if url else str(tmp_path / "pictures"), storage.options)
    style = PictureStyle(fields.pop("format", "png"), fields.pop("layout", "webdataset"))
    known = {"where": None, "drawing": Drawing("preview"), "encoder": encode}
    return DecodeJob(archive, output, described(archive).job_fingerprint, style=style, **{**known, **fields})


def described(archive: Archive) -> Manifest:
    return Manifest("pictures", "decode_dataset", "fake", archive.manifest.codec_fingerprint, {})


def run(job: DecodeJob) -> Any:
    return run_job(job, job.output, job.archive.parts, described(job.archive))


def members(job: DecodeJob) -> dict[str, bytes]:
    """All pictures and their JSON by name, whatever the layout."""
    found = {}
    for path in job.output.list("data"):
        if not path.endswith(".tar"):
            found[path.split("/", 2)[2]] = job.output.read(path)
            continue
        with tarfile.open(fileobj=io.BytesIO(job.output.read(path))) as tar:
            found.update({name: tar.extractfile(name).read() for name in tar.getnames()})  # type: ignore[union-attr]
    return found


def rejects(job: DecodeJob) -> list[dict[str, Any]]:
    paths = job.output.list("rejects")
    return [each for path in paths for each in pq.read_table(io.BytesIO(job.output.read(path))).to_pylist()]


def pixels(stream: bytes) -> np.ndarray[Any, Any]:
    (image,) = FakeCodec(capsule=Path()).decompress([stream])
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


ROWS = [
    row("000", seed=0, tags=["car"], tag_scores=[0.5], metadata=json.dumps(METADATA)),
    row("cam/001.left", seed=1),
    row("002", "in/b.tar", seed=2, tags=["tree"], tag_scores=[0.5]),
]


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_every_row_becomes_a_picture_with_json(tmp_path: Path, layout: str) -> None:
    job = make_job(tmp_path, ROWS, layout=layout)
    summary = run(job)
    found = members(job)
    assert sorted(found) == sorted(f"{each.key}.{end}" for each in ROWS for end in ("png", "json"))
    for each in ROWS:
        picture = Image.open(io.BytesIO(found[f"{each.key}.png"]))
        assert np.array_equal(np.asarray(picture), pixels(each.bitstream))
    assert (summary.totals.images, summary.totals.rejects, summary.totals.skipped) == (3, 0, 0)
    assert summary.totals.pixels == 3 * 24 * 32


def test_a_picture_says_what_it_is(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS[:1], drawing=Drawing("full", 4, "ddim"), format="jpg")
    run(job)
    found = members(job)
    description = Image.open(io.BytesIO(found["000.jpg"])).getexif()[0x010E]
    assert description == "Reconstruction by a generative codec, not the original photograph: 000"
    fields = json.loads(found["000.json"])
    assert fields["reconstruction"] is True
    assert (fields["key"], fields["shard"]) == ("000", "in/a.tar")
    assert (fields["mode"], fields["steps"], fields["sampler"]) == ("full", 4, "ddim")
    assert (fields["codec"], fields["codec_fingerprint"]) == ("fake", FakeCodec.fingerprint)
    assert fields["tags"] == ["car"]
    assert fields["bits_per_pixel"] == ROWS[0].bits_per_pixel
    assert fields["metadata"] == METADATA
    assert "bitstream" not in fields


@pytest.mark.parametrize(
    "metadata",
    ["no JSON", '{"a": "\\ud800"}', *('{"a": %s}' % ("[" * depth + "]" * depth) for depth in (400, *range(980, 1000)))],
    ids=lambda text: f"{text[:10]} {len(text)}",
)
def test_odd_metadata_costs_no_picture(tmp_path: Path, metadata: str) -> None:
    job = make_job(tmp_path, [ROWS[0], replace(ROWS[1], metadata=metadata)])
    assert run(job).totals.images == 2
    assert sorted(members(job)) == ["000.json", "000.png", "cam/001.left.json", "cam/001.left.png"]


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    nan = float("nan")
    job = make_job(tmp_path, [replace(ROWS[0], latitude=nan, psnr_db=float("inf"), metadata='{"a": [NaN, 1.5]}')])
    run(job)
    fields = json.loads(members(job)["000.json"], parse_constant=pytest.fail)
    assert (fields["latitude"], fields["psnr_db"], fields["metadata"]) == (None, None, {"a": [None, 1.5]})


def test_where_leaves_rows_and_parts_out(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS, where="list_contains(tags, 'tree')")
    summary = run(job)
    assert sorted(members(job)) == ["002.json", "002.png"]
    assert (summary.totals.images, summary.totals.skipped, summary.totals.shards) == (1, 2, 2)


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_keys_stay_inside_and_apart(tmp_path: Path, layout: str) -> None:
    keys = ["../../../escape", "/absolute", "a//b", "a/b", "x" * 400]
    job = make_job(tmp_path, [row(key, seed=number) for number, key in enumerate(keys)], layout=layout)
    run(job)
    found = members(job)
    assert {json.loads(data)["key"] for name, data in found.items() if name.endswith(".json")} == set(keys)
    assert {"_/_/_/escape.png", "absolute.png", "a/b.png", "a/b~2.png"} <= set(found)
    assert not list(tmp_path.rglob("escape.png")) or layout == "files"
    outside = [path for path in tmp_path.rglob("*escape*") if tmp_path / "pictures" / "data" not in path.parents]
    assert outside == []


def test_a_damaged_row_is_rejected_with_its_bytes(tmp_path: Path) -> None:
    damaged = [
        replace(ROWS[0], key="flipped", bitstream=ROWS[0].bitstream[:-1] + b"?"),
        replace(ROWS[0], key="empty", bitstream=b""),
        replace(ROWS[0], key="other codec", codec="webp", bitstream=b"RIFF"),
        replace(ROWS[0], key="other size", width=31),
    ]
    job = make_job(tmp_path, [ROWS[0], *damaged, ROWS[1]])
    summary = run(job)
    assert {name for name in members(job) if name.endswith(".png")} == {"000.png", "cam/001.left.png"}
    found = {each["key"]: each for each in rejects(job)}
    assert {key: each["data"] for key, each in found.items()} == {each.key: each.bitstream for each in damaged}
    assert {each["stage"] for each in found.values()} == {"decompress"}
    assert "damaged" in found["flipped"]["error"]
    assert "'webp'" in found["other codec"]["error"]
    assert "31 x 24" in found["other size"]["error"]
    assert (summary.totals.images, summary.totals.rejects) == (2, 4)


def test_a_stream_of_another_size_than_the_table_says_is_not_decoded(tmp_path: Path, monkeypatch: Any) -> None:
    """The table's sizes say what is decoded at once: a small stream may be that of a huge picture."""
    huge = np.zeros((640, 480, 3), np.uint8)
    (stream,) = FakeCodec(capsule=Path()).compress([huge], quality=3)
    decoded: list[tuple[int, ...]] = []
    real = FakeCodec._decompress_one
    monkeypatch.setattr(
        FakeCodec, "_decompress_one", lambda self, data: decoded.append(self.size(data)) or real(self, data)
    )
    job = make_job(tmp_path, [ROWS[0], replace(ROWS[0], key="huge", bitstream=stream), ROWS[1]])
    assert run(job).totals.images == 2
    assert set(decoded) == {(24, 32)}
    (reject,) = rejects(job)
    assert (reject["key"], reject["data"]) == ("huge", stream)
    assert "480 x 640 pixels, the table says 32 x 24" in reject["error"]


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_part_never_gives_a_wrong_picture(tmp_path: Path, seed: int) -> None:
    job = make_job(tmp_path, ROWS[:2])
    (part,) = job.archive.parts
    random = np.random.default_rng(seed)
    good = Path(part.url).read_bytes()
    expected = {each.key: each for each in ROWS[:2]}
    verdicts = set()
    for _ in range(8):
        damaged = bytearray(good)
        damaged[random.integers(4, len(good) - 8)] ^= 1 << random.integers(8)
        Path(part.url).write_bytes(damaged)
        try:
            job(WorkerContext()).process(part)
        except Exception as error:
            verdicts.add(decide(error))
            continue
        for name, data in members(job).items():
            key = name.rsplit(".", 1)[0]
            if name.endswith(".png"):
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels(expected[key].bitstream))
    assert verdicts <= {Verdict.REJECT, Verdict.ABORT}


def test_what_no_encoder_takes_is_rejected(tmp_path: Path) -> None:
    def refuse(image: object, format: str, description: object) -> bytes:
        raise ValueError("too large for this format")

    job = make_job(tmp_path, ROWS[:1], encoder=refuse)
    assert run(job).totals.rejects == 1
    assert [(each["stage"], each["key"]) for each in rejects(job)] == [("encode", "000")]
    assert job.output.list("data") == []


def test_small_batches_give_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, ROWS)
    run(job)
    expected = {path: job.output.read(path) for path in job.output.list("data")}
    monkeypatch.setattr("pipeline.row_decoder.BATCH_PIXELS", {"cpu": 1})
    monkeypatch.setattr("pipeline.decompress.ENCODE_AHEAD_BYTES", 1)
    again = replace(job, output=Storage.from_url(str(tmp_path / "again")))
    run(again)
    assert {path: again.output.read(path) for path in again.output.list("data")} == expected


class Broken(Exception):
    pass


@pytest.mark.parametrize("layout", ["webdataset", "files"])
@pytest.mark.parametrize("at", range(4))
def test_a_killed_run_resumes_to_the_same_pictures(tmp_path: Path, layout: str, at: int) -> None:
    rows = [row(f"{number}", f"in/{number % 2}.tar", number) for number in range(4)]
    job = make_job(tmp_path, rows, layout=layout)
    calls = 0

    def killed(image: Any, format: str, description: Mapping[str, str]) -> bytes:
        nonlocal calls
        calls += 1
        if calls > at:
            raise KeyboardInterrupt
        return encode(image, format, description)

    with pytest.raises(KeyboardInterrupt):
        run(replace(job, encoder=killed))
    run(job)
    assert len(job.output.list("reports")) == 2
    assert sorted(members(job)) == sorted(f"{number}.{end}" for number in range(4) for end in ("png", "json"))
    plan = make_plan(job.output, described(job.archive), job.archive.parts, overwrite=False)
    assert list(plan.pending) == []


def test_files_of_an_earlier_run_that_no_longer_belong_are_removed(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS, layout="files")
    run(job)
    for path in job.output.list("reports"):
        job.output.delete(path)
    run(replace(job, where="key = '000'", style=PictureStyle("png", "webdataset")))
    assert sorted(members(job)) == ["000.json", "000.png"]
    assert all(path.endswith(".tar") for path in job.output.list("data"))


def test_a_failing_store_is_no_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: FakeCodec, bitstreams: Sequence[bytes], **_: Any) -> list[Tensor]:
        raise TransientError("the store is away")

    job = make_job(tmp_path, ROWS)
    monkeypatch.setattr(FakeCodec, "decompress", failing)
    with pytest.raises(TransientError):
        job(WorkerContext()).process(job.archive.parts[0])


def test_a_wrong_clause_stops_the_worker_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="columns:"):
        make_job(tmp_path, ROWS, where="nonsense = 1")(WorkerContext())


def test_the_job_is_picklable(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS)
    copy = pickle.loads(pickle.dumps(job))
    assert copy(WorkerContext()).process(job.archive.parts[0]).images == 2


def test_the_password_of_an_archive_is_not_stored(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS, f"memory://me:secret@host/{tmp_path.name}")
    job = replace(job, output=Storage.from_url(str(tmp_path / "pictures")))
    run(job)
    assert b"secret" not in b"".join(map(job.output.read, job.output.list()))
    set_aside(job.output, job.archive.parts[0], "j" * 16, "killed")
    assert [each["shard"] for each in rejects(job)] == [job.archive.parts[0].url]
    assert "secret" not in job.archive.parts[0].url


@pytest.mark.s3
def test_pictures_over_s3(s3: Any, tmp_path: Path) -> None:
    damaged = replace(ROWS[0], key="flipped", bitstream=ROWS[0].bitstream[:-1] + b"?")
    job = make_job(tmp_path, [*ROWS, damaged], f"{s3.url}/archive", options=s3.storage_options, layout="files")
    summary = run(job)
    assert sorted(members(job)) == sorted(f"{each.key}.{end}" for each in ROWS for end in ("png", "json"))
    assert [each["data"] for each in rejects(job)] == [damaged.bitstream]
    assert summary.totals.images == 3


def test_the_codec_is_told_how_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = FakeCodec(capsule=tmp_path)
    job = make_job(tmp_path, ROWS, drawing=Drawing("reference", 7, "unipc"))
    told = replace(job, archive=replace(job.archive, codec_factory=lambda capsule, device: codec))
    assert run(told).totals.images == 3
    assert set(codec.drawn) == {("reference", 7, "unipc")}


def test_rows_are_those_of_the_archives_codec_whatever_its_model_is_called_here(tmp_path: Path) -> None:
    """A model without a name of its own is called as its folder, which is another one in every cache."""
    job = make_job(tmp_path, ROWS)
    renamed = FakeCodec(capsule=tmp_path, name="0a1b2c3d4e5f6071")
    told = replace(job, archive=replace(job.archive, codec_factory=lambda capsule, device: renamed))
    summary = run(told)
    assert (summary.totals.images, summary.totals.rejects) == (3, 0)
    assert b'"codec": "fake"' in members(told)["000.json"]
