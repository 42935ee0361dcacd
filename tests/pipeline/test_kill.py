"""Any kill point, any number of resumes: the archive ends with the same rows, none twice, none lost."""

import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capsule import copy_capsule
from pipeline.compress import Coding, CompressJob
from pipeline.driver import Summary, run
from pipeline.manifest import Manifest, establish, make_plan
from pipeline.protocols import Image
from pipeline.records import ShardReport, ShardSource
from pipeline.storage import ObjectInfo, Storage, UrlOpener
from pipeline.table import open_part
from tests import corpora
from tests.fakes import FakeCodec, LocalPool, Silence, decode_image

IMAGES = 3
SHARDS = 3


class Killed(BaseException):
    """As good as SIGKILL: nothing in the pipeline catches it."""


@dataclass
class Fuse:
    """Kills at the `left`-th step from now."""

    left: int | None = None
    steps: int = 0

    def burn(self) -> None:
        self.steps += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


@dataclass(frozen=True)
class MortalStorage(Storage):
    """Burns a fuse before and after whatever it does; a killed write leaves what a real one would leave."""

    options: Mapping[str, Any] = field(default_factory=dict)
    fuse: Fuse = field(default_factory=Fuse, compare=False)

    @contextmanager
    def atomic_write(self, path: str) -> Iterator[BinaryIO]:
        try:
            with super().atomic_write(path) as file:
                yield file
                self.fuse.burn()
        except Killed:
            folder = Path(self.url, path).parent
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f".writing-{self.fuse.steps}.tmp").write_bytes(b"half an object")
            raise
        self.fuse.burn()

    def delete(self, path: str) -> None:
        self.fuse.burn()
        super().delete(path)

    def scan(self, prefix: str = "", deep: bool = True) -> list[ObjectInfo]:
        self.fuse.burn()
        return super().scan(prefix, deep)


@dataclass(frozen=True)
class Job:
    """The compression job without Ray, on an archive that may be killed."""

    root: Path
    fuse: Fuse

    @property
    def archive(self) -> MortalStorage:
        return MortalStorage(str(self.root / "archive"), fuse=self.fuse)

    @property
    def sources(self) -> list[ShardSource]:
        paths = sorted(self.root.glob("*.tar"))
        return [ShardSource(str(path), path.stat().st_size, "tag") for path in paths]

    def run(self) -> Summary:
        codec = FakeCodec(self.root / "capsule")
        manifest = Manifest("archive", "compress_dataset", codec.name, codec.fingerprint, {"quality": 3})
        plan = make_plan(self.archive, manifest, self.sources, overwrite=False)
        establish(self.archive, manifest, plan)
        copy_capsule(self.archive, codec.capsule)
        made_by = codec.fingerprint, lambda device: codec, self.decode
        job = CompressJob(UrlOpener(), self.archive, plan.fingerprint, Coding(3), 2, *made_by)
        return run(plan, LocalPool(job), self.archive, Silence())

    def decode(self, data: bytes) -> Image:
        self.fuse.burn()
        return decode_image(data)


def write_inputs(root: Path) -> None:
    (root / "capsule").mkdir()
    (root / "capsule" / "manifest.json").write_text('{"files": {}}')
    for number in range(SHARDS):
        members = corpora.shard_members(IMAGES, start=number)
        (root / f"{number}.tar").write_bytes(corpora.tar_bytes([*members, ("bad.jpg", b"nothing")]))


def committed(archive: Storage) -> Counter[tuple[str, str, str]]:
    """Rows and rejects of shards with a report: folder, shard and what identifies the row."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path in Storage(archive.url).list("reports"):
        report = ShardReport.from_json(Storage(archive.url).read(path).decode())
        for output, size in report.outputs.items():
            data = Storage(archive.url).read(output)
            assert len(data) == size
            for row in open_part(io.BytesIO(data)).read().to_pylist():
                found[output.split("/")[0], row["shard"], f"{row['key']} {row.get('original_sha256', '')}"] += 1
    return found


def expected(job: Job) -> Counter[tuple[str, str, str]]:
    rows: Counter[tuple[str, str, str]] = Counter()
    for number, source in enumerate(job.sources):
        rows["rejects", source.url, "bad "] += 1
        for name, data in corpora.shard_members(IMAGES, start=number):
            if name.endswith(".jpg"):
                rows["data", source.url, f"{name[:-4]} {hashlib.sha256(data).hexdigest()}"] += 1
    return rows


def contents(archive: Storage) -> dict[str, bytes]:
    """All objects but the reports, which have times in them."""
    plain = Storage(archive.url)
    return {path: plain.read(path) for path in plain.list() if not path.startswith("reports/")}


@cache
def undisturbed_steps() -> int:
    """Steps of a run that nobody kills."""
    with tempfile.TemporaryDirectory() as directory:
        write_inputs(Path(directory))
        job = Job(Path(directory), Fuse())
        job.run()
        return job.fuse.steps


@settings(max_examples=60)
@given(st.deferred(lambda: st.lists(st.integers(0, undisturbed_steps()), max_size=6)))
def test_any_kill_points_and_resumes(kill_points: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_inputs(Path(directory))
        fuse = Fuse()
        job = Job(Path(directory), fuse)
        done: Counter[tuple[str, str, str]] = Counter()
        for kill_point in kill_points:
            fuse.left = kill_point
            try:
                job.run()
            except Killed:
                fuse.left = None
            now = committed(job.archive)
            assert done <= now, "what was committed stays"
            assert now <= expected(job)
            done = now
        fuse.left = None
        summary = job.run()
        assert committed(job.archive) == expected(job)
        assert (summary.totals.shards, summary.totals.images) == (SHARDS, SHARDS * IMAGES)
        assert summary.totals.rejects == SHARDS
        job.fuse.steps = 0
        assert job.run().this_run.shards == 0, "a complete archive has nothing left to do"


def test_a_killed_run_leaves_the_same_archive_as_an_undisturbed_one(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    fuse = Fuse()
    job = Job(tmp_path, fuse)
    job.run()
    whole = contents(job.archive)
    for path in job.archive.list():
        job.archive.delete(path)
    killed = 0
    for kill_point in range(0, 4 * undisturbed_steps(), 7):
        fuse.left = kill_point
        try:
            job.run()
        except Killed:
            killed += 1
    assert killed > 2
    assert contents(job.archive) == whole
