from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from pipeline.analyze import HOPELESS, AnalyzeJob, result_schema
from pipeline.archive import Archive
from pipeline.attempts import WorkerContext
from pipeline.errors import JobError
from pipeline.manifest import Manifest
from pipeline.records import Drawing
from pipeline.storage import Storage
from pipeline.table import TableRow
from tests.fakes import FakeCodec
from tests.pipeline.archives import fake_codec, row, run_job, write_archive


@dataclass(frozen=True)
class BrightnessRow:
    brightness: float
    size: list[int]
    name: str | None = None


@dataclass
class Brightness:
    """Mean of the image; refuses images narrower than `narrowest`."""

    device: str = "cpu"
    narrowest: int = 0
    name: str = "brightness"
    row_type: type = BrightnessRow
    calls: list[int] = field(default_factory=list)

    def __call__(self, images: Sequence[Tensor]) -> list[BrightnessRow]:
        self.calls.append(len(images))
        if any(image.shape[2] < self.narrowest for image in images):
            raise RuntimeError("image too narrow")
        return [BrightnessRow(float(image.mean()), list(image.shape)) for image in images]


def narrow_images_fail(device: str) -> Brightness:
    return Brightness(device, narrowest=20)


ROWS = [
    row("000", seed=0, tags=["car"], tag_scores=[0.5]),
    row("001", seed=1),
    row("000", "in/b.tar", seed=2, tags=["tree"], tag_scores=[0.5]),
]


def make_job(tmp_path: Path, rows: Sequence[TableRow], url: str = "", **fields: Any) -> AnalyzeJob:
    storage = write_archive(url or tmp_path / "archive", rows, fields.pop("options", None))
    archive = Archive.open(storage.url, storage.options, fake_codec, cache=tmp_path / "cache")
    output = Storage.from_url(f"{url}-results" if url else str(tmp_path / "results"), storage.options)
    known = {"where": None, "drawing": Drawing("preview"), "analyzer_factory": Brightness}
    return AnalyzeJob(archive, output, described(archive).job_fingerprint, **{**known, **fields})


def described(archive: Archive) -> Manifest:
    return Manifest("results", "analyze_dataset", "fake", archive.manifest.codec_fingerprint, {})


def run(job: AnalyzeJob) -> Any:
    return run_job(job, job.output, job.archive.parts, described(job.archive))


def results(job: AnalyzeJob, folder: str = "data") -> list[dict[str, Any]]:
    paths = job.output.list(folder)
    return [each for path in paths for each in pq.read_table(io.BytesIO(job.output.read(path))).to_pylist()]


def brightness(each: TableRow) -> float:
    (image,) = FakeCodec(capsule=Path()).decompress([each.bitstream])
    return float(image.mean())


def test_answers_join_to_the_archive_by_key_and_shard(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS)
    summary = run(job)
    found = {(each["key"], each["shard"]): each for each in results(job)}
    assert set(found) == {(each.key, each.shard) for each in ROWS}
    for each in ROWS:
        answer = found[each.key, each.shard]
        assert answer["brightness"] == pytest.approx(brightness(each), abs=1e-6)
        assert (answer["size"], answer["name"]) == ([3, 24, 32], None)
    assert (summary.totals.images, summary.totals.shards) == (3, 2)
    assert summary.totals.bytes_out == sum(job.output.size(path) for path in job.output.list("data"))


def test_where_chooses_the_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS, where="list_contains(tags, 'tree')")
    summary = run(job)
    assert [(each["key"], each["shard"]) for each in results(job)] == [("000", "in/b.tar")]
    assert (summary.totals.images, summary.totals.skipped) == (1, 2)
    assert len(job.output.list("data")) == 2


def test_one_image_that_fails_costs_no_other(tmp_path: Path) -> None:
    from tests.corpora import picture

    (stream,) = FakeCodec(capsule=Path()).compress([picture(9, 24, 16)], quality=1)
    narrow = replace(ROWS[0], key="narrow", width=16, bitstream=stream)
    damaged = replace(ROWS[0], key="damaged", bitstream=b"FAKE")
    job = make_job(tmp_path, [ROWS[0], narrow, damaged, ROWS[1]], analyzer_factory=narrow_images_fail)
    summary = run(job)
    assert sorted(each["key"] for each in results(job)) == ["000", "001"]
    found = {each["key"]: (each["stage"], each["data"]) for each in results(job, "rejects")}
    assert found == {"narrow": ("analyze", stream), "damaged": ("decompress", b"FAKE")}
    assert (summary.totals.images, summary.totals.rejects) == (2, 2)


def test_a_failure_says_where_in_the_analyzer_s_code_it_was(tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS[:1], analyzer_factory=lambda device: Brightness(device, narrowest=99))
    summary = run(job)
    (reject,) = results(job, "rejects")
    assert re.fullmatch(r"RuntimeError: image too narrow \(test_analyze\.py:\d+\)", reject["error"])
    assert summary.this_run.reasons == {f"analyze {reject['error']}": 1}


def test_the_place_is_the_innermost_one_of_the_analyzer_s_own_code(tmp_path: Path) -> None:
    class Lost(Brightness):
        def __call__(self, images: Sequence[Tensor]) -> list[BrightnessRow]:
            return list(json.loads("no JSON"))  # which fails in a file of Python's own

    job = make_job(tmp_path, ROWS[:1], analyzer_factory=Lost)
    run(job)
    (reject,) = results(job, "rejects")
    assert re.search(r"\(test_analyze\.py:\d+\)$", reject["error"])


def test_analyzer_gets_batches(tmp_path: Path) -> None:
    analyzer = Brightness()
    run(
        make_job(tmp_path, [row(str(number), seed=number) for number in range(40)], analyzer_factory=lambda _: analyzer)
    )
    assert analyzer.calls == [32, 8]


@pytest.mark.parametrize(
    "answers",
    [
        lambda images: [],
        lambda images: [3.0] * len(images),
        lambda images: [BrightnessRow("bright", [1]) for _ in images],  # type: ignore[arg-type]
        lambda images: [BrightnessRow(0.5, None) for _ in images],  # type: ignore[arg-type]
    ],
)
def test_an_analyzer_that_breaks_its_word_ends_the_job(tmp_path: Path, answers: Any) -> None:
    class Liar(Brightness):
        __call__ = staticmethod(answers)

    with pytest.raises(JobError, match="the analyzer brightness answer"):
        run(make_job(tmp_path, ROWS, analyzer_factory=lambda device: Liar(device)))


class Broken(Brightness):
    """Answers nothing but `answered` images, the first ones."""

    answered = 0
    errors: tuple[type[Exception], ...] = (ZeroDivisionError,)

    def __call__(self, images: Sequence[Tensor]) -> list[BrightnessRow]:
        if len(images) > 1:
            raise RuntimeError("no batches")
        self.calls.append(1)
        if len(self.calls) <= self.answered:
            return [BrightnessRow(0.5, [1])]
        raise self.errors[len(self.calls) % len(self.errors)]("weights of another model")


@pytest.mark.parametrize("per_shard", [50, 7])
def test_an_analyzer_that_fails_on_every_image_ends_the_job(tmp_path: Path, per_shard: int) -> None:
    broken = Broken()
    rows = [row(str(number), f"in/{number // per_shard}.tar", seed=number) for number in range(50)]
    job = make_job(tmp_path, rows, analyzer_factory=lambda device: broken)
    wanted = "brightness failed on each of the last 20 images and answered none: ZeroDivisionError: weights of another"
    with pytest.raises(JobError, match=wanted):
        run(job)
    assert len(broken.calls) == HOPELESS


def test_one_answer_or_errors_of_several_kinds_speak_for_the_analyzer(tmp_path: Path) -> None:
    once = Broken()
    once.answered = 1
    job = make_job(tmp_path / "once", [row(str(number), seed=number) for number in range(25)])
    assert run(replace(job, analyzer_factory=lambda device: once)).totals.rejects == 24
    mixed = Broken()
    mixed.errors = (ZeroDivisionError, KeyError)
    job = make_job(tmp_path / "mixed", [row(str(number), seed=number) for number in range(25)])
    assert run(replace(job, analyzer_factory=lambda device: mixed)).totals.rejects == 25


def test_fewer_images_than_prove_anything_are_rejects(tmp_path: Path) -> None:
    assert run(make_job(tmp_path, ROWS, analyzer_factory=lambda device: Broken())).totals.rejects == 3


@pytest.mark.parametrize("batch_pixels", [1, 2**20])
def test_an_analyzer_without_memory_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_pixels: int
) -> None:
    class Crowded(Brightness):
        def __call__(self, images: Sequence[Tensor]) -> list[BrightnessRow]:
            answers = super().__call__(images)
            if len(self.calls) > 1:
                raise MemoryError("something else filled the device")
            return answers

    monkeypatch.setattr("pipeline.row_decoder.BATCH_PIXELS", {"cpu": batch_pixels})
    rows = [row(str(number), f"in/{number // 10}.tar", seed=number) for number in range(70)]
    with pytest.raises(JobError, match=r"in a row found too little memory.*something else filled"):
        run(make_job(tmp_path, rows, analyzer_factory=Crowded))


def test_an_analyzer_that_cannot_be_loaded_ends_the_job(tmp_path: Path) -> None:
    def missing(device: str) -> Brightness:
        raise ValueError("no such package")

    with pytest.raises(JobError, match="no such package"):
        run(make_job(tmp_path, ROWS, analyzer_factory=missing))


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    class Killed(Brightness):
        def __call__(self, images: Sequence[Tensor]) -> list[BrightnessRow]:
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().__call__(images)

    job = make_job(tmp_path, ROWS)
    with pytest.raises(KeyboardInterrupt):
        run(replace(job, analyzer_factory=Killed))
    assert len(job.output.list("reports")) == 1
    summary = run(job)
    assert (summary.totals.images, summary.this_run.shards) == (3, 1)
    assert len(results(job)) == 3


def test_columns_of_every_kind() -> None:
    @dataclass
    class Kinds:
        text: str
        number: int
        flag: bool
        small: np.float32
        many: list[np.float32]
        perhaps: list[str] | None

    schema = result_schema(Kinds)
    assert schema.types == [
        pa.string(),
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.bool_(),
        pa.float32(),
        pa.list_(pa.float32()),
        pa.list_(pa.string()),
    ]
    assert [each.name for each in schema if each.nullable] == ["perhaps"]


@pytest.mark.parametrize("hint", [dict, list[dict[str, int]], "list[list[int]]", "int | str", "Nonsense", bytes])
def test_columns_that_a_table_cannot_hold(hint: Any) -> None:
    @dataclass
    class Odd:
        value: int

    Odd.__annotations__["value"] = hint
    with pytest.raises(JobError, match="Odd"):
        result_schema(Odd)


def test_the_join_columns_are_taken() -> None:
    @dataclass
    class Taken:
        key: str

    with pytest.raises(JobError, match=r"Taken\.key"):
        result_schema(Taken)
    with pytest.raises(JobError, match="dataclass"):
        result_schema(dict)


def test_large_answers_make_several_row_groups(tmp_path: Path) -> None:
    @dataclass
    class Raw:
        values: list[np.float32]

    class Large(Brightness):
        def __call__(self, images: Sequence[Tensor]) -> list[Any]:
            return [Raw(np.zeros(400_000, np.float32)) for _ in images]  # type: ignore[arg-type]

    job = make_job(
        tmp_path,
        [row(str(number), seed=number) for number in range(6)],
        analyzer_factory=lambda device: Large(device, row_type=Raw),
    )
    job(WorkerContext()).process(job.archive.parts[0])
    (path,) = job.output.list("data")
    assert pq.ParquetFile(io.BytesIO(job.output.read(path))).num_row_groups == 2


@pytest.mark.s3
def test_answers_over_s3(s3: Any, tmp_path: Path) -> None:
    job = make_job(tmp_path, ROWS, f"{s3.url}/archive", options=s3.storage_options)
    assert run(job).totals.images == 3
    assert len(results(job)) == 3
