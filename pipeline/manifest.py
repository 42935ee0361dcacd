"""What a job's output says about itself, and which shards are still to do.

The manifest (`archive.json` in an archive) is written before the first shard and never changed by a resumed run;
a run with another configuration is refused. Resume is the input's shards minus the reports, listed once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.commit import DATA, REJECTS, REPORTS, report_path
from pipeline.errors import JobError
from pipeline.places import check_empty, check_lasting
from pipeline.prefetch import requests
from pipeline.records import ShardReport, ShardSource
from pipeline.retry import BRIEF
from pipeline.storage import ObjectInfo, Storage
from pipeline.table import SCHEMA_VERSION
from pipeline.totals import Totals

FORMAT_VERSION = 1
ARCHIVE_FINGERPRINT = "archive_fingerprint"
SHA256 = "_sha256"
"""Settings of outputs of an archive that are hashes: of how it was made, and, by this ending, of files."""

KINDS = ("archive", "pictures", "results")


@dataclass(frozen=True)
class Manifest:
    """An output's description of itself, stored as `<kind>.json`.

    `kind` is `"archive"`, `"pictures"` or `"results"`, `job` the job's name. `settings` decide what is written: a run
    with other ones, or with another codec, cannot add to this output. `config` is the whole job as it was first asked
    for, without credentials, for people to read.
    """

    kind: str
    job: str
    codec: str
    codec_fingerprint: str
    settings: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    schema_version: int = SCHEMA_VERSION

    @property
    def path(self) -> str:
        return f"{self.kind}.json"

    @property
    def job_fingerprint(self) -> str:
        """16 hexadecimal digits over all that decides what is written."""
        deciding = [self.job, self.codec, self.codec_fingerprint, self.schema_version, self.settings]
        text = json.dumps(deciding, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        # A local path may be no text: its bytes then.
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "job_fingerprint": self.job_fingerprint}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises ValueError or TypeError for JSON that is no manifest."""
        fields = json.loads(text)
        fields.pop("job_fingerprint", None)
        return cls(**fields)


def read_manifest(storage: Storage, kind: str) -> Manifest | None:
    """The manifest of an output, None where there is none; raises JobError for a damaged or newer one."""
    path = f"{kind}.json"
    try:
        text = storage.read(path).decode()
    except FileNotFoundError:
        return None
    try:
        _check_version(storage.path_url(path), json.loads(text))
        return Manifest.from_json(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise JobError(f"{storage.path_url(path)} is no {kind} of difficmh (or is damaged)") from error


def _check_version(url: str, fields: Mapping[str, Any]) -> None:
    """Before the fields are looked at, as a newer release may have others."""
    for name, known in (("format_version", FORMAT_VERSION), ("schema_version", SCHEMA_VERSION)):
        if fields.get(name, 0) > known:
            raise JobError(f"{url} was written by a newer release ({name} {fields[name]}, this one knows {known})")


@dataclass(frozen=True)
class Plan:
    """What a run has to do: shards pending, and the totals of those done before. `kind` is the output's.

    Reports of `redo` do not hold. `replaces` is the fingerprint of the manifest that was there, if any; `others` counts
    reports of shards that are not among the inputs.
    """

    fingerprint: str
    pending: Sequence[ShardSource]
    done: Totals = field(default_factory=Totals)
    redo: Sequence[ShardSource] = ()
    kind: str = "archive"
    replaces: str = ""
    others: int = 0

    @property
    def shards(self) -> int:
        return len(self.pending) + self.done.shards


def make_plan(storage: Storage, manifest: Manifest, sources: Sequence[ShardSource], overwrite: bool) -> Plan:
    """The shards of `sources` without a valid report, or whose outputs are not what it says. Writes nothing.

    Raises JobError where `storage` would not last or holds other files, and where the output was made with another
    configuration or a shard's source changed since it was done, unless `overwrite`, which puts them back among
    the pending ones (`redo`); FileNotFoundError where there is no bucket for the output.
    """
    check_lasting(storage.url)
    _check_kind(replace(storage, retry=BRIEF), manifest)  # the first contact
    reports = {info.path: info for info in storage.scan(REPORTS, deep=False)}
    if not reports:
        storage.check_bucket()
    present = read_manifest(storage, manifest.kind)
    if present is None:
        check_empty(storage)
    others = len(reports.keys() - set(map(report_path, sources)))
    _check_manifest(storage, present, manifest, others, overwrite)
    with_report = [source for source in sources if report_path(source) in reports]
    sizes = {info.path: info.size for folder in (DATA, REJECTS) for info in storage.scan(folder, deep=False)}
    done, lost, stale = Totals(), [], []
    for source, report in _read_reports(storage, with_report, reports):
        if report is None or (report.source, report.job_fingerprint) != (source, manifest.job_fingerprint):
            stale.append((source, report))
        elif not _outputs_are_there(report, sizes):
            lost.append(source)
        else:
            done += Totals.of(report)
    _refuse_stale(stale, overwrite)
    redo = [*lost, *(source for source, _ in stale)]
    again = {source.url for source in redo}
    pending = [source for source in sources if source.url in again or report_path(source) not in reports]
    replaces = present.job_fingerprint if present else ""
    return Plan(manifest.job_fingerprint, pending, done, redo, manifest.kind, replaces, others)


def _outputs_are_there(report: ShardReport, sizes: Mapping[str, int]) -> bool:
    """Not so where parts were lost, or where a later attempt was killed between its part and its report.

    `sizes` are of what lies in `data/` and `rejects/` themselves: pictures in folders below are too many to be listed.
    """
    own = {path: size for path, size in report.outputs.items() if path.count("/") == 1}
    return all(sizes.get(path) == size for path, size in own.items())


def establish(storage: Storage, manifest: Manifest, plan: Plan) -> None:
    """Makes `storage` ready for `plan`: reports that no longer hold are removed, then the manifest is written.

    Raises JobError where another job's manifest came between, as while workers started: the output would become a
    mixture of both.
    """
    _check_kind(storage, manifest)
    present = read_manifest(storage, manifest.kind)
    if present is not None and present.job_fingerprint not in (plan.replaces, manifest.job_fingerprint):
        difference = _difference(present, manifest)
        raise JobError(f"{storage.url} has just been made {difference}, by another job; choose another place")
    for _ in requests(lambda source: storage.delete(report_path(source)), plan.redo):
        pass
    if present is None or present.job_fingerprint != manifest.job_fingerprint:
        with storage.atomic_write(manifest.path) as file:
            file.write(manifest.to_json().encode())


def _check_kind(storage: Storage, manifest: Manifest) -> None:
    """Reports of two jobs in one folder would be taken for each other's."""
    for kind in KINDS:
        if kind != manifest.kind and storage.exists(f"{kind}.json"):
            raise JobError(f"{storage.url} holds another job's output ({kind}.json); choose another place")


def _check_manifest(
    storage: Storage, present: Manifest | None, manifest: Manifest, others: int, overwrite: bool
) -> None:
    """Refuses another configuration, also where no shard is done yet: another job may be at work on its first.

    `others` are shards of the output that are not among the inputs.
    """
    if present is None or present.job_fingerprint == manifest.job_fingerprint:
        return
    if not overwrite:
        raise JobError(f"{storage.url} was made {_difference(present, manifest)}; choose another place or --overwrite")
    if others:
        raise JobError(
            f"{storage.url} was made {_difference(present, manifest)} and holds {others} shards that are not among "
            "the inputs: overwriting the rest would leave a mixture"
        )


def _difference(present: Manifest, wanted: Manifest) -> str:
    """How `present` was made, in words: hashes, which say nothing to people, by what changed."""
    if present.codec != wanted.codec:
        return f"with codec {present.codec}, not {wanted.codec}"
    if present.codec_fingerprint != wanted.codec_fingerprint:
        return f"with other weights ({present.codec_fingerprint}, these are {wanted.codec_fingerprint})"
    names = sorted({*present.settings, *wanted.settings})
    pairs = ((name, present.settings.get(name), wanted.settings.get(name)) for name in names)
    changed = {name: f"{name} {then}, not {now}" for name, then, now in pairs if then != now}
    files = [name.removesuffix(SHA256) for name in changed if name.endswith(SHA256)]
    if told := [text for name, text in changed.items() if name != ARCHIVE_FINGERPRINT and not name.endswith(SHA256)]:
        return f"with {', '.join(told)}"
    if ARCHIVE_FINGERPRINT in changed:
        return "before its archive was made anew"
    return f"before {' and '.join(files)} changed" if files else "with another release"


def _read_reports(
    storage: Storage, sources: Sequence[ShardSource], reports: Mapping[str, ObjectInfo]
) -> Iterator[tuple[ShardSource, ShardReport | None]]:
    """The report of each source; None for one that is no report."""

    def read(source: ShardSource) -> tuple[ShardSource, ShardReport | None]:
        path = report_path(source)
        try:
            return source, ShardReport.from_json(storage.read(path, 0, reports[path].size).decode())
        except (ValueError, KeyError, TypeError):
            return source, None

    return requests(read, sources)


def _refuse_stale(stale: Sequence[tuple[ShardSource, ShardReport | None]], overwrite: bool) -> None:
    if stale and not overwrite:
        source, report = stale[0]
        reason = _why_stale(source, report)
        raise JobError(f"{source.url}: {reason}; {len(stale)} such shards, --overwrite does them again")


def _why_stale(source: ShardSource, report: ShardReport | None) -> str:
    if report is None:
        return "its report is damaged"
    if report.source == source:
        return "it was done with other settings"
    how = f"{report.source.size} bytes then, {source.size} now"
    if report.source.size == source.size:
        what = "content or time, by the store's tag," if "://" in source.url else "modification time"
        how = f"of the same size; its {what} changed"
    return f"it changed since it was done ({how})"
