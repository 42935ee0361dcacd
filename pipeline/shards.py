"""WebDataset shards as found in the wild: a tar stream to samples, one per image.

    a.jpg a.json a.cls              sample `a` with metadata {"json": {…}, "cls": "3"}
    a.left.jpg a.right.jpg a.json   samples `a.left` and `a.right`, both with the JSON; `a.left.json` goes to `a.left`
    a.jpg a.json a.jpg a.json       two samples `a`, as in tars joined together, each with its own JSON
    a.jpg a.seg.png a.png           samples `a`, `a.seg` and `a.png`
    dir.v1/a.b.jpg                  key `dir.v1/a`: the path up to the first dot of the base name
    a.jpg -> b.jpg                  links, devices and sparse files with an image's name: Failures of stage `read`
    a.JPG, a.bin, a                 upper case, wrong or missing extension: the content decides what is an image

Files under one key need not be neighbours. Images wait for their metadata while `grouping.LOOK_BACK` further samples
with images are read (fewer if they are large); metadata waits for its image to the end of the shard. What comes later
still, or twice, is set aside as a Failure of stage `group` with its bytes: nothing is lost, nothing is attached in
silence. Folders, hidden files and the traces of macOS are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.grouping import Group, ImageFile, Waiting, clean_path, split_key
from pipeline.image_files import HEAD_BYTES, looks_like_image
from pipeline.records import Failure, Sample
from pipeline.tar import Member, TarDamage, read_members

MAX_IMAGE_BYTES = 256 << 20
"""Larger images are rejected unread: 100 megapixels of JPEG take 60 MB, of 16-bit PNG up to 600 MB."""

MAX_METADATA_BYTES = 4 << 20
"""Larger files beside an image (point clouds, videos) stay in the shard; `{"omitted_bytes": …}` stands for them."""


def read_shard(file: BinaryIO, url: str) -> ShardReader:
    """The images of the tar or gzipped tar in `file`, each with what lies beside it, and what could not be read.

    The shard is streamed: memory is bounded by the limits here and in `grouping`, not by its size. Damage never raises:
    what came before it is kept, and the rest is one Failure of stage `read`. What `file.read` raises is passed on, as
    only the caller knows whether it is worth another attempt.

    Keys repeat where the shard repeats them (`keys.Distinct` tells them apart).
    """
    return ShardReader(file, url)


class ShardReader(Iterator[Sample | Failure]):
    """Iterates over a shard once.

    `skipped` counts the samples so far that have no image, which is no failure. `is_damaged` is true from the place on
    where the shard cannot be read any further.
    """

    def __init__(self, file: BinaryIO, url: str) -> None:
        self.skipped = 0
        self.is_damaged = False
        self._url = url
        self._waiting = Waiting()
        self._records = self._read(file)

    def __next__(self) -> Sample | Failure:
        return next(self._records)

    def _read(self, file: BinaryIO) -> Iterator[Sample | Failure]:
        damage = None
        try:
            for member in read_members(file):
                path = clean_path(member.name)
                if path and member.kind != "folder":
                    yield from self._add(path, member)
        except TarDamage as error:
            damage = error
            self.is_damaged = True
        for group in self._waiting.rest():
            yield from self._finish(group)
        if damage is not None:
            yield self._failure(split_key(clean_path(damage.member))[0], "read", str(damage))

    def _add(self, path: str, member: Member) -> Iterator[Sample | Failure]:
        """Puts a file to its sample, and yields the failures and samples that this brings to an end."""
        key, extension = split_key(path)
        group = self._waiting.take(key)
        if group.has_image and group.has(extension):  # the key begins anew, as where tars were joined together
            yield from self._finish(self._waiting.close(key))
            group = self._waiting.take(key)
        fill = self._fill if member.kind == "file" else self._note_link
        failure = fill(group, extension, path, member)
        if failure is not None:
            yield failure
        for finished in self._waiting.put(group):
            yield from self._finish(finished)

    def _fill(self, group: Group, extension: str, path: str, member: Member) -> Failure | None:
        head = member.read(HEAD_BYTES)
        if not looks_like_image(head, extension):
            return self._fill_metadata(group, extension, head, member)
        if 0 < member.size <= MAX_IMAGE_BYTES:
            group.add_image(extension, ImageFile(path, head + member.read()))
            return None
        group.unread.add(extension)
        size = f"{member.size} bytes, more than {MAX_IMAGE_BYTES}" if member.size else "zero bytes"
        return self._failure(group.key, "read", f"{path} has {size}")

    def _note_link(self, group: Group, extension: str, path: str, member: Member) -> Failure | None:
        """An image that is promised by name, and whose bytes are elsewhere in the shard, out of it, or in pieces."""
        if not looks_like_image(b"", extension):
            return None
        group.unread.add(extension)
        return self._failure(group.key, "read", f"{path} is a {member.kind}, not a file with the bytes of an image")

    def _fill_metadata(self, group: Group, extension: str, head: bytes, member: Member) -> Failure | None:
        is_omitted = member.size > MAX_METADATA_BYTES
        content = {"omitted_bytes": member.size} if is_omitted else head + member.read()
        if extension in group.metadata:
            return self._left_alone(group, f".{extension} comes twice", content)
        group.add_metadata(extension, content)
        return None

    def _finish(self, group: Group) -> Iterator[Sample | Failure]:
        yield from group.samples(self._url)
        if group.images or group.is_late:
            for extension, content in group.unclaimed().items():
                late = "comes twice, or too long after its image to be kept with it: sort the shard by name"
                reason = late if group.is_late else "belongs to no image that could be read"
                yield self._left_alone(group, f".{extension} {reason}", content)
        elif not group.has_image:
            self.skipped += 1
        if group.has_image and group.lost_metadata:
            self.skipped -= group.lost_metadata
            message = (
                "its metadata came too long before it to be kept, and is in the shard only: sort the shard by name"
            )
            yield self._failure(group.key, "group", message)

    def _left_alone(self, group: Group, error: str, content: bytes | dict[str, int]) -> Failure:
        """Metadata that is kept with no image: its bytes, or word of them."""
        if isinstance(content, bytes):
            return self._failure(group.key, "group", error, content)
        return self._failure(group.key, "group", f"{error}; its {content['omitted_bytes']} bytes stay in the shard")

    def _failure(self, key: str, stage: str, error: str, data: bytes = b"") -> Failure:
        return Failure(key, self._url, stage, error, data)
