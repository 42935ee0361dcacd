"""Files that share a WebDataset key, collected from a stream in bounded memory and turned into samples."""

from __future__ import annotations

import base64
import json
import posixpath
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from pipeline.image_files import UNDECODED_EXTENSIONS
from pipeline.records import Sample

LOOK_BACK = 32
LOOK_BACK_BYTES = 32 << 20
"""Samples, and bytes of their files, that are held until the files that belong to them have come."""

SAMPLE_BYTES = 256 << 20
"""Bytes that a single sample may hold by itself: the metadata of a camera image of 100 MB comes right behind it."""

WAITING_METADATA_BYTES = 32 << 20
"""Bytes of metadata that are held until their image has come."""

MAX_LEADS = 16
"""How many beginnings of an extension are tried as the prefix of an image: names of a shard may be as long as it likes.
"""

_NO_PREFIX: Set[str] = frozenset([""])
"""Prefixes of the images under nearly every key: one image, plainly named."""

HOLDING_BYTES = 300
"""What Python itself takes to hold a group, and each file of it: labels of a few bytes count, too, if they are many."""


@dataclass(frozen=True)
class ImageFile:
    """An image of a sample: path in the shard, content."""

    path: str
    content: bytes


@dataclass
class Group:
    """The files under one key that have come so far.

    Images and metadata are by extension, without the first dot; metadata is bytes, or what stands for bytes left out.
    `gone`: prefixes of the images that have gone already under this key, None where none has. `lost_metadata`: how
    often metadata has gone that came before it. `unread` are the extensions of images that could not be read. `size`:
    bytes held, about; kept as a number, because all files of a shard may have one key (`cam.000001.jpg`).
    """

    key: str
    gone: Set[str] | None = None
    lost_metadata: int = 0
    images: dict[str, ImageFile] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    metadata: dict[str, bytes | dict[str, int]] = field(default_factory=dict)
    size: int = HOLDING_BYTES

    @property
    def is_late(self) -> bool:
        """Whether an image under this key has gone already."""
        return self.gone is not None

    @property
    def has_image(self) -> bool:
        """Whether an image has come, be it one that could not be read."""
        return bool(self.images or self.unread)

    @property
    def prefixes(self) -> Set[str]:
        """`left` of an image `left.jpg`, empty of `jpg`."""
        return frozenset(_prefix(extension) for extension in (*self.images, *self.unread))

    def has(self, extension: str) -> bool:
        """Whether a file with this extension has come."""
        return extension in self.images or extension in self.unread or extension in self.metadata

    def add_image(self, extension: str, image: ImageFile) -> None:
        self.images[extension] = image
        self.size += HOLDING_BYTES + len(image.content)

    def add_metadata(self, extension: str, content: bytes | dict[str, int]) -> None:
        self.metadata[extension] = content
        self.size += HOLDING_BYTES + _held(content)

    def samples(self, url: str) -> Iterator[Sample]:
        """One sample per image, in the order they came; what belongs to it alone comes first in its metadata."""
        parsed = {extension: parse_metadata(extension, content) for extension, content in self.metadata.items()}
        own, shared = self._owned()
        for key, extension in self._keys():
            image = self.images[extension]
            names = (*own.get(_prefix(extension), ()), *shared)
            size = sum(_held(self.metadata[name]) for name in names)
            yield Sample(key, url, image.path, image.content, {name: parsed[name] for name in names}, size)

    def unclaimed(self) -> dict[str, bytes | dict[str, int]]:
        """Metadata, by extension, that belongs to none of the images."""
        own, shared = self._owned()
        claimed = set(shared if self.images else ())
        claimed.update(*(own.get(_prefix(extension), ()) for extension in self.images))
        return {name: content for name, content in self.metadata.items() if name not in claimed}

    def _keys(self) -> Iterator[tuple[str, str]]:
        """The key of each image, and its extension. A raw file leaves the plain key to the JPEG beside it."""
        several = len(self.images) > 1 or self.is_late
        plain_key_taken = False
        for extension in self.images:
            prefix = _prefix(extension)
            is_beside = plain_key_taken or extension in UNDECODED_EXTENSIONS
            distinction = prefix or (extension if is_beside else "")
            plain_key_taken |= not prefix and not is_beside
            yield f"{self.key}.{distinction}" if several and distinction else self.key, extension

    def _owned(self) -> tuple[Mapping[str, list[str]], list[str]]:
        """Metadata that belongs to images with a prefix, by prefix, and metadata that belongs to every image.

        `left.json` and `left.meta.json` belong to `left.jpg`, `json` to all. `meta.json`, where there is no `meta.jpg`,
        is taken for everybody's too, but not where it may be that of an image which is not there: of a `meta.jpg` that
        has gone, of any that has gone where there is no `jpg` without a prefix, and beside `left.jpg` with a
        `left.json`, unless there is such a `jpg`.
        """
        prefixes, gone = self.prefixes, self.gone or _NO_PREFIX
        own, shared, unknown = defaultdict[str, list[str]](list), list[str](), list[str]()
        for name in self.metadata:
            if lead := _longest_lead(name, prefixes):
                own[lead].append(name)
            else:
                (unknown if _prefix(name) else shared).append(name)
        kinds_owned = {_kind(name) for names in own.values() for name in names}
        is_known = "" in prefixes
        for name in unknown:
            might_be_gone = _longest_lead(name, gone) or (self.is_late and not is_known)
            if not might_be_gone and (is_known or _kind(name) not in kinds_owned):
                shared.append(name)
        return own, shared


class Waiting:
    """Groups that may still grow: those with an image in a short queue, those without until their image comes."""

    def __init__(self) -> None:
        self._queue: OrderedDict[str, Group] = OrderedDict()
        self._without_image: OrderedDict[str, Group] = OrderedDict()
        self._without_image_size = 0
        self._gone: dict[str, Set[str]] = {}
        self._crowded_out: Counter[str] = Counter()

    def take(self, key: str) -> Group:
        """The group under `key`, new if there is none; to be given back by `put`."""
        if key in self._queue:
            return self._queue[key]
        if (group := self._without_image.pop(key, None)) is not None:
            self._without_image_size -= group.size
            return group
        return Group(key, gone=self._gone.get(key), lost_metadata=self._crowded_out[key])

    def put(self, group: Group) -> list[Group]:
        """Keeps `group` and returns those that cannot wait any longer."""
        if group.has_image:
            self._queue[group.key] = group
            self._crowded_out.pop(group.key, None)
            return self._overdue()
        self._without_image[group.key] = group
        self._without_image_size += group.size
        return self._crowd_out()

    def close(self, key: str) -> Group:
        """Ends the waiting of the group with an image under `key`; what comes under it from now on is late."""
        group = self._queue.pop(key)
        self._let_go(group)
        return group

    def _let_go(self, group: Group) -> None:
        prefixes = group.prefixes | (group.gone or _NO_PREFIX)
        self._gone[group.key] = (
            _NO_PREFIX if prefixes == _NO_PREFIX else prefixes
        )  # one object for nearly all of a shard

    def _overdue(self) -> list[Group]:
        overdue = []
        while self._holds_too_much():
            overdue.append(self._queue.popitem(last=False)[1])
            self._let_go(overdue[-1])
        return overdue

    def _holds_too_much(self) -> bool:
        size = sum(group.size for group in self._queue.values())
        return len(self._queue) > LOOK_BACK or size > (LOOK_BACK_BYTES if len(self._queue) > 1 else SAMPLE_BYTES)

    def _crowd_out(self) -> list[Group]:
        crowded_out = []
        while self._without_image_size > WAITING_METADATA_BYTES:
            group = self._without_image.popitem(last=False)[1]
            self._without_image_size -= group.size
            crowded_out.append(group)
        self._crowded_out.update(group.key for group in crowded_out)
        return crowded_out

    def rest(self) -> list[Group]:
        """What still waits at the end of the shard."""
        return [*self._queue.values(), *self._without_image.values()]


def clean_path(name: str) -> str:
    """`name` without `./`, `..` and leading `/`; empty for files that are no data.

    Those are hidden ones, `._` twins and `__MACOSX` folders of macOS, and `__name__` files of WebDataset.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    base = parts[-1] if parts else "."
    is_data = not base.startswith(".") and not (base.startswith("__") and base.endswith("__"))
    return "/".join(parts) if is_data and "__MACOSX" not in parts else ""


def split_key(path: str) -> tuple[str, str]:
    """WebDataset's key, the path up to the first dot of the base name, and the extension after it in lower case."""
    folder, base = posixpath.split(path)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _held(content: bytes | dict[str, int]) -> int:
    """Bytes of metadata that are in memory: none of those left out."""
    return len(content) if isinstance(content, bytes) else 0


def _prefix(extension: str) -> str:
    """`left` of `left.jpg`."""
    return extension.rpartition(".")[0]


def _kind(extension: str) -> str:
    """`json` of `left.json`."""
    return extension.rpartition(".")[2]


def _longest_lead(extension: str, prefixes: Set[str]) -> str:
    """Of `a.b.json` `a.b`, or else `a`, whichever is one of `prefixes`; empty where neither is."""
    lead = _prefix(extension)
    for _ in range(MAX_LEADS):
        if not lead or lead in prefixes:
            return lead
        lead = _prefix(lead)
    return ""


def parse_metadata(extension: str, content: bytes | dict[str, int]) -> Any:
    """A file beside an image: parsed JSON, text, or `{"base64": …}`; what stands for bytes left out stays.

    JSON that is not valid, or holds what no valid text can, is kept as text. A byte order mark before it is dropped.
    """
    if isinstance(content, dict):
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
    if _kind(extension) != "json":
        return text
    try:
        value = json.loads(text.removeprefix("\ufeff"))
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value
