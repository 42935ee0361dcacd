"""The pictures of an evaluation: those that can be read, each with what is marked in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from difficmh.errors import ImageError
from difficmh.evaluation.labels import classes_by_source, truth
from difficmh.evaluation.worker import EncodedPicture
from difficmh.images import decode_image
from difficmh.unreadable import Unreadable, left_out


class PictureFile(Protocol):
    """A picture as a file, under a name of its own, and the JSON object beside it, or None.

    `wrong` says why there are no bytes; it is empty where there are.
    """

    @property
    def name(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def label(self) -> Mapping[str, Any] | None: ...

    @property
    def wrong(self) -> str: ...


File = TypeVar("File", bound=PictureFile)


@dataclass(frozen=True)
class Pictures:
    """What is measured, by name and one after the other, and what is left out."""

    names: list[str]
    encoded: Iterator[EncodedPicture]
    unreadable: Unreadable


def read_pictures(files: Callable[[], Iterable[PictureFile]], limit: int | None = None) -> Pictures:
    """The first pictures that can be read. Each is decoded here already, so that the others are known before measuring.

    `files` is called twice, for names and for pictures, and gives the same files each time. Raises ImageError where
    none can be read.
    """
    unreadable: list[tuple[str, str]] = []
    labels = {file.name: file.label for file in islice(_readable(files(), unreadable), limit)}
    if not labels:
        raise ImageError(f"no picture to measure: {left_out(unreadable)}")
    classes = classes_by_source(labels)
    again = islice((file for file in files() if file.name in labels), len(labels))
    encoded = (EncodedPicture(one.name, one.data, truth(one.label, classes)) for one in again)
    return Pictures(list(labels), encoded, unreadable)


def _readable(files: Iterable[File], unreadable: list[tuple[str, str]]) -> Iterator[File]:
    for file in files:
        try:
            if file.wrong:
                raise ImageError(file.wrong)
            decode_image(file.data)
        except ImageError as error:
            unreadable.append((file.name, str(error)))
        else:
            yield file
