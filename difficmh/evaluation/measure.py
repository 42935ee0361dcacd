"""The pass: a picture through each codec at each quality, decoded once and graded by all graders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from difficmh.evaluation.contestants import Contestant, load_contestants
from difficmh.evaluation.crops import Window, detailed_window, encoded_crop
from difficmh.evaluation.fidelity import Fidelity, Ssimulacra2
from difficmh.evaluation.graders import Evidence, Grader, Image, Picture
from difficmh.evaluation.statistics import Metric
from difficmh.metrics import bits_per_pixel

MEASURES = """ssimulacra2, frechet, lpips, dists, classification, detection:FILE.onnx, tags[:CAPSULE], \
analyzer:imagenet|onnx:FILE|python:MODULE:FACTORY"""
"""What can be asked for beside PSNR and MS-SSIM."""

WARM_UP_SIDE = 64
"""Pixels a side of the grey picture that each codec gets before any whose seconds are counted."""


@dataclass(frozen=True)
class Plan:
    """What is compared by what measures.

    `crop_rate` is the bits per pixel about which crops are kept for a page, `detect_in` a pattern as of a shell for the
    names of pictures in which objects are detected.
    """

    codecs: tuple[str, ...]
    measures: tuple[str, ...] = ()
    device: str = "cpu"
    crop_rate: float = 0.1
    detect_in: str = "*"

    def on_the_cpu(self) -> Plan:
        """The same, for a process that only says what workers measure and may lack their GPU."""
        return replace(self, device="cpu")


@dataclass(frozen=True)
class Measurement:
    """One picture, one codec, one quality. Crops are small WebP files, kept near `crop_rate`.

    Seconds are of wall clock, for the whole picture; what a codec loads at its first use is no part of them.
    """

    codec: str
    quality: int
    image: str
    height: int
    width: int
    stored_bytes: int
    bits_per_pixel: float
    compress_seconds: float
    decompress_seconds: float
    evidence: Evidence = field(default_factory=dict)
    crop: bytes | None = None
    original_crop: bytes | None = None


@dataclass(frozen=True)
class Examined:
    """An original with all that graders need to know of it, so that it is found out once."""

    picture: Picture
    references: Sequence[Any]
    window: Window
    crop: bytes


class Evaluator:
    """Codecs and graders of a plan, loaded. Raises ValueError for whatever in the plan makes no sense or is missing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.contestants = load_contestants(plan.codecs, plan.device)
        self.graders: list[Grader] = [Fidelity(), *(load_grader(text, plan) for text in plan.measures)]
        if len({metric.name for metric in self.metrics}) < len(self.metrics):
            raise ValueError("a measure is there more than once")
        self._warm: set[str] = set()

    @property
    def metrics(self) -> list[Metric]:
        return [metric for grader in self.graders for metric in grader.metrics]

    @property
    def names(self) -> list[str]:
        """The codecs' names, in the order of the plan."""
        return [contestant.name for contestant in self.contestants]

    @property
    def points(self) -> int:
        """Decoded versions of each picture."""
        return sum(len(contestant.qualities) for contestant in self.contestants)

    def examine(self, picture: Picture) -> Examined:
        """What each grader needs to know of an original, and the window of it that is shown."""
        references = [grader.reference(picture) for grader in self.graders]
        window = detailed_window(picture.pixels)
        return Examined(picture, references, window, encoded_crop(picture.pixels, window))

    def measure(self, examined: Examined, contestant: Contestant) -> Iterator[Measurement]:
        """The picture through one codec at each of its qualities.

        Raises ValueError, with the names of both, where the codec refuses the picture.
        """
        self._warm_up(contestant)
        for quality in contestant.qualities:
            yield self._measure(examined, contestant, quality)

    def _warm_up(self, contestant: Contestant) -> None:
        """Once for each codec: what it loads at its first use, such as a tagger, is no part of any picture's time."""
        if contestant.name not in self._warm:
            self._warm.add(contestant.name)
            grey = np.full((WARM_UP_SIDE, WARM_UP_SIDE, 3), 128, np.uint8)
            contestant.decompress(contestant.compress(grey, contestant.qualities[0]))

    def _measure(self, examined: Examined, contestant: Contestant, quality: int) -> Measurement:
        picture = examined.picture
        height, width, _ = picture.pixels.shape
        try:
            start = time.perf_counter()
            data = contestant.compress(picture.pixels, quality)
            middle = time.perf_counter()
            decoded = contestant.decompress(data)
            end = time.perf_counter()
        except (ValueError, OSError) as error:
            raise ValueError(f"{picture.name} by {contestant.name} at quality {quality}: {error}") from error
        rate = bits_per_pixel(len(data), height, width)
        is_shown = 0.5 <= rate / self.plan.crop_rate <= 2
        return Measurement(
            codec=contestant.name,
            quality=quality,
            image=picture.name,
            height=height,
            width=width,
            stored_bytes=len(data),
            bits_per_pixel=rate,
            compress_seconds=middle - start,
            decompress_seconds=end - middle,
            evidence=self._graded(examined, decoded),
            crop=encoded_crop(decoded, examined.window) if is_shown else None,
            original_crop=examined.crop if is_shown else None,
        )

    def _graded(self, examined: Examined, decoded: Image) -> Evidence:
        evidence: dict[str, Any] = {}
        for grader, reference in zip(self.graders, examined.references, strict=True):
            evidence.update(grader.grade(reference, decoded))
        return evidence


def load_grader(text: str, plan: Plan) -> Grader:
    """A grader from its name (`MEASURES`). Raises ValueError for an unknown one, or one whose parts are missing."""
    kind, _, rest = text.partition(":")
    if text == "ssimulacra2":
        return Ssimulacra2()
    if text in ("lpips", "dists"):
        from difficmh.evaluation.perceptual import Perceptual

        return Perceptual(text, plan.device)
    if text == "frechet":
        from difficmh.evaluation.frechet import Patches

        return Patches(plan.device)
    from difficmh.analyzers.factory import parse_analyzer
    from difficmh.evaluation import tasks

    if kind == "classification" and not rest:
        return tasks.Classification(plan.device)
    if kind == "detection" and rest:
        return tasks.ObjectDetection(Path(rest), plan.detect_in, plan.device)
    if kind == "tags":
        return tasks.Tags(rest or "lite", plan.device)
    if kind == "analyzer" and rest:
        return tasks.AnyAnalyzer(parse_analyzer(rest), plan.device)
    raise ValueError(f"no measure {text!r}; there are {MEASURES}")
