"""One shard compressed: rows, rejects and report, with a fake codec and tars as found in the wild."""

import hashlib
import io
import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import compress
from pipeline.attempts import Tally, WorkerContext
from pipeline.compress import Coding, CompressJob
from pipeline.errors import JobError, TransientError, Verdict, decide
from pipeline.protocols import Image, Mode
from pipeline.records import Sample, ShardReport, ShardSource
from pipeline.storage import Storage, UrlOpener
from pipeline.table import open_part, part_fingerprint
from tests import corpora
from tests.fakes import FakeCodec, decode_image

Rows = list[dict[str, Any]]


@dataclass
class FragileCodec(FakeCodec):
    """Fails on what a test forbids: images of a width, batches of a size, decoding."""

    bad_widths: tuple[int, ...] = ()
    largest_batch: int = 100
    broken_decoder: bool = False
    batches: list[int] = field(default_factory=list)
    efforts: set[int] = field(default_factory=set)

    def compress(
        self, images: Sequence[Image], *, quality: int, tags: Sequence[Sequence[str]] | None = None, effort: int = 0
    ) -> list[bytes]:
        if len(images) > self.largest_batch:
            raise MemoryError("too many at once")
        if any(image.shape[1] in self.bad_widths for image in images):
            raise RuntimeError("no stream for this one")
        self.batches.append(len(images))
        self.efforts.add(effort)
        return super().compress(images, quality=quality, tags=tags)

    def decompress(self, bitstreams: Sequence[bytes], *, mode: Mode = "full", **_: Any) -> list[torch.Tensor]:
        if self.broken_decoder:
            raise ValueError("checksum of the symbols")
        return super().decompress(bitstreams, mode=mode)


@dataclass(frozen=True)
class Bench:
    """A directory for shards, one for the archive, and a codec to compress with."""

    root: Path
    codec: FragileCodec
    coding: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 4

    @property
    def archive(self) -> Storage:
        return Storage.from_url(str(self.root / "archive"))

    def source(self, data: bytes, name: str = "shard.tar") -> ShardSource:
        path = self.root / name
        path.write_bytes(data)
        return ShardSource(str(path), len(data), "tag")

    def compress(self, source: ShardSource, context: WorkerContext | None = None) -> ShardReport:
        coding, codec = Coding(**{"quality": 3, **self.coding}), self.codec
        made_by = codec.fingerprint, lambda device: codec, decode_image
        job = CompressJob(UrlOpener(), self.archive, "j" * 16, coding, self.batch_size, *made_by)
        return job(context or WorkerContext()).process(source)

    def rows(self, folder: str = "data") -> Rows:
        rows: Rows = []
        for path in self.archive.list(folder):
            rows += open_part(io.BytesIO(self.archive.read(path))).read().to_pylist()
        return rows


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, FragileCodec(tmp_path))


def test_rows_of_an_ordinary_shard(bench: Bench) -> None:
    members = corpora.shard_members(5)
    source = bench.source(corpora.tar_bytes(members))
    report = bench.compress(source)
    rows = bench.rows()
    images = [data for name, data in members if name.endswith(".jpg")]
    assert [row["key"] for row in rows] == [f"{number:06d}" for number in range(5)]
    for row, image, number in zip(rows, images, range(5), strict=True):
        assert row["shard"] == source.url
        assert row["image_name"] == f"{number:06d}.jpg"
        assert (row["width"], row["height"], row["codec"]) == (32, 24, "fake")
        assert row["original_bytes"] == len(image)
        assert row["original_sha256"] == hashlib.sha256(image).hexdigest()
        assert row["bits_per_pixel"] == pytest.approx(8 * len(row["bitstream"]) / (32 * 24))
        assert row["tags"] == [tag.name for tag in bench.codec.tag([decode_image(image)])[0]]
        assert len(row["tags"]) == len(row["tag_scores"])
        assert 5 < row["psnr_db"] < 60
        assert json.loads(row["metadata"])["cls"] == str(number % 10)
    assert (report.images, report.rejects, report.pixels) == (5, 0, 5 * 32 * 24)
    assert report.bytes_in == sum(len(image) for image in images)
    assert report.bytes_out == sum(len(row["bitstream"]) for row in rows)
    assert {"read", "decode", "tag", "compress", "fidelity", "write", "commit"} <= set(report.seconds)
    assert (report.source, report.job_fingerprint) == (source, "j" * 16)


def test_parts_carry_the_codecs_fingerprint(bench: Bench) -> None:
    bench.compress(bench.source(corpora.shard_bytes(1)))
    (path,) = bench.archive.list("data")
    with bench.archive.open(path) as file:
        assert part_fingerprint(open_part(file)) == bench.codec.fingerprint


def test_fidelity_is_that_of_the_stored_stream(bench: Bench) -> None:
    flat = np.full((16, 16, 3), 77, np.uint8)
    bench.compress(bench.source(corpora.tar_bytes([("flat.png", corpora.image_bytes(flat, "PNG"))])))
    assert bench.rows()[0]["psnr_db"] == 100


def test_effort_reaches_the_codec_from_its_trial_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FragileCodec(tmp_path), {"effort": 7})
    bench.compress(bench.source(corpora.shard_bytes(2)))
    assert bench.codec.efforts == {7}


def test_fidelity_can_be_left_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FragileCodec(tmp_path, broken_decoder=True), {"fidelity": "none"})
    bench.compress(bench.source(corpora.shard_bytes(2)))
    assert [row["psnr_db"] for row in bench.rows()] == [None, None]


def test_an_unreadable_image_is_rejected_with_its_bytes(bench: Bench) -> None:
    bad = corpora.truncated(corpora.jpeg(9, 200, 200), 0.3)
    data = corpora.tar_bytes([*corpora.sample_members("a"), ("b.jpg", bad), *corpora.sample_members("c")])
    report = bench.compress(bench.source(data))
    (reject,) = bench.rows("rejects")
    assert (reject["key"], reject["stage"], reject["data"]) == ("b", "decode", bad)
    assert reject["error"].startswith("ValueError: no image")
    assert [row["key"] for row in bench.rows()] == ["a", "c"]
    assert (report.images, report.rejects) == (2, 1)


def test_one_bad_image_does_not_cost_its_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FragileCodec(tmp_path, bad_widths=(33,)))
    members = [(f"{number}.png", corpora.png(number, 24, 33 if number == 2 else 32)) for number in range(4)]
    bench.compress(bench.source(corpora.tar_bytes(members)))
    assert [row["key"] for row in bench.rows()] == ["0", "1", "3"]
    (reject,) = bench.rows("rejects")
    assert (reject["key"], reject["stage"], reject["data"]) == ("2", "compress", members[2][1])


def test_a_batch_too_large_for_memory_goes_one_by_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FragileCodec(tmp_path, largest_batch=1))
    assert bench.compress(bench.source(corpora.shard_bytes(6))).images == 6


def test_a_batch_too_large_for_memory_is_gone_before_its_images_are_tried(tmp_path: Path) -> None:
    held: list[weakref.ref[Image]] = []

    class Holding(FragileCodec):
        def compress(self, images: Sequence[Image], **how: Any) -> list[bytes]:
            assert all(reference() is None for reference in held), "the failed batch is still in memory"
            if len(images) > 1:
                stacked = np.stack(images)
                held.append(weakref.ref(stacked))
                raise MemoryError(f"{len(stacked)} at once are too many")
            return super().compress(images, **how)

    bench = Bench(tmp_path, Holding(tmp_path))
    assert bench.compress(bench.source(corpora.shard_bytes(6))).images == 6
    assert held


def test_a_stream_that_does_not_decode_is_not_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FragileCodec(tmp_path, broken_decoder=True))
    report = bench.compress(bench.source(corpora.shard_bytes(2)))
    assert (report.images, report.rejects) == (0, 2)
    assert "checksum" in bench.rows("rejects")[0]["error"]


def test_a_broken_device_is_not_the_images_fault(tmp_path: Path) -> None:
    class Broken(FragileCodec):
        def tag(self, images: Sequence[Image]) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    bench = Bench(tmp_path, Broken(tmp_path))
    with pytest.raises(RuntimeError, match="CUDA"):
        bench.compress(bench.source(corpora.shard_bytes(2)))
    assert bench.archive.list("reports") == []


def test_images_of_one_size_go_together(bench: Bench) -> None:
    sizes = [(24, 32), (200, 300), (24, 32), (24, 32), (200, 300), (24, 32)]
    members = [(f"{number}.png", corpora.png(number, *size)) for number, size in enumerate(sizes)]
    bench.compress(bench.source(corpora.tar_bytes(members)))
    assert bench.codec.batches == [1, 4, 2], "the first one is the factory's trial"
    assert sorted(row["key"] for row in bench.rows()) == list("012345")


def test_every_image_of_a_repeated_key_is_kept(bench: Bench) -> None:
    between = [(f"b{number}.jpg", corpora.jpeg(9 + number)) for number in range(40)]
    members = [("a.jpg", corpora.jpeg(1)), ("a.jpg", corpora.jpeg(2)), *between, ("a.jpg", corpora.jpeg(3))]
    bench.compress(bench.source(corpora.tar_bytes(members)))
    rows = bench.rows()
    assert len({row["key"] for row in rows}) == len(members)
    assert {"a", "a~2"} < {row["key"] for row in rows}
    assert {row["original_sha256"] for row in rows} == {hashlib.sha256(data).hexdigest() for _, data in members}


@pytest.mark.parametrize("name", corpora.odd_shards())
def test_no_odd_shard_is_an_exception_and_no_image_is_lost(bench: Bench, name: str) -> None:
    data = corpora.odd_shards()[name]
    report = bench.compress(bench.source(data))
    rows, rejects = bench.rows(), bench.rows("rejects")
    assert (report.images, report.rejects) == (len(rows), len(rejects))
    assert len({row["key"] for row in rows}) == len(rows)
    assert len(bench.archive.list("data")) == 1, "a shard without images has a part too"
    if name not in ("empty", "no-images", "zero-bytes", "not-a-tar", "broken-gzip"):
        assert rows
    if name in ("zero-byte-image", "broken-image", "truncated", "not-a-tar", "broken-gzip"):
        assert rejects


def test_without_tags_no_tagger_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FragileCodec, "tag", None)
    untagged = Bench(tmp_path, FragileCodec(tmp_path), {"tags": "none"})
    assert untagged.compress(untagged.source(corpora.shard_bytes(3))).images == 3
    assert [(row["tags"], row["tag_scores"]) for row in untagged.rows()] == [([], [])] * 3


def test_samples_without_an_image_are_counted(bench: Bench) -> None:
    data = corpora.tar_bytes([("a.json", b"{}"), ("b.txt", b"x"), ("c.jpg", corpora.jpeg(1))])
    report = bench.compress(bench.source(data))
    assert (report.images, report.rejects, report.skipped) == (1, 0, 2)


def test_names_that_are_no_text_do_not_stop_a_shard(bench: Bench) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    data = corpora.tar_bytes([(f"{name}.jpg", corpora.jpeg(1))])
    assert bench.compress(bench.source(data)).images == 1


def test_a_shard_whose_own_path_is_no_text_is_compressed(bench: Bench) -> None:
    data = corpora.tar_bytes([*corpora.sample_members("a"), ("b.jpg", b"nothing")])
    report = bench.compress(bench.source(data, os.fsdecode(b"caf\xe9.tar")))
    assert (report.images, report.rejects) == (1, 1)
    assert {row["shard"] for row in [*bench.rows(), *bench.rows("rejects")]} == {f"{bench.root}/caf\\udce9.tar"}


def test_two_attempts_write_the_same_bytes(bench: Bench) -> None:
    rng = np.random.default_rng(0)
    members = [(f"{number}.png", corpora.png(number, *rng.integers(8, 200, 2))) for number in range(30)]
    source = bench.source(corpora.tar_bytes([*members, ("bad.jpg", b"nothing")]))
    contents = []
    for threads in (1, 3):
        bench.compress(source, WorkerContext(threads=threads))
        contents.append({path: bench.archive.read(path) for path in bench.archive.list() if "reports" not in path})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_a_tally_counts_as_images_are_done(bench: Bench) -> None:
    tally = Tally()
    data = corpora.tar_bytes([*corpora.shard_members(3), ("bad.jpg", b"nothing")])
    bench.compress(bench.source(data), WorkerContext(tally=tally))
    assert (tally.images, tally.rejects) == (3, 1)


def test_a_shard_that_changed_since_it_was_listed_is_left_for_another_run(bench: Bench) -> None:
    source = bench.source(corpora.shard_bytes(2))
    Path(source.url).write_bytes(corpora.shard_bytes(3))
    with pytest.raises(TransientError, match="changed while the job ran"):
        bench.compress(source)


def test_a_shard_that_is_gone_for_a_while_is_left_for_another_run(bench: Bench) -> None:
    source = bench.source(corpora.shard_bytes(2))
    Path(source.url).rename(f"{source.url}.away")
    with pytest.raises(TransientError, match="not there any more") as gone:
        bench.compress(source)
    assert decide(gone.value) is Verdict.RETRY


def test_metadata_counts_among_what_is_read_ahead() -> None:
    plain, described = (Sample("a", "s", "a.jpg", b"image", {}, size) for size in (0, 1000))
    assert compress._cost(described) >= compress._cost(plain) + 1000


def test_other_weights_and_wrong_qualities_end_the_job(tmp_path: Path) -> None:
    source = ShardSource("x", 1, "")
    with pytest.raises(JobError, match=r"^fake cannot compress: quality 9 is not in"):
        Bench(tmp_path, FragileCodec(tmp_path), {"quality": 9}).compress(source)
    made_by = "f" * 16, lambda device: FakeCodec(tmp_path), decode_image
    job = CompressJob(UrlOpener(), Storage.from_url(str(tmp_path)), "j" * 16, Coding(3), 4, *made_by)
    with pytest.raises(JobError, match="weights"):
        job(WorkerContext())
