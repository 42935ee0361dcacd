"""The demo's page: complete, self-contained, honest, and safe with any text."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from demo.page import Picture, Run, Totals, data_uri, render_page, write_page

RUN = Run("lite", "0123456789abcdef", 3, {"compress": 12.3}, "out/archive", "list_contains(tags, 'cat')", ["chelsea"])


def picture(key: str = "chelsea", size: tuple[int, int] = (30, 40), level: int = 100) -> Picture:
    pixels = np.full((*size, 3), level, np.uint8)
    return Picture(key, "a photographer", ["cat", "sofa"], "PNG", 9000, 75, pixels, pixels, pixels, 31.25)


class Elements(HTMLParser):
    """Collects the start tags of a page, each with its attributes and the tag before it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), self.found[-1][0] if self.found else ""))


def addresses(page: str) -> list[str]:
    """Whatever the page would load."""
    names = ("src", "href", "srcset", "poster", "data")
    return [attributes[name] or "" for _, attributes, _ in Elements(page).found for name in names if name in attributes]


def test_page_shows_three_pictures_for_each_photograph() -> None:
    found = addresses(render_page(RUN, [picture("a", level=20), picture("b", level=200)]))
    assert len([address for address in found if address.startswith("data:image/webp;base64,")]) == 6


def test_page_loads_nothing_from_elsewhere() -> None:
    page = render_page(RUN, [picture()])
    assert [address for address in addresses(page) if not address.startswith("data:")] == []
    assert not re.search(r"https?://|@import|url\(", page)


def test_page_states_rate_quality_and_tags() -> None:
    page = render_page(RUN, [picture()])
    for text in (
        "0.500 bits per pixel",
        "31.2 dB",
        "120.0 times smaller",
        "40 × 30",
        ">cat<",
        ">sofa<",
        "quality 3",
        "12.3 s",
    ):
        assert text in page, text


def test_page_says_that_full_is_a_reconstruction() -> None:
    page = render_page(RUN, [picture()])
    assert "may be invented" in page
    assert "reconstruction, may invent detail" in page


def test_pictures_are_described_and_enlarge_without_a_mouse() -> None:
    shown = [(found, before) for tag, found, before in Elements(render_page(RUN, [picture()])).found if tag == "img"]
    *trio, (enlarged, _) = shown
    assert [found["alt"] for found, _ in trio] == [
        "chelsea, original",
        "chelsea, preview decode",
        "chelsea, full decode: a reconstruction",
    ]
    assert {before for _, before in trio} == {"button"}
    assert "src" not in enlarged, "filled when one is chosen"


def test_sizes_are_in_units_that_fit() -> None:
    page = render_page(RUN, [replace(picture(), original_bytes=2_340_000, stored_bytes=1200)])
    assert "2.3\u00a0MB" in page
    assert "1.2\u00a0kB" in page


def test_the_query_names_the_archive_of_the_run() -> None:
    page = render_page(RUN, [picture()])
    assert "out/archive" in page
    assert "sees some that are not there" in page, "tags may be wrong"


def test_text_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    page = render_page(replace(RUN, query=evil, matches=[evil]), [replace(picture(evil), tags=[evil], credit=evil)])
    assert "<script>alert" not in page


def test_picture_survives_embedding() -> None:
    pixels = np.zeros((20, 50, 3), np.uint8)
    pixels[:, 25:] = (200, 100, 50)
    data = base64.b64decode(data_uri(pixels).split(",", 1)[1])
    shown = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
    assert shown.shape == pixels.shape
    assert np.abs(shown[:, 30:].astype(int) - (200, 100, 50)).mean() < 8


def test_totals_weigh_pictures_by_their_pixels() -> None:
    small, large = picture(size=(10, 10)), picture(size=(100, 100))
    totals = Totals.of([replace(small, stored_bytes=100), replace(large, stored_bytes=100)])
    assert totals.bits_per_pixel == pytest.approx(8 * 200 / 10100)
    assert totals.ratio == pytest.approx(90)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        Totals.of([])


def test_page_is_written_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write_page(path, RUN, [picture("café")])
    assert "café" in path.read_text(encoding="utf-8")
