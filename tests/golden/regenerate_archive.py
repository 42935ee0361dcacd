"""Writes the golden archive, of the fake codec: `python -m tests.golden.regenerate_archive`.

Run it when a release brings a new version of the archive's format, into a folder of its own, never to make a failing
test pass: an archive that is not read or resumed any more is a broken one, however small the change of a name was.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import fsspec

from pipeline.compress import Coding, CompressJob
from pipeline.manifest import Manifest
from pipeline.records import ShardSource
from pipeline.storage import Storage, UrlOpener
from tests.corpora import jpeg, tar_bytes
from tests.fakes import FINGERPRINT, FakeCodec, FakeCodecFactory, decode_image
from tests.pipeline.archives import put_capsule, run_job

ARCHIVE = Path(__file__).parent / "archive-v1"
DRIVE = b'{"captured_at": "2026-03-01T12:30:00", "camera": "front", "latitude": 48.1, "longitude": 11.6}'
SHARD = tar_bytes(
    [
        ("drive/000.jpg", jpeg(0)),
        ("drive/000.json", DRIVE),
        ("drive/001.jpg", jpeg(1)),
        ("drive/002.jpg", b"no picture"),
    ]
)
CODING = Coding(quality=3)
MANIFEST = Manifest("archive", "compress_dataset", FakeCodec.name, FINGERPRINT, asdict(CODING), {"quality": 3})


def source(name: str, content: bytes) -> ShardSource:
    """A shard in memory, whose URL is the same on every machine."""
    url = f"memory://golden-corpus/{name}.tar"
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return ShardSource(url, len(content), f"tag of {name}")


def job(output: Storage) -> CompressJob:
    """What the golden archive was made by, with the batch size and the codec factory of today."""
    made_by = FINGERPRINT, FakeCodecFactory(Path("capsule")), decode_image
    return CompressJob(UrlOpener(), output, MANIFEST.job_fingerprint, CODING, 4, *made_by)


def main() -> None:
    shutil.rmtree(ARCHIVE, ignore_errors=True)
    output = Storage.from_url(str(ARCHIVE))
    run_job(job(output), output, [source("drive", SHARD)], MANIFEST)
    put_capsule(output)


if __name__ == "__main__":
    main()
