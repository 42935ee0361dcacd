"""Photographs that installed packages carry, and the WebDataset shards made of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

SKIMAGE = "skimage.data"
SKLEARN = "sklearn.datasets.images"
SHARD = "photographs-{:06d}.tar"
FIRST_SHARD = SHARD.format(0)


@dataclass(frozen=True)
class Photograph:
    """One file of a package. Photographs with the same `key` are one sample, told apart by `view` (`left`, `right`)."""

    key: str
    package: str
    file: str
    credit: str
    view: str = ""

    @property
    def member(self) -> str:
        """Name in the shard: `chelsea.png`, `motorcycle.left.png`."""
        return ".".join(part for part in (self.key, self.view, self.file.rsplit(".", 1)[1]) if part)

    @property
    def archive_key(self) -> str:
        """Key of its row in an archive: `chelsea`, `motorcycle.left`."""
        return self.member.rsplit(".", 1)[0]

    def read(self) -> bytes:
        """The file as the package carries it."""
        return files(self.package).joinpath(self.file).read_bytes()


_MIDDLEBURY = "Middlebury stereo data 2014 (Scharstein et al.)"

PHOTOGRAPHS = (
    Photograph("astronaut", SKIMAGE, "astronaut.png", "NASA, public domain"),
    Photograph("camera", SKIMAGE, "camera.png", "Lav Varshney, CC0"),
    Photograph("chelsea", SKIMAGE, "chelsea.png", "Stefan van der Walt, CC0"),
    Photograph("china", SKLEARN, "china.jpg", "danielbuechele, CC BY 2.0"),
    Photograph("coffee", SKIMAGE, "coffee.png", "Rachel Michetti, CC0"),
    Photograph("flower", SKLEARN, "flower.jpg", "vultilion, CC BY 2.0"),
    Photograph("gravel", SKIMAGE, "gravel.png", "CC0 Textures, CC0"),
    Photograph("hubble", SKIMAGE, "hubble_deep_field.jpg", "NASA, public domain"),
    Photograph("motorcycle", SKIMAGE, "motorcycle_left.png", _MIDDLEBURY, view="left"),
    Photograph("motorcycle", SKIMAGE, "motorcycle_right.png", _MIDDLEBURY, view="right"),
    Photograph("rocket", SKIMAGE, "rocket.jpg", "SpaceX, public domain"),
)


def write_shards(photographs: Sequence[Photograph], folder: Path, samples_per_shard: int = 5) -> list[Path]:
    """Pack photographs into `photographs-000000.tar`, … as WebDataset samples with their credit as JSON."""
    samples: dict[str, list[Photograph]] = {}
    for photograph in photographs:
        samples.setdefault(photograph.key, []).append(photograph)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    groups = list(samples.values())
    for number, start in enumerate(range(0, len(groups), samples_per_shard)):
        paths.append(folder / SHARD.format(number))
        with tarfile.open(paths[-1], "w") as tar:
            for sample in groups[start : start + samples_per_shard]:
                _add_sample(tar, sample)
    return paths


def _add_sample(tar: tarfile.TarFile, sample: Sequence[Photograph]) -> None:
    for photograph in sample:
        _add_member(tar, photograph.member, photograph.read())
    described = {key: value for key, value in asdict(sample[0]).items() if key in ("package", "credit")}
    _add_member(tar, f"{sample[0].key}.json", json.dumps(described).encode())


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Without times or owners, so that the same photographs give the same shard."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
