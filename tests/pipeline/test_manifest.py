"""What an output says about itself, what a resumed run finds to do, and what it refuses."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commit import ShardCommit, report_path
from pipeline.errors import JobError
from pipeline.manifest import FORMAT_VERSION, Manifest, establish, make_plan, read_manifest
from pipeline.records import Failure, ShardReport, ShardSource
from pipeline.retry import BRIEF, PATIENT
from pipeline.storage import Storage
from pipeline.table import SCHEMA_VERSION
from tests.pipeline.archives import noted_patience
from tests.s3_server import Bucket

MANIFEST = Manifest("archive", "compress_dataset", "fake", "0123456789abcdef", {"quality": 3}, {"workers": 2})
SOURCES = [ShardSource(f"/in/{number}.tar", 100 + number, f"tag{number}") for number in range(4)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.from_url(str(tmp_path / "archive"))


def finish(storage: Storage, manifest: Manifest, *sources: ShardSource) -> None:
    for source in sources:
        with ShardCommit(storage, source, manifest.job_fingerprint) as commit:
            commit.finish(ShardReport(source.url, source, manifest.job_fingerprint, images=10, bytes_in=1000))


def test_a_new_output(storage: Storage) -> None:
    plan = make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    assert (plan.pending, plan.done.shards, plan.redo) == (SOURCES, 0, [])
    assert storage.list() == [], "planning writes nothing"
    establish(storage, MANIFEST, plan)
    assert read_manifest(storage, "archive") == MANIFEST
    assert json.loads(storage.read("archive.json"))["job_fingerprint"] == MANIFEST.job_fingerprint


def test_the_fingerprint_of_a_job_never_changes() -> None:
    """An archive that was begun by one release is gone on with by the next."""
    assert MANIFEST.job_fingerprint == "1617ed186083b670"
    assert replace(MANIFEST, config={}, kind="pictures").job_fingerprint == MANIFEST.job_fingerprint
    changes = {"job": "another"}, {"schema_version": 2}, {"codec": "another"}, {"codec_fingerprint": "f" * 16}
    others = {replace(MANIFEST, **change).job_fingerprint for change in (*changes, {"settings": {"quality": 4}})}
    assert len(others - {MANIFEST.job_fingerprint}) == 5


def test_an_archive_below_a_folder_whose_name_is_no_text(storage: Storage) -> None:
    archive = os.fsdecode(b"/in/caf\xe9")
    manifest = replace(MANIFEST, settings={"archive": archive})
    establish(storage, manifest, make_plan(storage, manifest, SOURCES, overwrite=False))
    assert read_manifest(storage, "archive") == manifest
    others = {MANIFEST.job_fingerprint, replace(MANIFEST, settings={"archive": "/in/caf\xe9"}).job_fingerprint}
    assert manifest.job_fingerprint not in others


@pytest.mark.s3
def test_a_new_output_needs_a_bucket(s3: Bucket) -> None:
    make_plan(Storage.from_url(f"{s3.url}/new", s3.storage_options), MANIFEST, SOURCES, overwrite=False)
    nowhere = Storage.from_url("s3://there-is-no-such-bucket/new", s3.storage_options)
    with pytest.raises(FileNotFoundError):
        make_plan(nowhere, MANIFEST, SOURCES, overwrite=False)


def test_another_job_s_output_is_left_alone(storage: Storage) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    pictures = replace(MANIFEST, kind="pictures")
    with pytest.raises(JobError, match=r"holds another job's output \(archive.json\)"):
        make_plan(storage, pictures, SOURCES, overwrite=True)


def test_resume_is_sources_minus_reports(storage: Storage) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    finish(storage, MANIFEST, SOURCES[0], SOURCES[2])
    plan = make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    assert plan.pending == [SOURCES[1], SOURCES[3]]
    assert (plan.done.shards, plan.done.images, plan.done.bytes_in) == (2, 20, 2000)
    assert (plan.shards, plan.kind) == (4, "archive")


def test_first_contact_is_brief_and_all_else_is_patient(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    finish(storage, MANIFEST, SOURCES[0])
    asked = noted_patience(monkeypatch, "exists", "scan", "read")
    make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    assert asked == {("exists", BRIEF), ("scan", PATIENT), ("read", PATIENT)}


def test_other_inputs_may_be_added_and_how_it_runs_may_change(storage: Storage) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES[:2], overwrite=False))
    finish(storage, MANIFEST, *SOURCES[:2])
    later = replace(MANIFEST, config={"workers": 8})
    plan = make_plan(storage, later, SOURCES[2:], overwrite=False)
    establish(storage, later, plan)
    assert plan.pending == SOURCES[2:]
    assert read_manifest(storage, "archive") == MANIFEST, "the first configuration stays"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(MANIFEST, settings={"quality": 4}), "quality 3, not 4"),
        (replace(MANIFEST, codec_fingerprint="f" * 16), "other weights"),
        (replace(MANIFEST, codec="sd21-r4"), "codec fake, not sd21-r4"),
    ],
)
def test_another_configuration_is_refused(storage: Storage, other: Manifest, reason: str) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    finish(storage, MANIFEST, *SOURCES)
    with pytest.raises(JobError, match=reason):
        make_plan(storage, other, SOURCES, overwrite=False)
    plan = make_plan(storage, other, SOURCES, overwrite=True)
    assert plan.pending == SOURCES
    assert plan.redo == SOURCES
    establish(storage, other, plan)
    assert read_manifest(storage, "archive") == other
    assert storage.list("reports") == [], "a shard that is being redone is not done"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_job_that_was_planned_while_another_one_began_is_refused(storage: Storage, overwrite: bool) -> None:
    other = replace(MANIFEST, settings={"quality": 1})
    first, second = (make_plan(storage, each, SOURCES, overwrite) for each in (MANIFEST, other))
    establish(storage, MANIFEST, first)
    finish(storage, MANIFEST, SOURCES[0])
    with pytest.raises(JobError, match=r"has just been made with quality 3, not 1, by another job"):
        establish(storage, other, second)
    assert read_manifest(storage, "archive") == MANIFEST
    assert len(storage.list("reports")) == 1
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite))


def test_two_kinds_of_output_that_begin_at_once_do_not_share_a_place(storage: Storage) -> None:
    other = replace(MANIFEST, kind="pictures")
    first, second = (make_plan(storage, each, SOURCES, overwrite=False) for each in (MANIFEST, other))
    establish(storage, MANIFEST, first)
    with pytest.raises(JobError, match=r"holds another job's output \(archive\.json\)"):
        establish(storage, other, second)
    assert storage.list() == ["archive.json"]


def test_the_same_command_may_be_started_twice_at_once(storage: Storage) -> None:
    first, second = (make_plan(storage, MANIFEST, SOURCES, overwrite=False) for _ in range(2))
    establish(storage, MANIFEST, first)
    finish(storage, MANIFEST, SOURCES[0])
    establish(storage, MANIFEST, second)
    assert read_manifest(storage, "archive") == MANIFEST
    assert storage.list("reports") == [report_path(SOURCES[0])]


def write(storage: Storage, path: str, data: bytes) -> None:
    with storage.atomic_write(path) as file:
        file.write(data)


def finish_with_outputs(storage: Storage, source: ShardSource) -> str:
    """A shard with a part, rejects and a picture in a folder; returns its name."""
    with ShardCommit(storage, source, MANIFEST.job_fingerprint) as commit:
        for path in (f"data/{commit.name}.parquet", f"data/{commit.name}/a.png"):
            with commit.output(path) as file:
                file.write(b"whole")
        commit.reject(Failure("a", source.url, "decode", "ValueError", b""))
        commit.finish(ShardReport(source.url, source, MANIFEST.job_fingerprint, images=10))
    return commit.name


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_shard_whose_part_is_lost_or_another_attempt_s_is_done_again(storage: Storage, overwrite: bool) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    names = [finish_with_outputs(storage, source) for source in SOURCES]
    write(storage, f"data/{names[0]}.parquet", b"of an attempt killed before its report")
    storage.delete(f"data/{names[1]}.parquet")
    storage.delete(f"rejects/{names[2]}.parquet")
    storage.delete(f"data/{names[3]}/a.png")  # one of too many to be listed
    plan = make_plan(storage, MANIFEST, SOURCES, overwrite)
    assert (plan.pending, plan.redo, plan.done.shards) == (SOURCES[:3], SOURCES[:3], 1)
    establish(storage, MANIFEST, plan)
    assert storage.list("reports") == [f"reports/{names[3]}.json"]


def test_overwriting_part_of_an_archive_is_refused(storage: Storage) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    finish(storage, MANIFEST, *SOURCES)
    with pytest.raises(JobError, match="2 shards that are not among the inputs"):
        make_plan(storage, replace(MANIFEST, settings={"quality": 4}), SOURCES[:2], overwrite=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"size": 99}, "100 bytes then, 99 now"), ({"etag": "other"}, "of the same size; its modification time changed")],
)
def test_a_changed_source_is_refused(storage: Storage, change: dict[str, object], reason: str) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    finish(storage, MANIFEST, *SOURCES)
    changed = [replace(SOURCES[0], **change), *SOURCES[1:]]
    with pytest.raises(JobError, match=rf"0\.tar: it changed .*{reason}"):
        make_plan(storage, MANIFEST, changed, overwrite=False)
    plan = make_plan(storage, MANIFEST, changed, overwrite=True)
    assert plan.pending == changed[:1]
    assert plan.done.shards == 3


def test_a_source_that_changed_in_a_store(storage: Storage) -> None:
    source = ShardSource("s3://corpus/0.tar", 100, "9486")
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, [source], overwrite=False))
    finish(storage, MANIFEST, source)
    with pytest.raises(
        JobError, match=r"it changed .*\(of the same size; its content or time, by the store's tag, changed"
    ):
        make_plan(storage, MANIFEST, [replace(source, etag="2a2e")], overwrite=False)


def test_a_damaged_report_is_refused(storage: Storage) -> None:
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    write(storage, report_path(SOURCES[0]), b"{}")
    with pytest.raises(JobError, match="damaged"):
        make_plan(storage, MANIFEST, SOURCES, overwrite=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"kind": "archive"}', "damaged"),
        ('{"format_version": 99, "new": 1}', "newer release"),
        (json.dumps({"format_version": FORMAT_VERSION + 1}), "newer release"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "newer release"),
    ],
)
def test_manifests_that_cannot_be_used(storage: Storage, text: str, reason: str) -> None:
    write(storage, "archive.json", text.encode())
    with pytest.raises(JobError, match=reason):
        read_manifest(storage, "archive")


def test_a_file_of_others_that_is_called_like_a_manifest(storage: Storage) -> None:
    write(storage, "archive.json", b'{"hello": 1}')
    with pytest.raises(JobError, match=r"archive\.json is no archive of difficmh \(or is damaged\)$"):
        read_manifest(storage, "archive")


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"archive_fingerprint": "9486"}, {"archive_fingerprint": "2a2e"}, "before its archive was made anew"),
        ({"own.py_sha256": "9486"}, {"own.py_sha256": "2a2e"}, "before own.py changed"),
        ({}, {"a.onnx_sha256": "2a2e", "a.json_sha256": "2a2e"}, "before a.json and a.onnx changed"),
        ({"mode": "full", "own.py_sha256": "9486"}, {"mode": "preview"}, "with mode full, not preview"),
    ],
)
def test_a_difference_is_said_without_hashes(
    storage: Storage, then: dict[str, str], now: dict[str, str], said: str
) -> None:
    first, second = (replace(MANIFEST, kind="results", settings=settings) for settings in (then, now))
    establish(storage, first, make_plan(storage, first, SOURCES, overwrite=False))
    with pytest.raises(JobError, match=rf"archive was made {said}; choose another place or --overwrite$"):
        make_plan(storage, second, SOURCES, overwrite=False)


def test_what_ray_deletes_is_no_place_for_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    for place in ("archive", ".", str(copy / "archive"), f"file://{copy}/archive"):
        with pytest.raises(JobError, match=r"_ray_pkg_0.* is in Ray's own copy .*: give an absolute path or a URL$"):
            make_plan(Storage.from_url(place), MANIFEST, SOURCES, overwrite=False)
    make_plan(Storage.from_url(str(tmp_path / "archive")), MANIFEST, SOURCES, overwrite=False)


def refused_among(storage: Storage, named: str) -> None:
    with pytest.raises(JobError, match=f"holds other files, such as {named}: choose an empty place$"):
        make_plan(storage, MANIFEST, SOURCES, overwrite=True)


def test_an_output_begins_in_an_empty_place(storage: Storage) -> None:
    write(storage, ".DS_Store", b"hidden")
    write(storage, ".git/config", b"hidden")
    make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    write(storage, "day/a.jpg", b"not ours")
    refused_among(storage, "day/a.jpg")
    write(storage, "archive.json", MANIFEST.to_json().encode())
    make_plan(storage, MANIFEST, SOURCES, overwrite=False)


def test_foreign_reports_are_no_output(storage: Storage) -> None:
    write(storage, "reports/annual.json", b"{}")
    refused_among(storage, "reports/annual.json")


def test_what_a_first_run_leaves_when_it_is_killed_may_be_resumed(storage: Storage) -> None:
    plan = make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    folder = Path(storage.url)
    folder.mkdir()
    (folder / ".writing-0.tmp").write_bytes(b"a manifest that was not finished")
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    write(storage, "capsule/codec.txt", b"more than the manifest")
    assert make_plan(storage, MANIFEST, SOURCES, overwrite=False).pending == plan.pending
    make_plan(storage, replace(MANIFEST, settings={"quality": 4}), SOURCES, overwrite=True)


@pytest.mark.s3
def test_an_output_begins_in_an_empty_part_of_a_bucket(s3: Bucket) -> None:
    for key in ("new/", "new/.hidden", "newer/a.jpg"):
        s3.put(key, b"")
    storage = Storage.from_url(f"{s3.url}/new", s3.storage_options)
    make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    s3.put("new/day/a.jpg", b"not ours")
    refused_among(storage, "day/")


def test_other_stores_are_looked_into_too() -> None:
    storage = Storage.from_url("memory://an-output")
    make_plan(storage, MANIFEST, SOURCES, overwrite=False)
    write(storage, "day/a.jpg", b"not ours")
    refused_among(storage, "day")
    storage.delete("day/a.jpg")


def test_shards_of_other_inputs_are_counted(storage: Storage) -> None:
    """As where inputs moved: they would be archived once more under their new addresses."""
    establish(storage, MANIFEST, make_plan(storage, MANIFEST, SOURCES, overwrite=False))
    for source in SOURCES:
        write(
            storage, report_path(source), ShardReport(source.url, source, MANIFEST.job_fingerprint).to_json().encode()
        )
    assert make_plan(storage, MANIFEST, SOURCES, overwrite=False).others == 0
    moved = [replace(source, url=f"/moved/{source.url}") for source in SOURCES]
    plan = make_plan(storage, MANIFEST, moved, overwrite=False)
    assert (plan.others, len(plan.pending)) == (len(SOURCES), len(SOURCES))
