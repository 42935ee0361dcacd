"""Capture metadata from EXIF and JSON, right where it is given and absent where it makes no sense."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from pipeline.metadata import CaptureMetadata, capture_metadata, parse_place, parse_time
from tests.corpora import image_bytes, jpeg, picture, png

NOON = datetime(2024, 1, 31, 12, 0, 0)
NOTHING = CaptureMetadata()


def exif(gps: Mapping[Any, Any] | None = None, details: Mapping[Any, str] | None = None, **base: Any) -> Image.Exif:
    result = Image.Exif()
    for name, value in base.items():
        result[ExifTags.Base[name]] = value
    if details:
        result.get_ifd(ExifTags.IFD.Exif).update(details)
    if gps:
        result.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return result


FULL = exif(
    Make="Canon\0\0",
    Model="Canon EOS R5",
    DateTime="2024:02:01 00:00:00",
    details={ExifTags.Base.DateTimeOriginal: "2024:01:31 14:00:00", ExifTags.Base.OffsetTimeOriginal: "+02:00"},
    gps={1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 36.0)},
)


def tiff_with(metadata: Image.Exif) -> bytes:
    """A one-pixel grey TIFF with directories for EXIF and GPS, which Pillow does not write itself."""
    header = Image.Exif()
    header.load(metadata.tobytes())
    for tag, value in {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}.items():
        header[tag] = value
    return header.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_of_every_format(format: str) -> None:
    image = tiff_with(FULL) if format == "TIFF" else image_bytes(picture(), format, exif=FULL)
    known = capture_metadata(image, {})
    assert known.captured_at == NOON
    assert known.camera == "Canon EOS R5"
    assert known.latitude == pytest.approx(-33.857)
    assert known.longitude == pytest.approx(151.21)


def test_exif_without_offset_is_local_time() -> None:
    known = capture_metadata(jpeg(exif=exif(DateTime="2024:01:31 12:00:00", Make="ACME", Model="One")), {})
    assert known == CaptureMetadata(captured_at=NOON, camera="ACME One")


def test_blank_time_of_the_shot_hides_no_other() -> None:
    details = {ExifTags.Base.DateTimeOriginal: "0000:00:00 00:00:00"}
    known = capture_metadata(jpeg(exif=exif(DateTime="2024:01:31 12:00:00", details=details)), {})
    assert known.captured_at == NOON


@pytest.mark.parametrize(
    "fields",
    [
        {"latitude": None, "lat": 1, "lon": 2},
        {"latitude": "", "lat": 1, "longitude": None, "lng": 2},
        {"gps": {"latitude": 1, "longitude": 2}, "latitude": "", "longitude": ""},
    ],
)
def test_blank_fields_hide_no_others(fields: dict[str, Any]) -> None:
    known = capture_metadata(b"", {"json": fields})
    assert (known.latitude, known.longitude) == (1.0, 2.0)


def test_senseless_offset_does_not_cost_the_time() -> None:
    details = {ExifTags.Base.DateTimeOriginal: "2024:01:31 12:00:00", ExifTags.Base.OffsetTimeOriginal: "   :  "}
    assert capture_metadata(jpeg(exif=exif(details=details)), {}).captured_at == NOON


def test_place_needs_its_hemispheres() -> None:
    assert capture_metadata(jpeg(exif=exif(gps={2: (33.0, 0.0, 0.0), 4: (151.0, 0.0, 0.0)})), {}) == NOTHING


@pytest.mark.parametrize(
    "fields",
    [
        {"captured_at": "2024-01-31T12:00:00Z", "camera": "front", "latitude": 48.1, "longitude": 11.6},
        {"Timestamp": 1706702400, "CAMERA_ID": "front", "lat": "48.1", "lng": "11.6"},
        {"timestamp": 1706702400_000, "sensor": "front", "gps": {"lat": 48.1, "lon": 11.6}},
        {"timestamp": "1706702400000000", "device": " front\0", "location": {"Latitude": 48.1, "Longitude": 11.6}},
        {"exif": {"DateTimeOriginal": "2024:01:31 12:00:00"}, "camera": "front", "lat": 48.1, "lon": 11.6},
        {"date_captured": "2024-01-31 13:00:00+01:00", "camera": "front", "gps": {"latitude": 48.1, "longitude": 11.6}},
    ],
)
def test_common_json_fields(fields: dict[str, Any]) -> None:
    assert capture_metadata(png(), {"json": fields}) == CaptureMetadata(NOON, "front", 48.1, 11.6)
    assert capture_metadata(b"", {"meta.json": fields}) == CaptureMetadata(NOON, "front", 48.1, 11.6)


def test_exif_prevails_and_json_completes() -> None:
    image = jpeg(exif=exif(Make="ACME", Model="One"))
    fields = {"camera": "front", "timestamp": "2024-01-31T12:00:00", "lat": 1, "lon": 2}
    assert capture_metadata(image, {"json": fields}) == CaptureMetadata(NOON, "ACME One", 1.0, 2.0)


def test_top_level_prevails_over_nested() -> None:
    assert capture_metadata(b"", {"json": {"camera": "outer", "metadata": {"camera": "inner"}}}).camera == "outer"


def test_other_members_are_not_looked_at() -> None:
    assert (
        capture_metadata(b"", {"cls": "3", "txt": "camera: x", "json": "not parsed", "npy": {"camera": "x"}}) == NOTHING
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("202401311200", NOON),
        ("20240131120000", NOON),
        (20240131120000, NOON),
        ("20240131120000250", NOON.replace(microsecond=250_000)),
        ("202413311200", datetime(1976, 5, 31, 17, 55, 11, 200_000)),
        ("1706702400000", NOON),
    ],
)
def test_digits_are_a_date_where_they_can_be_one(value: Any, expected: datetime) -> None:
    assert parse_time(value) == expected


def test_camera_as_number() -> None:
    assert capture_metadata(b"", {"json": {"camera": 7}}).camera == "7"
    assert capture_metadata(b"", {"json": {"camera": True, "device": {"x": 1}}}).camera is None


@pytest.mark.parametrize(
    "value",
    [
        *("0000:00:00 00:00:00", "2024:13:01 00:00:00", "2024-02-30", "soon", "", "   ", "1" * 400),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"),
        *(3, -1.5, 1e30, math.nan, math.inf, True, None, [], {}),
    ],
)
def test_senseless_times(value: Any) -> None:
    assert parse_time(value) is None


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (90.1, 0),
        (0, 180.1),
        (-91, 0),
        (math.nan, 1),
        (1, math.inf),
        (0, 0),
        ("x", 1),
        (None, 1),
        (1, [2]),
        (10**400, 1),
    ],
)
def test_senseless_places(latitude: Any, longitude: Any) -> None:
    assert parse_place(latitude, longitude) == (None, None)


def test_places_at_the_limits() -> None:
    assert parse_place(-90, 180) == (-90.0, 180.0)
    assert parse_place(0, 0.001) == (0.0, 0.001)


def test_png_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert capture_metadata(png(), {}) == NOTHING


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
FIELD = st.sampled_from(["captured_at", "timestamp", "camera", "lat", "lon", "latitude", "longitude", "gps", "exif"])


def check_sane(known: CaptureMetadata) -> None:
    assert known.captured_at is None or (known.captured_at.tzinfo is None and 1900 <= known.captured_at.year <= 2100)
    assert known.camera is None or (0 < len(known.camera) <= 200 and known.camera.isprintable())
    assert (known.latitude is None) == (known.longitude is None)
    assert known.latitude is None or -90 <= known.latitude <= 90
    assert known.longitude is None or -180 <= known.longitude <= 180


@given(st.dictionaries(FIELD, JSON | st.dictionaries(FIELD, JSON, max_size=3)))
def test_any_json_is_survived(fields: dict[str, Any]) -> None:
    check_sane(capture_metadata(b"", {"json": fields}))


@given(st.binary(max_size=300))
def test_any_exif_is_survived(data: bytes) -> None:
    check_sane(capture_metadata(jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0" + data), {}))


@given(st.data())
def test_damaged_exif_is_survived(data: st.DataObject) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "JPEG", exif=FULL)
    damaged = bytearray(file.getvalue()[: 20 + len(FULL.tobytes())])
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check_sane(capture_metadata(bytes(damaged), {}))


def test_a_users_own_warning_filters_stay_as_they_are() -> None:
    """Neither the import nor the reading of odd files mutes Pillow for the rest of the program."""
    program = "import warnings, pipeline, pipeline.metadata; print([each[3] for each in warnings.filters if each[3]])"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "PIL" not in shown
    odd = jpeg(1)[:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0*\0\0\0\x08\0\x09" + jpeg(1)[2:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as threads:
            for known in threads.map(lambda _: capture_metadata(odd, {}), range(32)):
                check_sane(known)
        assert list(warnings.filters) == before
    assert caught == []
