"""The paper's model through the codec, with tiny networks: the way of every stream, whatever the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import difficmh
from difficmh.bitstream import pack, unpack
from difficmh.codec import Codec
from difficmh.errors import BitstreamError
from difficmh.limits import Limits, read_limits
from difficmh.networks import Conditions, Sampling
from difficmh.noise import NoiseField
from difficmh.sd21.networks import Diffusion, Sd21Networks
from tests.difficmh.tiny_capsule import photograph

NOISE = NoiseField([1], 4, slice(0, 8), slice(0, 8), 8)


@pytest.fixture(scope="module")
def stream(sd21_codec: Codec) -> bytes:
    return sd21_codec.compress([photograph(70, 90)], tags=[["moth", "Ant"]])[0]


@pytest.mark.parametrize("mode", ["preview", "full", "reference"])
def test_a_picture_comes_back_in_its_size(sd21_codec: Codec, stream: bytes, mode: Any) -> None:
    (decoded,) = sd21_codec.decompress([stream], mode=mode)
    assert (decoded.shape, decoded.dtype) == ((3, 70, 90), torch.float32)
    assert 0 <= decoded.min() < decoded.max() <= 1
    torch.manual_seed(3)
    assert torch.equal(sd21_codec.decompress([stream], mode=mode)[0], decoded)


def test_the_stream_holds_exactly_what_was_encoded(sd21_codec: Codec, stream: bytes) -> None:
    found = sd21_codec.read(stream)
    assert found.tags == ("Ant", "moth")
    assert (found.header.quality, found.header.guidance) == (1, None)
    y_hat, z_symbols = found.latents.y_hat, found.latents.z_symbols
    assert y_hat.shape == (8, 8, 8)
    assert (z_symbols.shape, z_symbols.dtype) == ((8, 2, 2), torch.int32)
    assert z_symbols.any()


def test_neighbours_do_not_change_a_stream(sd21_codec: Codec) -> None:
    images, tags = [photograph(64, 128, seed) for seed in range(2)] + [photograph(70, 90, 3)], [[], ["bee"], ["cow"]]
    together = sd21_codec.compress(images, tags=tags)
    alone = [sd21_codec.compress([image], tags=[names])[0] for image, names in zip(images, tags, strict=True)]
    assert together == alone


def test_tiles_hold_all_of_a_large_picture(sd21_codec: Codec) -> None:
    (stream,) = sd21_codec.compress([photograph(64, 450)], tags=[[]])
    found = sd21_codec.read(stream).latents
    assert (found.y_hat.shape, found.z_symbols.shape) == ((8, 4, 32), (8, 1, 8))
    (decoded,) = sd21_codec.decompress([stream], mode="full", steps=1)
    assert decoded.shape == (3, 64, 450)


def test_steps_and_sampler_are_the_readers_choice(sd21_codec: Codec, stream: bytes) -> None:
    # With two steps dpm++ and unipc are the same.
    choices: list[dict[str, Any]] = [{}, {"steps": 4}]
    choices += [{"sampler": name, "steps": 4} for name in ("ddim", "unipc")] + [{"sampler": "ddpm", "steps": 3}]
    pictures = [sd21_codec.decompress([stream], mode="full", **how)[0] for how in choices]
    assert all(not torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    (reference,) = sd21_codec.decompress([stream], mode="reference")
    assert torch.equal(pictures[-1], reference)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sampler": "euler"}, "'euler' is not one of this model's: ddpm, ddim, dpm"),
        ({"steps": 0}, r"steps of .* in 1\.\.\d+, not 0"),
        ({"sampler": "ddim", "steps": 1001}, r"ddim must be in 1\.\.1000, not 1001"),
        ({"sampler": "dpm++", "steps": 1000}, r"must be in 1\.\.999, not 1000"),
        ({"mode": "preview", "steps": 4}, "preview does not denoise"),
        ({"mode": "preview", "sampler": "ddim"}, "preview does not denoise"),
    ],
)
def test_what_a_mode_does_not_take_is_refused_before_anything_is_read(
    sd21_codec: Codec, stream: bytes, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sd21_codec.decompress([b"not read"], **{"mode": "full", **how})
    with pytest.raises(ValueError, match=message):
        sd21_codec.draw([sd21_codec.read(stream)], **{"mode": "full", **how})


def test_this_family_takes_no_effort(sd21_codec: Codec) -> None:
    assert read_limits(sd21_codec.capsule) == Limits(sd21_codec.qualities, sd21_codec.networks.default_quality, 0)
    with pytest.raises(ValueError, match="takes no effort"):
        sd21_codec.compress([photograph(70, 90)], tags=[[]], effort=1)


def test_a_guidance_scale_travels_where_it_is_not_the_models(sd21_codec: Codec, stream: bytes) -> None:
    image, tags = photograph(70, 90), [["moth", "Ant"]]
    assert sd21_codec.compress([image], tags=tags, guidance=5.0) == [stream]
    (other,) = sd21_codec.compress([image], tags=tags, guidance=1.25)
    assert len(other) == len(stream) + 2
    assert difficmh.inspect(other).guidance == sd21_codec.read(other).header.guidance == 1.25
    read = sd21_codec.read(stream)
    # Another scale under the same noise is another picture.
    same_noise = replace(read, header=sd21_codec.read(other).header)
    drawn = sd21_codec.draw([read, same_noise], mode="full")
    assert not torch.equal(drawn[0], drawn[1])
    for scale in (-1.0, 100.5, 1.234, float("nan")):
        with pytest.raises(ValueError, match="guidance"):
            sd21_codec.compress([image], tags=tags, guidance=scale)


def test_lite_has_no_guidance(tiny_codec: Codec) -> None:
    with pytest.raises(ValueError, match="no guidance"):
        tiny_codec.compress([photograph(64, 64)], tags=[[]], guidance=2.0)
    (stream,) = tiny_codec.compress([photograph(64, 64)], tags=[[]])
    frame = unpack(stream)
    with pytest.raises(BitstreamError, match="guidance"):
        tiny_codec.read(pack(replace(frame.header, guidance=2.0), frame.payload, frame.symbol_checksum))
    with pytest.raises(ValueError, match="sampler"):
        tiny_codec.decompress([stream], sampler="ddpm")


def test_damage_is_one_typed_error(sd21_codec: Codec, stream: bytes) -> None:
    for place in range(0, len(stream), 7):
        with pytest.raises(BitstreamError):
            sd21_codec.decompress([stream[:place] + bytes([stream[place] ^ 0x41]) + stream[place + 1 :]])
        with pytest.raises(BitstreamError):
            sd21_codec.decompress([stream[:place]])
    frame = unpack(stream)
    with pytest.raises(BitstreamError, match="quality"):
        sd21_codec.read(pack(replace(frame.header, quality=2), frame.payload, frame.symbol_checksum))
    with pytest.raises(BitstreamError):
        sd21_codec.read(pack(replace(frame.header, height=200), frame.payload, frame.symbol_checksum))


def test_only_quality_one(sd21_codec: Codec) -> None:
    assert list(sd21_codec.qualities) == [1]
    with pytest.raises(ValueError, match="quality 3"):
        sd21_codec.compress([photograph(64, 64)], quality=3, tags=[[]])


def test_the_tagger_names_what_it_sees(sd21_codec: Codec) -> None:
    image = photograph(70, 90)
    tags = [tag.name for tag in sd21_codec.tag([image])[0]]
    (stream,) = sd21_codec.compress([image])
    assert tags
    assert list(sd21_codec.read(stream).tags) == tags


class Recorder:
    """A denoiser and a text that remember what they were given."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.batches: list[int] = []

    def embed(self, prompts: list[str]) -> Tensor:
        self.prompts += prompts
        return torch.zeros(len(prompts), 3, 8)

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor, guide: Tensor) -> Tensor:
        self.batches.append(len(x))
        return torch.zeros_like(x)


@pytest.mark.parametrize(("tags", "batch"), [(("moth", "Ant", "zebra"), 2), ((), 1)])
def test_prompts_list_tags_by_number_and_no_tags_need_no_guidance(
    sd21_codec: Codec, tags: tuple[str, ...], batch: int
) -> None:
    assert isinstance(sd21_codec.networks, Sd21Networks)
    recorder: Any = Recorder()
    networks = replace(sd21_codec.networks, diffusion=lambda: Diffusion(recorder, recorder))
    networks.denoise(torch.zeros(1, 4, 8, 8), NOISE, Conditions([tags], Sampling("ddim", 3), 5.0))
    assert recorder.prompts == [", ".join(["zebra", "Ant", "moth"] if tags else []), ""]
    assert recorder.batches == [batch] * 3


def test_pictures_of_one_size_are_drawn_as_a_batch(sd21_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photograph(64, 64, seed) for seed in range(3)] + [photograph(64, 128)]
    read = [sd21_codec.read(s) for s in sd21_codec.compress(images, tags=[["bee"], [], ["cow"], []])]
    alone = sd21_codec.draw(read, mode="full")
    sizes: list[int] = []
    real = Codec._draw_group

    def group(codec: Codec, streams: Any, sampling: Any) -> Tensor:
        sizes.append(len(streams))
        return real(codec, streams, sampling)

    monkeypatch.setattr("difficmh.groups.groups", lambda kinds, device: iter([[0, 2, 1], [3]]))
    monkeypatch.setattr(Codec, "_draw_group", group)
    together = sd21_codec.draw(read, mode="full")
    assert sizes == [3, 1]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-3)
