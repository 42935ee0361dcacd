"""Measures encoded pictures, one codec at a time: the same in this process and in the workers of a cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from difficmh.errors import ImageError
from difficmh.evaluation.graders import Picture, Truth
from difficmh.evaluation.measure import Evaluator, Examined, Measurement, Plan
from difficmh.images import decode_image

QUIET_SECONDS = 20.0
"""Time between two lines of progress where they go to a file."""


@dataclass(frozen=True)
class EncodedPicture:
    """A picture as a file, and what is marked in it."""

    name: str
    data: bytes
    truth: Truth | None = None


class Worker:
    """Loads what the plan names, and measures. It keeps one decoded picture at a time, the last.

    `folder` is for a worker that has a process to itself: the plan's relative paths are those of that folder, in which
    the job was started, where this machine has it.
    """

    def __init__(self, plan: Plan, evaluator: Evaluator | None = None, folder: str | None = None) -> None:
        if folder is not None and os.path.isdir(folder):
            os.chdir(folder)
        self._evaluator = evaluator or Evaluator(plan)
        self._examined: Examined | None = None

    def __call__(self, picture: EncodedPicture, codec: int) -> list[Measurement]:
        """The picture through the codec of this position in the plan, at each quality.

        Raises ImageError, with the picture's name, for a file that is no picture.
        """
        return list(self._evaluator.measure(self._examine(picture), self._evaluator.contestants[codec]))

    def _examine(self, picture: EncodedPicture) -> Examined:
        if self._examined is None or self._examined.picture.name != picture.name:
            try:
                pixels = decode_image(picture.data)
            except ImageError as error:
                raise ImageError(f"{picture.name}: {error}") from error
            self._examined = self._evaluator.examine(Picture(picture.name, pixels, picture.truth))
        return self._examined


def measured_here(pictures: Iterable[EncodedPicture], plan: Plan, evaluator: Evaluator) -> Iterator[list[Measurement]]:
    """Every picture through every codec, in this process, one picture after the other."""
    worker = Worker(plan, evaluator)
    for picture in pictures:
        for codec in range(len(plan.codecs)):
            yield worker(picture, codec)


def watched(results: Iterable[list[Measurement]], total: int) -> Iterator[Measurement]:
    """The measurements one by one, `total` in all, with a line of progress on standard error."""
    start = shown = time.monotonic()
    done = 0
    for result in results:
        yield from result
        done += len(result)
        now = time.monotonic()
        if sys.stderr.isatty() or now - shown > QUIET_SECONDS or done == total:
            shown = now
            _show(done, total, now - start, result[-1])
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _show(done: int, total: int, seconds: float, last: Measurement) -> None:
    left = seconds / done * (total - done)
    text = f"{done} of {total} decoded pictures measured, {left / 60:.1f} min left: {last.image} by {last.codec}"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:110]}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def in_order(measurements: Iterable[Measurement], images: Sequence[str], codecs: Sequence[str]) -> list[Measurement]:
    """Sorted by codec and picture, as they are listed: workers finish in any order, reports are to be the same."""
    codec_place = {name: place for place, name in enumerate(codecs)}
    image_place = {name: place for place, name in enumerate(images)}
    return sorted(measurements, key=lambda one: (codec_place[one.codec], image_place[one.image]))
