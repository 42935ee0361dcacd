"""The images under some URLs, one after the other in one process: for evaluations, which need no distribution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.image_files import IMAGE_EXTENSIONS
from pipeline.job import reaching
from pipeline.listing import expand
from pipeline.records import Failure, ShardSource
from pipeline.rejects import JobError
from pipeline.shards import read_shard
from pipeline.storage import Storage, UrlOpener


def read_images(urls: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> Iterator[tuple[str, bytes]]:
    """Name and encoded bytes of each image, in the order of the URLs; a shard's name stands before the key.

    A URL is a folder of image files (at any depth), or whatever `listing.expand` takes for shards. Raises JobError
    where a URL leads to no images or a shard is damaged: an evaluation of fewer images than meant would mislead.
    """
    opener = UrlOpener(storage_options or {})
    for url in urls:
        with reaching(url):
            folder = Storage.from_url(url, storage_options)
            files = [path for path in folder.list() if path.lower().rpartition(".")[2] in IMAGE_EXTENSIONS]
            sources = [] if files else expand([url], storage_options)
        for path in files:
            yield path, folder.read(path)
        for source in sources:
            yield from _read_source(source, opener)


def _read_source(source: ShardSource, opener: UrlOpener) -> Iterator[tuple[str, bytes]]:
    with opener.open(source.url) as file:
        for sample in read_shard(file, source.url):
            if isinstance(sample, Failure):
                raise JobError(f"{source.url}: {sample.key}: {sample.error}")
            yield f"{source.url.rpartition('/')[2]}/{sample.key}", sample.image
