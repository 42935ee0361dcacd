"""What a demo run left behind, brought together per photograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from demo.page import Picture
from demo.photographs import Photograph
from pipeline.archive import Archive
from pipeline.protocols import Image, ImageDecoder


@dataclass(frozen=True)
class ArchivedPicture:
    """What an archive says about a picture without decoding it; the fields are columns of its parts."""

    key: str
    tags: list[str]
    width: int
    height: int
    original_bytes: int
    bits_per_pixel: float
    psnr_db: float


def archived_pictures(archive: Archive) -> dict[str, ArchivedPicture]:
    """Every picture in the archive, by key."""
    columns = [field.name for field in fields(ArchivedPicture)]
    return {row["key"]: ArchivedPicture(**row) for row in archive.query(columns=columns).to_pylist()}


def most_useful_tag(archived: Iterable[ArchivedPicture]) -> str | None:
    """A tag to search for: one that finds several pictures but not all; None where no picture has a tag."""
    listed = list(archived)
    counts = Counter(tag for each in listed for tag in each.tags)
    telling = {tag: count for tag, count in counts.items() if count < len(listed)} or counts
    return min(telling, key=lambda tag: (-telling[tag], tag), default=None)


def tag_query(tag: str) -> str:
    """The WHERE clause for pictures with `tag`."""
    quoted = tag.replace("'", "''")
    return f"list_contains(tags, '{quoted}')"


def collect_pictures(
    photographs: Sequence[Photograph],
    archived: Mapping[str, ArchivedPicture],
    decoded: Mapping[str, Path],
    decode_image: ImageDecoder,
) -> list[Picture]:
    """One `Picture` per photograph that the archive holds; `decoded` are the folders of `preview` and `full`.

    Raises FileNotFoundError where a decoded file is missing.
    """
    return [
        _picture(photograph, archived[photograph.archive_key], decoded, decode_image)
        for photograph in photographs
        if photograph.archive_key in archived
    ]


def _picture(
    photograph: Photograph, archived: ArchivedPicture, decoded: Mapping[str, Path], decode_image: ImageDecoder
) -> Picture:
    original = photograph.read()
    return Picture(
        key=photograph.archive_key,
        credit=photograph.credit,
        tags=archived.tags,
        original_format=photograph.file.rsplit(".", 1)[1].upper(),
        original_bytes=archived.original_bytes,
        stored_bytes=round(archived.bits_per_pixel * archived.width * archived.height / 8),
        original=decode_image(original),
        preview=_decoded(decoded["preview"], photograph.archive_key, decode_image),
        full=_decoded(decoded["full"], photograph.archive_key, decode_image),
        preview_psnr=archived.psnr_db,
    )


def _decoded(folder: Path, key: str, decode_image: ImageDecoder) -> Image:
    found = sorted(folder.rglob(f"{key}.png"))
    if not found:
        raise FileNotFoundError(f"{key}.png is not under {folder}")
    return decode_image(found[0].read_bytes())
