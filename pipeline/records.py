"""The records that travel through the pipeline: plain frozen dataclasses, no behaviour beyond sums and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.protocols import Mode


@dataclass(frozen=True)
class ShardSource:
    """One input object: a tar for compression, a part of an archive for reading.

    `size` in bytes and `etag` (the store's entity tag, or one made of the modification time) identify its content:
    a shard whose source changed is not silently taken for done. `url` is its name, in outputs and to people; `private`
    is where it is read, if that says more (signature, password): it is never stored, and no part of what a shard is.
    """

    url: str
    size: int
    etag: str
    private: str = field(default="", compare=False, repr=False)

    @property
    def address(self) -> str:
        """What to open."""
        return self.private or self.url


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn of bitstreams: the mode, and where they are not its own, denoising steps and sampler."""

    mode: Mode
    steps: int | None = None
    sampler: str | None = None

    @property
    def told(self) -> dict[str, str | int]:
        """What there is to tell of a picture drawn so."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Sample:
    """One image of a shard, still encoded.

    `key` is the WebDataset key; where a sample has several images, the image's own extension prefix is appended
    (`000123.left`). `metadata` holds the sample's other members: parsed JSON, text, or base64 of anything else;
    `metadata_bytes` is the size of these files.
    """

    key: str
    shard: str
    image_name: str
    image: bytes
    metadata: Mapping[str, Any] = field(default_factory=dict)
    metadata_bytes: int = 0


@dataclass(frozen=True)
class Failure:
    """A sample that could not be processed: where, why, and its original bytes, so that nothing is lost."""

    key: str
    shard: str
    stage: str
    error: str
    data: bytes


@dataclass(frozen=True)
class ShardReport:
    """What became of one shard. Written last, it is the shard's done-marker; reports of several shards add up.

    `seconds` maps a step (`read`, `decode`, `tag`, `compress`, `write`, …) to wall-clock seconds spent in it.
    `outputs` maps the path of each object written, relative to the output, to its size in bytes. `error` says why the
    shard was rejected as a whole; it is empty for all others. `reasons` counts the commonest of the rejects, for the
    run that made them: it is not stored, as the table of rejects has them all.
    """

    shard: str
    source: ShardSource
    job_fingerprint: str
    images: int = 0
    rejects: int = 0
    skipped: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        fields = asdict(self)
        del fields["source"]["private"], fields["reasons"]
        return json.dumps(fields, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ShardReport:
        """Raises ValueError, KeyError or TypeError for JSON that is no report."""
        fields = json.loads(text)
        return cls(**{**fields, "source": ShardSource(**fields["source"])})
