"""When, where and by which camera an image was taken: from its EXIF, else from the JSON beside it.

JSON fields are understood in any letter case, at the top level or in one of `NESTED_OBJECTS`; docs/archive.md says what
they may hold.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from PIL import ExifTags, Image

TIME_FIELDS = (
    "captured_at",
    "capture_time",
    "date_captured",
    "datetime_original",
    "datetimeoriginal",
    "datetime",
    "timestamp",
    "taken_at",
)
CAMERA_FIELDS = ("camera", "camera_name", "camera_id", "camera_model", "device", "sensor")
LATITUDE_FIELDS = ("latitude", "lat")
LONGITUDE_FIELDS = ("longitude", "lon", "lng")
NESTED_OBJECTS = ("exif", "gps", "location", "metadata", "capture")

FIRST_YEAR, LAST_YEAR = 1900, 2100
MAX_CAMERA_LENGTH = 200

_EXIF_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](.+)", re.ASCII | re.DOTALL)
_COMPACT_DATE = re.compile(r"((?:19[789]|20\d)\d{5})(\d{4})(?:(\d\d)(\d{3})?)?", re.ASCII)
_EPOCH_UNITS = (1e9, 1e6, 1e3, 1.0)
_FIRST_EPOCH = 1e8  # in seconds, 1973: smaller numbers are counters, not times


class _QuietPillow:
    """Keeps Pillow's warnings about damaged EXIF to itself: it is common and no news to anybody.

    Workers read on threads, which would undo each other's `warnings.catch_warnings`. As in `difficmh/images.py`, which
    this layer may not import, the first one in adds one entry and the last one out takes it away. The remark in the
    pattern is another than there: equal entries are one in Python's list, and gone for both when one takes it away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._entry: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                warnings.filterwarnings("ignore", module=r"PIL\.(?#pipeline)")
                self._entry = warnings.filters[0]
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._entry in warnings.filters:
                warnings.filters.remove(self._entry)  # type: ignore[attr-defined]


_QUIET_PILLOW = _QuietPillow()


@dataclass(frozen=True)
class CaptureMetadata:
    """What is known of the shot.

    `captured_at` has no zone: UTC where the source names an offset, else the camera's local time. `latitude` and
    `longitude` are degrees in [-90, 90] and [-180, 180]; both are known or neither is.
    """

    captured_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def capture_metadata(image: bytes, metadata: Mapping[str, Any]) -> CaptureMetadata:
    """From the header of an image file, and from the `json` members of a sample's `metadata`. Never raises."""
    known = CaptureMetadata()
    with suppress(Exception), _QUIET_PILLOW:  # EXIF parsers raise anything on damaged input
        known = _from_exif(image)
    for extension, value in metadata.items():
        if isinstance(value, Mapping) and extension.rpartition(".")[2] == "json":
            known = _completed(known, _from_json(value))
    return known


def _completed(known: CaptureMetadata, other: CaptureMetadata) -> CaptureMetadata:
    place = known if known.latitude is not None else other
    return replace(
        known,
        captured_at=known.captured_at or other.captured_at,
        camera=known.camera or other.camera,
        latitude=place.latitude,
        longitude=place.longitude,
    )


def _from_exif(image: bytes) -> CaptureMetadata:
    exif = _exif(image)
    details = _directory(exif, ExifTags.IFD.Exif)
    times = (details.get(ExifTags.Base.DateTimeOriginal), exif.get(ExifTags.Base.DateTime))
    offset = details.get(ExifTags.Base.OffsetTimeOriginal) or details.get(ExifTags.Base.OffsetTime) or ""
    parsed = (parse_time(f"{_text(time)}{_text(offset)}") or parse_time(time) for time in times)
    latitude, longitude = _exif_place(_directory(exif, ExifTags.IFD.GPSInfo))
    return CaptureMetadata(
        captured_at=next(filter(None, parsed), None),
        camera=_camera(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)),
        latitude=latitude,
        longitude=longitude,
    )


def _exif(image: bytes) -> Image.Exif:
    """Read from the header: `getexif` of a PNG without EXIF would decode its pixels in search of it."""
    header = Image.open(io.BytesIO(image))  # stays open: directories are read when they are asked for
    if header.format == "TIFF":
        return header.getexif()
    exif = Image.Exif()
    exif.load(header.info.get("exif", b""))
    return exif


def _directory(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    with suppress(Exception):
        return exif.get_ifd(tag)
    return {}


def _camera(make: Any, model: Any) -> str | None:
    maker, name = _text(make), _text(model)
    if maker and not name.lower().startswith(maker.lower()):
        name = f"{maker} {name}".strip()
    return name[:MAX_CAMERA_LENGTH] or None


def _text(value: Any) -> str:
    """`value` without control characters and the NULs that cameras pad with; empty if it is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(character for character in value if character.isprintable()).strip()


def _exif_place(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, {"N": 1, "S": -1})
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, {"E": 1, "W": -1})
    return parse_place(latitude, longitude)


def _degrees(gps: Mapping[int, Any], tag: int, reference_tag: int, signs: Mapping[str, int]) -> float | None:
    """Degrees, minutes and seconds to signed degrees; None without a hemisphere, which is not to be guessed."""
    with suppress(Exception):
        sign = signs[_text(gps[reference_tag]).upper()[:1]]
        return sign * math.fsum(float(part) / 60**power for power, part in enumerate(gps[tag]))
    return None


def _from_json(value: Mapping[str, Any]) -> CaptureMetadata:
    fields = {name: content for name, content in _fields(value) if content not in (None, "")}  # blanks hide nothing
    times = (parse_time(fields.get(name)) for name in TIME_FIELDS)
    cameras = (_json_camera(fields.get(name)) for name in CAMERA_FIELDS)
    latitudes = (fields[name] for name in LATITUDE_FIELDS if name in fields)
    longitudes = (fields[name] for name in LONGITUDE_FIELDS if name in fields)
    latitude, longitude = parse_place(next(latitudes, None), next(longitudes, None))
    return CaptureMetadata(
        captured_at=next(filter(None, times), None),
        camera=next(filter(None, cameras), None),
        latitude=latitude,
        longitude=longitude,
    )


def _fields(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields by lower-case name; those of the top level last, so that they prevail."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and str(name).lower() in NESTED_OBJECTS:
            yield from ((str(field).lower(), content) for field, content in inner.items())
    yield from ((str(name).lower(), content) for name, content in value.items())


def _json_camera(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)[:MAX_CAMERA_LENGTH]
    return _camera(None, value)


def parse_time(value: Any) -> datetime | None:
    """A time as text or number, without zone (see `CaptureMetadata`); None for what is no sane time."""
    with suppress(ValueError, OverflowError, OSError):
        time = _parsed_time(value)
        if time is not None and time.tzinfo is not None:
            time = time.astimezone(UTC).replace(tzinfo=None)
        if time is not None and FIRST_YEAR <= time.year <= LAST_YEAR:
            return time
    return None


def _parsed_time(value: Any) -> datetime | None:
    if isinstance(value, bool):
        return None
    text = str(value) if isinstance(value, int) else _text(value)
    if (compact := _from_digits(text)) is not None:
        return compact
    if isinstance(value, int | float):
        return _from_epoch(float(value))
    if text.isascii() and text.isdigit() and len(text) > 8:
        return _from_epoch(float(text))
    if match := _EXIF_DATE.fullmatch(text):
        text = f"{match[1]}-{match[2]}-{match[3]}T{match[4].strip()}"
    return datetime.fromisoformat(text) if text else None


def _from_digits(text: str) -> datetime | None:
    """`YYYYMMDDhhmm`, also with `ss` and thousandths behind, as recorders name their files. As counts since 1970 these
    numbers would lie before 2002, or far ahead."""
    if match := _COMPACT_DATE.fullmatch(text):
        with suppress(ValueError):
            day, time = match[1], match[2] + (match[3] or "00")
            return datetime.fromisoformat(f"{day}T{time}.{match[4] or '000'}")
    return None


def _from_epoch(number: float) -> datetime | None:
    """Seconds, milli-, micro- or nanoseconds since 1970: the largest unit that gives a time after 1973."""
    for unit in _EPOCH_UNITS:
        if number / unit >= _FIRST_EPOCH:
            return datetime.fromtimestamp(number / unit, UTC)
    return None


def parse_place(latitude: Any, longitude: Any) -> tuple[float | None, float | None]:
    """Degrees in range, or (None, None); also for exactly (0, 0), which receivers without a fix write."""
    with suppress(TypeError, ValueError, OverflowError):
        north, east = float(latitude), float(longitude)
        if abs(north) <= 90 and abs(east) <= 180 and (north, east) != (0.0, 0.0):
            return north, east
    return None, None
