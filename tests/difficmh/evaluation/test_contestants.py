"""Codecs by their descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import difficmh
from difficmh.baselines import BASELINES
from difficmh.errors import CapsuleError
from difficmh.evaluation.contestants import load_contestant, load_contestants
from tests.difficmh.test_metrics import photo
from tests.fakes import FakeCodec


class Fake(FakeCodec):
    """Decodes to black where it is asked for steps; says in one byte how many tags it was given, 255 for None."""

    qualities = range(1, 7)

    def compress(
        self,
        images: Sequence[np.ndarray],
        *,
        quality: int,
        tags: Sequence[Sequence[str]] | None = None,
        effort: int = 0,
    ) -> list[bytes]:
        (stream,) = super().compress(images, quality=quality)
        self.effort = effort
        return [bytes([255 if tags is None else len(tags[0])]) + stream]

    def decompress(
        self, bitstreams: Sequence[bytes], *, mode: str = "full", steps: int | None = None
    ) -> list[torch.Tensor]:
        (picture,) = super().decompress([stream[1:] for stream in bitstreams])
        return [picture * 0 if steps else picture]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    codec = Fake(tmp_path)
    monkeypatch.setattr(difficmh, "load", lambda capsule, device: codec)
    return codec


@pytest.mark.parametrize(
    ("text", "qualities"), [("webp@5", (5,)), ("jpeg@10,30-32", (10, 30, 31, 32)), ("avif", (0, 10, 25, 42, 60))]
)
def test_baselines_by_description(text: str, qualities: tuple[int, ...]) -> None:
    contestant = load_contestant(text)
    assert contestant.name in BASELINES
    assert tuple(contestant.qualities) == qualities


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpeg2000", "neither difficmh:CAPSULE"),
        ("webp@best", "no list of qualities"),
        ("webp@1-", "no list of qualities"),
        ("jpeg@50-10", "no list of qualities"),
        ("difficmh:lite@6-1", "no list of qualities"),
        ("webp@101", "0 to 100"),
        ("lite", "neither difficmh:CAPSULE"),
        ("difficmh:lite@x:full", "no list of qualities"),
        ("difficmh:lite@5-7", "qualities 1 to 6, not 7"),
        ("difficmh:lite:full,steps=0", "'steps=0' is none of steps=1 to 1000"),
        ("difficmh:lite:full,steps=1001", "'steps=1001' is none of"),
        ("difficmh:lite:full,steps=4,steps=5", "'steps=5' is none of"),
        ("difficmh:lite:preview,effort=0", "'effort=0' is none of"),
        ("difficmh:lite:full,tags=on", "'tags=on' is none of"),
        ("difficmh:lite:full,guided", "'guided' is none of"),
        ("difficmh:lite:full,name=webp", "'name=webp' is none of"),
        ("difficmh:lite:preview,steps=2", "preview does not denoise"),
        ("compressai:mbt2018", "compressai:ARCHITECTURE=FILE"),
        ("compressai:vgg=file", "bmshj2018-factorized"),
    ],
)
def test_descriptions_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_contestant(text)


def test_a_capsule_that_is_not_there() -> None:
    with pytest.raises(CapsuleError, match="nowhere"):
        load_contestant("difficmh:nowhere")


def test_a_codec_is_listed_once() -> None:
    with pytest.raises(ValueError, match="webp is there more than once"):
        load_contestants(["webp@5", "jpeg", "webp@10"])


@pytest.mark.usefixtures("fake")
def test_capsules_of_one_name_need_another() -> None:
    with pytest.raises(ValueError, match="capsule full is there more than once"):
        load_contestants(["difficmh:a/capsule", "difficmh:b/capsule:full"])
    names = [one.name for one in load_contestants(["difficmh:a/capsule", "difficmh:b/capsule:full,name=b in full"])]
    assert names == ["capsule full", "b in full"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("text", "name", "qualities"),
    [
        ("difficmh:lite@1-3:preview", "lite preview", (1, 2, 3)),
        ("difficmh:lite", "lite full", (1, 2, 3, 4, 5, 6)),
        ("difficmh:some:where/mine@2", "mine full", (2,)),
        ("difficmh:lite@1,3:full,tags=off", "lite full, no tags", (1, 3)),
        ("difficmh:lite@2:preview,effort=12", "lite preview, effort 12", (2,)),
        ("difficmh:lite@1:reference,tags=off,steps=4", "lite reference, 4 steps, no tags", (1,)),
        ("difficmh:lite@1:full,steps=1", "lite full, 1 step", (1,)),
    ],
)
def test_learned_codecs_by_description(text: str, name: str, qualities: tuple[int, ...]) -> None:
    contestant = load_contestant(text)
    assert (contestant.name, tuple(contestant.qualities)) == (name, qualities)
    image = photo(21, 30)
    decoded = contestant.decompress(contestant.compress(image, qualities[0]))
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8


@pytest.mark.usefixtures("fake")
def test_a_variant_reaches_the_codec() -> None:
    plain, several, untagged = load_contestants(
        ["difficmh:lite", "difficmh:lite:full,steps=4", "difficmh:lite:full,tags=off"]
    )
    image = photo(16, 16)
    assert [one.compress(image, 1)[0] for one in (plain, several, untagged)] == [255, 255, 0]
    stream = plain.compress(image, 1)
    assert [one.decompress(stream).any() for one in (plain, several, untagged)] == [True, False, True]


def test_effort_reaches_the_codec(fake: Fake) -> None:
    load_contestant("difficmh:lite:preview,effort=3").compress(photo(16, 16), 1)
    assert fake.effort == 3


def test_decoded_tensors_are_rounded_to_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        qualities = range(1, 7)

        def decompress(self, streams: list[bytes], mode: str, steps: int | None) -> list[torch.Tensor]:
            return [torch.tensor([-0.1, 0.4999 / 255, 1.2]).reshape(3, 1, 1)]

    monkeypatch.setattr(difficmh, "load", lambda capsule, device: Constant())
    assert load_contestant("difficmh:lite").decompress(b"").ravel().tolist() == [0, 0, 255]
