"""The page that shows a demo run: one HTML file with everything in it, which opens without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image as PillowImage

from pipeline.protocols import Image

PAGE_QUALITY = 95
"""WebP quality of the pictures in the page: a third of PNG's size, and no difference one could see."""


@dataclass(frozen=True)
class Picture:
    """One compressed photograph: `original`, `preview` and `full` are `(H, W, 3)` uint8 sRGB of one size."""

    key: str
    credit: str
    tags: Sequence[str]
    original_format: str
    original_bytes: int
    stored_bytes: int
    original: Image
    preview: Image
    full: Image
    preview_psnr: float

    @property
    def height(self) -> int:
        return self.original.shape[0]

    @property
    def width(self) -> int:
        return self.original.shape[1]

    @property
    def bits_per_pixel(self) -> float:
        """Stored bits per pixel of the original."""
        return 8 * self.stored_bytes / (self.width * self.height)

    @property
    def ratio(self) -> float:
        """How many times smaller than the original file."""
        return self.original_bytes / self.stored_bytes


@dataclass(frozen=True)
class Run:
    """What was done: the codec's setting, wall-clock seconds of each step, and what a query by tag found where."""

    codec: str
    fingerprint: str
    quality: int
    seconds: dict[str, float]
    archive: str
    query: str
    matches: Sequence[str]


@dataclass(frozen=True)
class Totals:
    """Sums over all pictures of a run."""

    images: int
    megapixels: float
    original_bytes: int
    stored_bytes: int
    bits_per_pixel: float
    ratio: float

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> Totals:
        """Raises ValueError where there are no pictures."""
        if not pictures:
            raise ValueError("no pictures")
        pixels = sum(picture.width * picture.height for picture in pictures)
        original = sum(picture.original_bytes for picture in pictures)
        stored = sum(picture.stored_bytes for picture in pictures)
        return cls(len(pictures), pixels / 1e6, original, stored, 8 * stored / pixels, original / stored)


def write_page(path: Path, run: Run, pictures: Sequence[Picture]) -> None:
    """Write the page, pictures embedded, to `path`."""
    path.write_text(render_page(run, pictures), encoding="utf-8")


def render_page(run: Run, pictures: Sequence[Picture]) -> str:
    """The page as HTML. All text is escaped; keys and tags may hold anything."""
    environment = Environment(loader=PackageLoader("demo", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters["data_uri"] = data_uri
    environment.filters["bytes"] = lambda count: (
        f"{count / 1e6:.1f}\u00a0MB" if count >= 1e6 else f"{count / 1e3:.1f}\u00a0kB"
    )
    template = environment.get_template("page.html")
    return template.render(run=run, pictures=pictures, totals=Totals.of(pictures), page_quality=PAGE_QUALITY)


def data_uri(image: Image) -> str:
    """An `(H, W, 3)` uint8 picture as a `data:` address."""
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "WEBP", quality=PAGE_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
