"""The codec: pixels and tags in, bytes out, and back. Each direction on one page.

    compress    image ─pad, tile─► g_a ─► y ─► h_a ─► z ─► symbols ─► range coder ─► bitstream
    decompress  bitstream ─► tags, y_hat ─► g_s ─► image                                              preview
                                              └─► guide latent ─► denoiser ─► autoencoder ─► image   full, reference

Networks see windows, tiles with a margin; symbols belong to cores, which partition the image (`tiling.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh import sampler
from difficmh.autoencoder import BLOCK
from difficmh.bitstream import MAX_PIXELS, Header, pack, unpack
from difficmh.config import DOWNSCALE
from difficmh.errors import BitstreamError, ImageError
from difficmh.model import CodecModel
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.sampler import rates
from difficmh.symbols import EntropyTables, decode_symbols, encode_symbols
from difficmh.tag_coder import TagPrior, decode_tags, encode_tags
from difficmh.tiling import Rectangle, Tile, pad, padded_size, plan
from difficmh.transforms import Y_BLOCK
from difficmh.vocabulary import TagScore

Image = NDArray[np.uint8]
Mode = Literal["preview", "full", "reference"]
STEPS: dict[Mode, int] = {"preview": 0, "full": 1, "reference": 50}
"""Denoising steps of each mode."""

ENCODE_MARGIN, PREVIEW_MARGIN, FULL_MARGIN = 128, 192, 320
GPU_BATCH = 8


Tagger = Callable[[Sequence[Image]], list[list[TagScore]]]


@dataclass(frozen=True)
class DecodedStream:
    """What the bytes say, before any network draws a picture: `y_hat` is `(M, H/16, W/16)` of the padded image."""

    header: Header
    tags: tuple[str, ...]
    y_hat: Tensor
    seed: int


@dataclass(frozen=True)
class CodecParts:
    """What a codec is made of. `make_tagger` is called when tags are first asked for: decoding needs no tagger."""

    name: str
    fingerprint: str
    capsule: Path
    model: CodecModel
    tables: EntropyTables
    prior: TagPrior
    make_tagger: Callable[[], Tagger]


class Codec:
    """A codec of the `lite` family, ready on one device. Made by `difficmh.load`."""

    def __init__(self, parts: CodecParts) -> None:
        self.name = parts.name
        self.fingerprint = parts.fingerprint
        self.capsule = parts.capsule
        self.model = parts.model
        self.tables = parts.tables
        self.prior = parts.prior
        self._make_tagger = parts.make_tagger
        self._tagger: Tagger | None = None
        self._tagger_lock = Lock()

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.model.g_a.log_gain.device

    @property
    def qualities(self) -> range:
        """Valid qualities, from fewest bits to most."""
        return range(1, self.model.config.qualities + 1)

    # --- compress ---------------------------------------------------------------------------------------------------

    def tag(self, images: Sequence[Image]) -> list[list[TagScore]]:
        """Tags of each `(H, W, 3)` uint8 image, sorted by name."""
        with self._tagger_lock:  # threads that compress at the same time must not all load one
            if self._tagger is None:
                self._tagger = self._make_tagger()
        return self._tagger(images)

    @torch.inference_mode()
    def compress(
        self, images: Sequence[Image], *, quality: int = 3, tags: Sequence[Sequence[str]] | None = None
    ) -> list[bytes]:
        """One bitstream per `(H, W, 3)` uint8 sRGB image, in order; sizes may differ.

        `tags` are names of the vocabulary for each image; None runs the tagger. An image's stream does not depend on
        the others of the list. Raises ValueError for a quality, tag, shape or dtype that this codec does not take, and
        ImageError for an image of more than `MAX_PIXELS` padded pixels, which no decoder would accept.
        """
        self._check(images, quality)
        if tags is None:
            tags = [[tag.name for tag in found] for found in self.tag(images)]
        if len(tags) != len(images):
            raise ValueError(f"{len(images)} images came with tags for {len(tags)}")
        streams: list[bytes] = [b""] * len(images)
        for group in self._groups([image.shape for image in images]):
            encoded = self._compress_group([images[i] for i in group], quality, [tags[i] for i in group])
            for i, stream in zip(group, encoded, strict=True):
                streams[i] = stream
        return streams

    def _compress_group(self, images: Sequence[Image], quality: int, tags: Sequence[Sequence[str]]) -> list[bytes]:
        """Images of one size together."""
        encoders = [SymbolEncoder() for _ in images]
        for encoder, names in zip(encoders, tags, strict=True):
            encode_tags(names, self.prior, encoder)
        padded = np.stack([pad(image) for image in images])
        index = torch.full((len(images),), quality - 1, device=self.device)
        height, width, _ = images[0].shape
        for tile in plan(height, width, self.model.config.tile, ENCODE_MARGIN):
            rows, columns = tile.window.slices()
            y = tile.crop(self.model.g_a(self._to_tensor(padded[:, rows, columns]), index), Y_BLOCK)
            encode_symbols(self.model.entropy, self.tables, y, self.model.h_a(y), quality - 1, encoders)
        header = Header(height, width, quality, self.fingerprint[:8])
        return [_finish(header, encoder) for encoder in encoders]

    def _check(self, images: Sequence[Image], quality: int) -> None:
        if quality not in self.qualities:
            raise ValueError(f"quality {quality} is not in {self.qualities.start}..{self.qualities.stop - 1}")
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
                raise ValueError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
            height, width, _ = image.shape
            rows, columns = padded_size(height, width)
            if rows * columns > MAX_PIXELS:
                raise ImageError(f"{height} x {width} pixels, {rows} x {columns} when padded, are too many")

    def _groups(self, shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
        """Positions to process together. On a CPU one image at a time is as fast, and batches could change results."""
        limit = GPU_BATCH if self.device.type == "cuda" else 1
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(position)
        for positions in by_shape.values():
            for start in range(0, len(positions), limit):
                yield positions[start : start + limit]

    def _to_tensor(self, images: NDArray[np.uint8]) -> Tensor:
        """`(B, H, W, 3)` uint8 to `(B, 3, H, W)` float32 in [0, 1], channels last."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float() / 255

    # --- decompress -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def decompress(self, bitstreams: Sequence[bytes], *, mode: Mode = "full", steps: int | None = None) -> list[Tensor]:
        """`(3, H, W)` float32 in [0, 1] per bitstream, on the codec's device.

        `preview` draws y_hat as it is, `full` denoises in one step, `reference` in 50; `steps` overrides the count.
        The picture is a function of bitstream, weights, mode and steps. Raises BitstreamError for a damaged stream or
        one of another model, ValueError for an unknown mode.
        """
        if mode not in STEPS:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(STEPS)}")
        steps = STEPS[mode] if steps is None or mode == "preview" else steps
        return [self._draw(self.read(bitstream), steps) for bitstream in bitstreams]

    @torch.inference_mode()
    def read(self, bitstream: bytes) -> DecodedStream:
        """Everything the bytes say: size, tags and y_hat, exact on every device. Raises BitstreamError."""
        header, payload, checksum = unpack(bitstream, fingerprint=self.fingerprint)
        if header.quality not in self.qualities:
            raise BitstreamError(f"quality {header.quality} is none of this model's {self.model.config.qualities}")
        decoder = SymbolDecoder(payload)
        tags = decode_tags(decoder, self.prior)
        height, width = padded_size(header.height, header.width)
        y_hat = torch.empty(0)
        for tile in plan(header.height, header.width, self.model.config.tile, ENCODE_MARGIN):
            z_size = (tile.core.height // DOWNSCALE, tile.core.width // DOWNSCALE)
            part = decode_symbols(self.model.entropy, self.tables, z_size, header.quality - 1, [decoder])
            if not y_hat.numel():
                # Only now: a header alone must not make this allocate.
                y_hat = torch.empty(part.shape[1], height // Y_BLOCK, width // Y_BLOCK)
            rows, columns = tile.core.slices(Y_BLOCK)
            y_hat[:, rows, columns] = part[0].cpu()
        if decoder.checksum != checksum:
            raise BitstreamError("the decoded symbols are not those that were encoded")
        return DecodedStream(header, tags, y_hat, seed=int.from_bytes(bitstream[3:7], "little"))

    def _draw(self, stream: DecodedStream, steps: int) -> Tensor:
        """The picture of a decoded stream; 0 steps is the preview."""
        header = stream.header
        image = torch.empty(3, header.height, header.width, device=self.device)
        for tile in plan(header.height, header.width, self.model.config.tile, FULL_MARGIN if steps else PREVIEW_MARGIN):
            rows, columns = tile.window.slices(Y_BLOCK)
            y_hat = stream.y_hat[None, :, rows, columns].to(self.device).contiguous(memory_format=torch.channels_last)
            quality = torch.full((1,), header.quality - 1, device=self.device)
            if steps:
                latent = self._denoise(self.model.guide(y_hat, quality), stream, tile.window, steps)
                part = self.model.draw(latent)
            else:
                part = self.model.preview(y_hat, quality)
            _paste(image, tile, tile.crop(part.clamp(0, 1))[0])
        return image

    def _denoise(self, guide: Tensor, stream: DecodedStream, window: Rectangle, steps: int) -> Tensor:
        """The denoised latent of a window. Noise belongs to places of the image, so windows agree where they meet."""
        tags = torch.zeros(1, len(self.prior.names), device=self.device)
        tags[0, [self.prior.positions[name] for name in stream.tags]] = 1
        rows, columns = window.slices(BLOCK)
        across = padded_size(stream.header.height, stream.header.width)[1] // BLOCK
        noise = sampler.seeded_noise(stream.seed, guide.shape[1], rows, columns, across).to(self.device)

        def estimate(x_t: Tensor, timestep: int) -> Tensor:
            timesteps = torch.full((1,), timestep, device=self.device)
            signal, spread = rates(timesteps)
            return signal * x_t + spread**2 * guide - spread * self.model.denoiser(x_t, timesteps, tags, guide)

        return sampler.sample(estimate, noise[None], steps)


def _finish(header: Header, encoder: SymbolEncoder) -> bytes:
    payload = encoder.finish()
    return pack(header, payload, encoder.checksum)


def _paste(image: Tensor, tile: Tile, core: Tensor) -> None:
    """Copies a tile's core into the image, whose right and bottom edges may cut it."""
    rows, columns = tile.core.slices()
    target = image[:, rows, columns]
    target.copy_(core[:, : target.shape[1], : target.shape[2]])
