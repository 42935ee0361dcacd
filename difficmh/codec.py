"""The codec: pixels and tags in, bytes out, and back. Each direction on one page.

    compress    image ─pad, tile─► analyze ─► y, z ─► symbols ─► range coder ─► bitstream
    decompress  bitstream ─► tags, y_hat, z ─► preview ─► image                                           preview
                                          └─► guide latent ─► denoise ─► latent ─► draw ─► image   full, reference

The networks are those of one family, behind the seam of `networks.py`. They see windows, tiles with a margin; symbols
belong to cores, which partition the image (`tiling.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.bitstream import FINGERPRINT_DIGITS, MAX_PADDED_PIXELS, Bytes, Frame, Header, check_guidance, pack, unpack
from difficmh.errors import BitstreamError, ImageError
from difficmh.groups import in_groups
from difficmh.limits import Mode, whole_number
from difficmh.networks import Conditions, Networks, Sampling, choose_sampling
from difficmh.noise import NoiseField
from difficmh.range_coder import SymbolDecoder, SymbolEncoder
from difficmh.surroundings import in_plain_precision
from difficmh.symbols import EntropyTables, Latents, decode_latents, encode_latents
from difficmh.tag_coder import TagPrior, check_tags, decode_tags, encode_tags
from difficmh.tiling import LATENT_STRIDE, Z_STRIDE, Rectangle, Tile, cores, pad, padded_size, tiles
from difficmh.vocabulary import TagScore

Image = NDArray[np.uint8]

ENCODE_MARGIN, PREVIEW_MARGIN, FULL_MARGIN = 128, 192, 320
Tagger = Callable[[Sequence[Image]], list[list[TagScore]]]


@dataclass(frozen=True)
class DecodedStream:
    """What the bytes say, before any network draws a picture.

    `latents` are those of the padded image, on the CPU: y_hat `(M, H/16, W/16)` and symbols of z `(N, H/64, W/64)`.
    """

    header: Header
    tags: tuple[str, ...]
    latents: Latents
    seed: int


@dataclass(frozen=True, eq=False, repr=False)
class Codec:
    """A codec, ready on one device. Made by `difficmh.load`.

    `tagger` is called whenever tags are asked for and returns the same at each call; decoding needs no tagger.
    """

    name: str
    fingerprint: str
    capsule: Path
    networks: Networks
    tables: EntropyTables
    prior: TagPrior
    tagger: Callable[[], Tagger]

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.networks.device

    @property
    def qualities(self) -> range:
        """Valid qualities, from fewest bits to most."""
        return self.networks.qualities

    # --- compress ---------------------------------------------------------------------------------------------------

    def tag(self, images: Sequence[Image]) -> list[list[TagScore]]:
        """Tags of each `(H, W, 3)` uint8 image, sorted by name."""
        return self.tagger()(images)

    @in_plain_precision
    def compress(
        self,
        images: Sequence[Image],
        *,
        quality: int | None = None,
        tags: Sequence[Sequence[str]] | None = None,
        guidance: float | None = None,
        effort: int = 0,
    ) -> list[bytes]:
        """One bitstream per `(H, W, 3)` uint8 sRGB image, in order; sizes may differ.

        `quality` is one of `qualities`, None the model's own choice. `tags` are names of the vocabulary for each image;
        None runs the tagger. `guidance`, from 0 to 100 with at most two decimals, is the scale of classifier-free
        guidance that decoders shall use; None is the model's. `effort` is a number of gradient steps towards fewer bits
        and less distortion (`refinement.py`), each several times the work of encoding without. An image's stream does
        not depend on the others of the list, but for a rounding here and there on devices whose kernels follow the
        batch.

        Raises ValueError for a quality, tag, guidance, effort, shape or dtype that this codec does not take, and
        ImageError for an image of more than `MAX_PADDED_PIXELS` padded pixels, which no decoder would accept.
        """
        quality = self.networks.default_quality if quality is None else whole_number(quality, "quality")
        effort = whole_number(effort, "effort")
        self._check(images, quality, effort)
        guidance = self._stored_guidance(guidance)
        if tags is None:
            tags = [[tag.name for tag in found] for found in self.tag(images)]
        self._check_tags(images, tags)

        def work(group: list[int]) -> list[bytes]:
            return self._compress_group([images[i] for i in group], [tags[i] for i in group], quality, guidance, effort)

        return in_groups([(image.shape[0], image.shape[1]) for image in images], self.device, work)

    def _compress_group(
        self,
        images: Sequence[Image],
        tags: Sequence[Sequence[str]],
        quality: int,
        guidance: float | None,
        effort: int,
    ) -> list[bytes]:
        """Images of one size together; `guidance` as it is stored."""
        encoders = [SymbolEncoder() for _ in images]
        for encoder, names in zip(encoders, tags, strict=True):
            encode_tags(names, self.prior, encoder)
        padded = np.stack([pad(image) for image in images])
        quality_index = torch.full((len(images),), quality - 1, device=self.device)
        height, width, _ = images[0].shape
        for tile in tiles(height, width, self.networks.tile, ENCODE_MARGIN):
            rows, columns = tile.window.slices()
            window = self._to_tensor(padded[:, rows, columns])
            y, z = self.networks.analyze(window, tile, quality_index, effort)
            encode_latents(self.networks.entropy, self.tables, y, z, quality - 1, encoders)
        header = Header(height, width, quality, self.fingerprint[:FINGERPRINT_DIGITS], guidance)
        return [_finish(header, encoder) for encoder in encoders]

    def _stored_guidance(self, guidance: float | None) -> float | None:
        """What a stream says of guidance: nothing where it is the model's own. Raises ValueError for no such scale."""
        if guidance is None:
            return None
        if self.networks.guidance is None:
            raise ValueError(f"the model {self.name} has no guidance")
        check_guidance(guidance)
        return None if guidance == self.networks.guidance else guidance

    def _check(self, images: Sequence[Image], quality: int, effort: int) -> None:
        if effort and not self.networks.max_effort:
            raise ValueError(f"the model {self.name} takes no effort")
        if not 0 <= effort <= self.networks.max_effort:
            raise ValueError(f"effort {effort} is not in 0..{self.networks.max_effort}, what {self.name} takes")
        if quality not in self.qualities:
            raise ValueError(f"quality {quality} is not in {self.qualities.start}..{self.qualities.stop - 1}")
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
                raise ValueError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
            height, width, _ = image.shape
            rows, columns = padded_size(height, width)
            if rows * columns > MAX_PADDED_PIXELS:
                raise ImageError(f"{height} x {width} pixels, {rows} x {columns} when padded, are too many")

    def _check_tags(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> None:
        if len(tags) != len(images):
            raise ValueError(f"{len(images)} images came with tags for {len(tags)}")
        for names in tags:
            check_tags(names, self.prior)

    def _to_tensor(self, images: NDArray[np.uint8]) -> Tensor:
        """`(B, H, W, 3)` uint8 to `(B, 3, H, W)` float32 in [0, 1], channels last."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float() / 255

    # --- decompress -------------------------------------------------------------------------------------------------

    def decompress(
        self, bitstreams: Sequence[Bytes], *, mode: Mode = "full", steps: int | None = None, sampler: str | None = None
    ) -> list[Tensor]:
        """`(3, H, W)` float32 in [0, 1] per bitstream, on the codec's device.

        `preview` draws without denoising, `full` denoises in few steps, `reference` as the method's authors do (both
        `networks.sampling`); `steps` and `sampler` override either. The picture is a function of bitstream, weights,
        mode, steps and sampler. Raises BitstreamError for a damaged stream or one of another model, ValueError for a
        mode, sampler or number of steps that there is not, and for `preview` with either.
        """
        choose_sampling(self.networks, mode, steps, sampler)  # refuses what makes no sense before there is work to do
        return self.draw(self.read_all(bitstreams), mode=mode, steps=steps, sampler=sampler)

    def size(self, bitstream: Bytes) -> tuple[int, int]:
        """Height and width of the picture, of the stream's frame alone. Raises BitstreamError as `read` does of it."""
        header = self._unpack(bitstream).header
        return header.height, header.width

    def read(self, bitstream: Bytes) -> DecodedStream:
        """Everything the bytes say: size, tags and latents, exact on every device. Raises BitstreamError."""
        (stream,) = self.read_all([bitstream])
        return stream

    @in_plain_precision
    def read_all(self, bitstreams: Sequence[Bytes]) -> list[DecodedStream]:
        """What `read` says of each. Raises BitstreamError where one of them is damaged or of another model."""
        frames = [self._unpack(bitstream) for bitstream in bitstreams]
        kinds = [(frame.header.height, frame.header.width, frame.header.quality) for frame in frames]
        return in_groups(kinds, self.device, lambda group: self._read_group([frames[i] for i in group]))

    def _unpack(self, bitstream: Bytes) -> Frame:
        frame = unpack(bitstream, fingerprint=self.fingerprint)
        if frame.header.quality not in self.qualities:
            raise BitstreamError(f"quality {frame.header.quality} is none of this model's {len(self.qualities)}")
        if frame.header.guidance is not None and self.networks.guidance is None:
            raise BitstreamError("made for guidance, which this model does not have")
        return frame

    def _read_group(self, frames: Sequence[Frame]) -> list[DecodedStream]:
        """Streams of one size and quality together."""
        decoders = [SymbolDecoder(frame.payload) for frame in frames]
        tags = [decode_tags(decoder, self.prior) for decoder in decoders]
        latents = self._decode_latents(frames[0].header, decoders).each()
        if any(decoder.checksum != frame.symbol_checksum for decoder, frame in zip(decoders, frames, strict=True)):
            raise BitstreamError("the decoded symbols are not those that were encoded")
        return [
            DecodedStream(frame.header, names, one, frame.seed)
            for frame, names, one in zip(frames, tags, latents, strict=True)
        ]

    def _decode_latents(self, header: Header, decoders: Sequence[SymbolDecoder]) -> Latents:
        """The latents of whole padded images, on the CPU."""
        size = padded_size(header.height, header.width)
        whole: Latents | None = None
        for core in cores(header.height, header.width, self.networks.tile):
            z_size = (core.height // Z_STRIDE, core.width // Z_STRIDE)
            part = decode_latents(self.networks.entropy, self.tables, z_size, header.quality - 1, decoders)
            # Only now: a header alone must not make this allocate.
            whole = whole or Latents.empty(self.networks.entropy, len(decoders), *size)
            whole.crop(core).fill(part)
        assert whole is not None  # a picture has at least one tile
        return whole

    @in_plain_precision
    def draw(
        self,
        streams: Sequence[DecodedStream],
        *,
        mode: Mode = "full",
        steps: int | None = None,
        sampler: str | None = None,
    ) -> list[Tensor]:
        """The pictures of streams that were read; arguments and result as for `decompress`."""
        sampling = choose_sampling(self.networks, mode, steps, sampler)
        kinds = [(stream.header.height, stream.header.width, stream.header.guidance) for stream in streams]
        return in_groups(kinds, self.device, lambda group: [*self._draw_group([streams[i] for i in group], sampling)])

    def _draw_group(self, streams: Sequence[DecodedStream], sampling: Sampling | None) -> Tensor:
        """`(B, 3, H, W)` of streams of one size and guidance."""
        header = streams[0].header
        images = torch.empty(len(streams), 3, header.height, header.width, dtype=torch.float32, device=self.device)
        quality_index = torch.tensor([stream.header.quality - 1 for stream in streams], device=self.device)
        for tile in tiles(header.height, header.width, self.networks.tile, FULL_MARGIN if sampling else PREVIEW_MARGIN):
            latents = self._latents(streams, tile.window)
            if sampling:
                latent = self._denoise(self.networks.guide(latents, quality_index), streams, tile.window, sampling)
                part = self.networks.draw(latent)
            else:
                part = self.networks.preview(latents, quality_index)
            _paste(images, tile, tile.crop(part.clamp(0, 1)))
        return images

    def _latents(self, streams: Sequence[DecodedStream], window: Rectangle) -> Latents:
        """What the streams say of a window, as a batch on the networks' device."""
        parts = [stream.latents.crop(window) for stream in streams]
        z_symbols, y_hat = torch.stack([part.z_symbols for part in parts]), torch.stack([part.y_hat for part in parts])
        return Latents(z_symbols.to(self.device), y_hat.to(self.device))

    def _denoise(
        self, guide: Tensor, streams: Sequence[DecodedStream], window: Rectangle, sampling: Sampling
    ) -> Tensor:
        """The denoised latent of a window. Noise belongs to places of the image, so windows agree where they meet."""
        header = streams[0].header
        rows, columns = window.slices(LATENT_STRIDE)
        across = padded_size(header.height, header.width)[1] // LATENT_STRIDE
        noise = NoiseField([stream.seed for stream in streams], guide.shape[1], rows, columns, across, self.device)
        guidance = self.networks.guidance if header.guidance is None else header.guidance
        conditions = Conditions([stream.tags for stream in streams], sampling, guidance)
        return self.networks.denoise(guide, noise, conditions)


def _finish(header: Header, encoder: SymbolEncoder) -> bytes:
    payload = encoder.finish()
    return pack(header, payload, encoder.checksum)


def _paste(images: Tensor, tile: Tile, core: Tensor) -> None:
    """Copies a tile's core into the images, whose right and bottom edges may cut it."""
    rows, columns = tile.core.slices()
    target = images[:, :, rows, columns]
    target.copy_(core[:, :, : target.shape[2], : target.shape[3]])
