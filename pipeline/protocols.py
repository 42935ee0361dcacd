"""What the pipeline asks of a codec and an analyzer.

The pipeline knows no networks: jobs hand it picklable factories, and each actor calls its factory once, on its device.
Images are `(H, W, 3)` uint8 sRGB arrays on the way in and `(3, H, W)` float32 tensors in [0, 1] on the way out; lists
may mix sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image: TypeAlias = NDArray[np.uint8]
Mode = Literal["preview", "full", "reference"]


class TagScore(Protocol):
    """A tag of an image and the tagger's confidence in it, in [0, 1]."""

    @property
    def name(self) -> str: ...
    @property
    def score(self) -> float: ...


class Decoder(Protocol):
    """The half of a codec that reads, ready to use on one device.

    `name` is the preset (`"lite"`), `fingerprint` 16 hexadecimal digits of a hash over configuration and weights.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...

    def size(self, bitstream: bytes) -> tuple[int, int]:
        """Height and width of the picture, without decoding it; `decompress` gives that size. Raises as it does."""
        ...

    def decompress(
        self, bitstreams: Sequence[bytes], *, mode: Mode = "full", steps: int | None = None, sampler: str | None = None
    ) -> list[Tensor]:
        """`(3, H, W)` float32 in [0, 1] per bitstream, on the codec's device; None is the mode's own choice.

        Raises a ValueError subclass for a damaged bitstream or one made with other weights.
        """
        ...


class Codec(Decoder, Protocol):
    """A learned image codec, ready to use on one device."""

    def tag(self, images: Sequence[Image]) -> Sequence[Sequence[TagScore]]:
        """Tags of each image, sorted by name, without duplicates; an image may have none."""
        ...

    def compress(
        self, images: Sequence[Image], *, quality: int, tags: Sequence[Sequence[str]] | None = None, effort: int = 0
    ) -> list[bytes]:
        """One self-contained bitstream per image. `tags=None` runs the tagger; `effort` spends time to save bits.

        Raises ValueError for a quality, tag or effort that the codec does not take.
        """
        ...


class Analyzer(Protocol):
    """A model that answers a question about images, one dataclass instance per image.

    The fields of `row_type`, a dataclass of str, int, float, bool and lists of them, are the result table's columns.
    """

    @property
    def name(self) -> str: ...
    @property
    def row_type(self) -> type: ...

    def __call__(self, images: Sequence[Tensor]) -> list[Any]:
        """One `row_type` per image, in order. Images are `(3, H, W)` float in [0, 1] and may differ in size."""
        ...


CodecFactory: TypeAlias = Callable[[str], Codec]
"""`factory(device)` with device `"cpu"` or `"cuda"`; picklable, called once in the actor."""

DecoderFactory: TypeAlias = Callable[[str, str], Decoder]
"""`factory(capsule directory, device)`: the codec of an archive, made from the model that travels with it.

Raises ValueError where a file is not what the model's manifest says: copies are kept, and damage shows here.
"""

AnalyzerFactory: TypeAlias = Callable[[str], Analyzer]
"""`factory(device)`; picklable, called once in the actor."""

ImageDecoder: TypeAlias = Callable[[bytes], Image]
"""Bytes of any image file to upright sRGB; raises ValueError where they are none."""

ImageEncoder: TypeAlias = Callable[[Image, str, Mapping[str, str]], bytes]
"""`encoder(image, format, description fields)`: the bytes of an image file."""
