"""The images under some URLs, one after the other in one process: for evaluations, which need no distribution."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.image_files import IMAGE_EXTENSIONS
from pipeline.keys import Distinct
from pipeline.listing import SHARD_SUFFIXES, expand
from pipeline.records import Sample, ShardSource
from pipeline.retry import BRIEF, PATIENT
from pipeline.shards import read_shard
from pipeline.storage import Storage, UrlOpener


@dataclass(frozen=True)
class SourceImage:
    """An image file; `label` is the JSON object of its name beside it, or None. `wrong` says why there are no bytes.

    A shard's name stands before the key; where a name comes again it gets a number (`a.jpg~2`).
    """

    name: str
    data: bytes
    label: Mapping[str, Any] | None = None
    wrong: str = ""


def read_images(
    urls: Sequence[str], storage_options: Mapping[str, Any] | None = None, labelled: bool = True
) -> Iterator[SourceImage]:
    """Each image, still encoded, in the order of the URLs; without labels unless `labelled`.

    A URL is an image file, a folder of them (at any depth), or whatever `listing.expand` takes for shards. Raises
    JobError where one leads to no images, or to images and shards alike, or a shard is damaged: nobody could say
    how many images an evaluation of the rest would lack.
    """
    distinct = Distinct()
    for url in urls:
        found = False
        for image in _read_url(url, storage_options or {}, labelled):
            found = True
            yield replace(image, name=distinct(image.name))
        if not found:
            raise JobError(f"{url} holds no images")


def _read_url(url: str, storage_options: Mapping[str, Any], labelled: bool) -> Iterator[SourceImage]:
    opener = UrlOpener(storage_options)
    with reaching(url):
        folder, files = _files(Storage.from_url(url, storage_options, BRIEF))
        images = [path for path in files if _is_image(path)]
        shards = [path for path in files if path.lower().endswith(SHARD_SUFFIXES)]
        if images and shards:
            raise JobError(f"{url} holds images and shards, such as {shards[0]}: name either, or both one by one")
        sources = [] if images else expand([url], storage_options)
    folder = replace(folder, retry=PATIENT)
    labels = set(files) if labelled else set()
    for path in images:
        beside = _beside(path)
        yield SourceImage(path, folder.read(path), _parsed(folder.read(beside)) if beside in labels else None)
    for source in sources:
        for image in _read_source(source, opener):
            yield image if labelled else replace(image, label=None)


def _files(place: Storage) -> tuple[Storage, list[str]]:
    """A folder and the files of it that are meant: all below `place`, or the image that it is and the JSON beside."""
    if not place.exists(""):
        return place, place.list()
    if not _is_image(place.url):
        return place, []
    parent, _, name = place.url.rpartition("/")
    folder = replace(place, url=parent or "/")
    return folder, [path for path in (name, _beside(name)) if folder.exists(path)]


def _is_image(path: str) -> bool:
    return path.lower().rpartition(".")[2] in IMAGE_EXTENSIONS


def _beside(path: str) -> str:
    return f"{path.rpartition('.')[0]}.json"


def _parsed(text: bytes) -> Mapping[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _read_source(source: ShardSource, opener: UrlOpener) -> Iterator[SourceImage]:
    with opener.open(source.address) as file:
        shard = read_shard(file, source.url)
        for sample in shard:
            name = f"{source.url.rpartition('/')[2]}/{sample.key}"
            if isinstance(sample, Sample):
                label = sample.metadata.get("json")
                yield SourceImage(name, sample.image, label if isinstance(label, dict) else None)
            elif shard.is_damaged or sample.stage != "read":  # of what is metadata somebody has to say whose it is
                place = f"{source.url}, at {sample.key}" if sample.key else source.url
                raise JobError(f"{place}: {sample.error}; mend the shard or leave it out")
            else:
                yield SourceImage(name, b"", wrong=sample.error)
