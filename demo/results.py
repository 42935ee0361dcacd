"""What a demo run left behind, brought together per photograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.page import Picture
from demo.photographs import Photograph
from pipeline.archive import Archive
from pipeline.protocols import Image, ImageDecoder

COLUMNS = ["key", "tags", "width", "height", "original_bytes", "bits_per_pixel", "psnr_db"]


def archive_rows(archive: Archive) -> dict[str, dict[str, Any]]:
    """The metadata of every picture in the archive, by key."""
    return {row["key"]: row for row in archive.query(columns=COLUMNS).to_pylist()}


def most_useful_tag(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """A tag to search for: one that finds several pictures but not all; None where no picture has a tag."""
    listed = list(rows)
    counts = Counter(tag for row in listed for tag in row["tags"])
    telling = {tag: count for tag, count in counts.items() if count < len(listed)} or counts
    return min(telling, key=lambda tag: (-telling[tag], tag), default=None)


def tag_query(tag: str) -> str:
    """The WHERE clause for pictures with `tag`."""
    quoted = tag.replace("'", "''")
    return f"list_contains(tags, '{quoted}')"


def collect_pictures(
    photographs: Sequence[Photograph],
    rows: Mapping[str, Mapping[str, Any]],
    decoded: Mapping[str, Path],
    decode_image: ImageDecoder,
) -> list[Picture]:
    """One `Picture` per photograph that the archive holds; `decoded` are the folders of `preview` and `full`.

    Raises FileNotFoundError where a decoded file is missing.
    """
    return [
        _picture(photograph, rows[photograph.archive_key], decoded, decode_image)
        for photograph in photographs
        if photograph.archive_key in rows
    ]


def _picture(
    photograph: Photograph, row: Mapping[str, Any], decoded: Mapping[str, Path], decode_image: ImageDecoder
) -> Picture:
    original = photograph.read()
    return Picture(
        key=photograph.archive_key,
        credit=photograph.credit,
        tags=row["tags"],
        original_format=photograph.file.rsplit(".", 1)[1].upper(),
        original_bytes=row["original_bytes"],
        stored_bytes=round(row["bits_per_pixel"] * row["width"] * row["height"] / 8),
        original=decode_image(original),
        preview=_decoded(decoded["preview"], photograph.archive_key, decode_image),
        full=_decoded(decoded["full"], photograph.archive_key, decode_image),
        preview_psnr=row["psnr_db"],
    )


def _decoded(folder: Path, key: str, decode_image: ImageDecoder) -> Image:
    found = sorted(folder.rglob(f"{key}.png"))
    if not found:
        raise FileNotFoundError(f"{key}.png is not under {folder}")
    return decode_image(found[0].read_bytes())
