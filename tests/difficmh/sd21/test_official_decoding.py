"""Official files through the joined codec: whatever a file may hold, and the fixtures to the number."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from difficmh import codec as codec_module
from difficmh.bitstream import Header
from difficmh.cli import main
from difficmh.codec import Codec
from difficmh.errors import BitstreamError, CapsuleError
from difficmh.networks import Networks
from difficmh.sd21 import official_decoding
from difficmh.sd21.config import DrawingConfig, Sd21Config
from difficmh.sd21.networks import Diffusion, Sd21Networks
from difficmh.sd21.official_coding import OfficialEntropyTables, encode_strings
from difficmh.sd21.official_decoding import decode_official
from difficmh.sd21.official_format import OfficialStream, write_official
from difficmh.sd21.official_rans import OfficialTables
from difficmh.sd21.reference_sampler import spaced_process
from difficmh.sd21.tables import coding_tables, load_official_tables
from difficmh.taggers.ram_tags import TagList
from difficmh.vocabulary import tag_prior
from tests.difficmh.parity_fixtures import FOLDER, facts, needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import autoencoder, denoiser
from tests.difficmh.sd21.tiny_lfgcm import fixture_config, fixture_lfgcm, random_latents


@pytest.fixture(scope="module")
def official(sd21_codec: Codec) -> OfficialStream:
    """A picture of 64 x 128 pixels with two tags."""
    assert isinstance(sd21_codec.networks, Sd21Networks)
    tables = load_official_tables(sd21_codec.capsule)
    strings = encode_strings(sd21_codec.networks.lfgcm, tables, *random_latents())
    return OfficialStream(1, 2, strings.y, strings.z[0], (0, 3))


@pytest.mark.parametrize("tags", [(0, 3), (), None])
def test_a_file_gives_tags_and_a_picture(sd21_codec: Codec, official: OfficialStream, tags: Any) -> None:
    stream = decode_official(sd21_codec, write_official(replace(official, tags=tags)))
    names = sd21_codec.networks.tags.names
    assert stream.tags == tuple(sorted(names[number] for number in tags or ()))
    assert stream.header == Header(64, 128, 1, sd21_codec.fingerprint[:8])
    for mode in ("preview", "full"):
        (picture,) = sd21_codec.draw([stream], mode=mode)
        assert picture.shape == (3, 64, 128)


def test_what_is_no_file_of_this_model(sd21_codec: Codec, tiny_codec: Codec, official: OfficialStream) -> None:
    whole = write_official(official)
    complete_without_tags = len(write_official(replace(official, tags=None)))
    for length in {*range(0, len(whole), 5)} - {complete_without_tags}:
        with pytest.raises(BitstreamError):
            decode_official(sd21_codec, whole[:length])
    with pytest.raises(BitstreamError, match="tag number 5"):
        decode_official(sd21_codec, write_official(replace(official, tags=(1, 5))))
    with pytest.raises(CapsuleError, match="official"):
        decode_official(tiny_codec, whole)


def test_the_tool_decodes_and_describes(
    sd21_capsule: Path, official: OfficialStream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "official.bin"
    cases = {"some": ((0, 3), "tag numbers: 0, 3"), "empty": ((), "tag numbers: none"), "no": (None, "no tag section")}
    for name, (tags, said) in cases.items():
        file.write_bytes(write_official(replace(official, tags=tags)))
        assert main(["info", str(file)]) == 0
        out = capsys.readouterr().out
        assert "official Diff-ICMH file, 128 x 64 with padding" in out
        assert said in out
        target = tmp_path / f"{name}.png"
        arguments = ["decompress", "--official", str(file), str(target), "--codec", str(sd21_capsule)]
        assert main([*arguments, "--mode", "reference", "--steps", "2", "--sampler", "ddim"]) == 0
        assert target.exists()
        assert "128 x 64" in capsys.readouterr().out
    assert main(["info", "--json", str(file)]) == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert (described["format"], described["height"], described["tags"]) == ("official", 64, None)
    assert main(["decompress", "--official", str(file)]) == 1
    assert "does not say which model made it: name its model with --codec" in capsys.readouterr().err
    file.write_bytes(b"nonsense")
    assert main(["decompress", "--official", str(file), "--codec", "no such model"]) == 1
    assert f"{file}: too short" in capsys.readouterr().err


@dataclass(frozen=True)
class FixtureText:
    """The fixture's stand-in embeddings."""

    given: dict[str, Tensor]

    def embed(self, prompts: list[str]) -> Tensor:
        kinds = ["context_cond" if text else "context_uncond" for text in prompts]
        return torch.cat([self.given[kind] for kind in kinds])


class FixtureNoise:
    """The fixture's noise in the place of the stream's."""

    def __init__(self, *_: object) -> None:
        self.given = tensors("e2e_small_io")
        steps = spaced_process(facts("e2e_small")["steps"]).timesteps
        self.steps = steps[::-1].tolist()

    def start(self) -> Tensor:
        return self.given["x_T"]

    def at(self, timestep: int) -> Tensor:
        return self.given["noises"][self.steps.index(timestep)]


class Watched:
    """Networks that keep the latent that they denoise."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.latents: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.networks, name)

    def draw(self, latent: Tensor) -> Tensor:
        self.latents.append(latent)
        return self.networks.draw(latent)


@cache
def fixture_codec() -> Codec:
    """The codec of the parity fixtures: their networks, their guidance and steps, unnamed tags by number."""
    told, lfgcm = facts("e2e_small"), fixture_lfgcm()
    tags = TagList(tuple(f"tag {number}" for number in range(1 << 13)), (0.5,) * (1 << 13))
    model, vae = denoiser(told["control"]), autoencoder()
    drawing = DrawingConfig(guidance=told["cfg_scale"], reference_steps=told["steps"])
    config = Sd21Config(lfgcm=fixture_config(), denoiser=model.config, vae=vae.config, drawing=drawing)
    diffusion = Diffusion(model, FixtureText(tensors("e2e_small_io")))
    networks = Sd21Networks(config, lfgcm, vae, tags, lambda: diffusion)
    prior = tag_prior(tags.vocabulary())
    return Codec("fixture", "0" * 16, FOLDER, networks, coding_tables(lfgcm), prior, no_tagger)


def no_tagger() -> NoReturn:
    raise AssertionError("the fixtures come with their tags")


def fixture_tables(_: Path) -> OfficialEntropyTables:
    numbers, parts = tensors("lfgcm_small_io"), ("quantized_cdf", "cdf_length", "offset")
    y, z = (
        OfficialTables(*(numbers[f"tables.{name}.{part}"].numpy() for part in parts))
        for name in ("gaussian", "bottleneck")
    )
    return OfficialEntropyTables(z=z, y=y)


@needs_parity
@pytest.mark.parametrize("name", ["bitstream_tags", "bitstream_notags", "bitstream_zerotags"])
def test_the_fixture_through_the_codec(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, given = fixture_codec(), tensors("e2e_small_io")
    monkeypatch.setattr(official_decoding, "load_official_tables", fixture_tables)
    monkeypatch.setattr(codec_module, "NoiseField", FixtureNoise)
    stream = decode_official(codec, (FOLDER / f"{name}.bin").read_bytes())
    told = facts("e2e_small")
    tags = told["tags"] if name == "bitstream_tags" else []
    assert sorted(stream.tags) == sorted(f"tag {number}" for number in tags)
    watched = Watched(codec.networks)
    (picture,) = replace(codec, networks=watched).draw([stream], mode="reference")
    (latent,) = watched.latents
    if tags:
        height, width = told["original_size"]
        assert_close(latent, given["latent"], atol=5e-3, rtol=0)
        pixels = picture.mul(255).byte().permute(1, 2, 0)[:height, :width]
        assert (pixels.int() - given["recon"].int()).abs().max() <= 1
    else:
        assert latent.shape == given["latent"].shape
        assert (latent - given["latent"]).abs().max() > 0.1


@needs_parity
def test_the_fixtures_picture_through_our_own_stream() -> None:
    """Exact integers shift the means by thousandths and so flip some symbols: another latent of the same fidelity."""
    codec, told, given = fixture_codec(), facts("e2e_small"), tensors("e2e_small_io")
    names = [f"tag {number}" for number in told["tags"]]
    (stream,) = codec.compress([given["image_padded"].numpy()], tags=[names])
    found = codec.read(stream)
    assert sorted(found.tags) == sorted(names)
    assert len(stream) < (FOLDER / "bitstream_tags.bin").stat().st_size
    latents = codec._latents([found], codec_module.Rectangle(0, 0, *told["padded_size"]))
    guide = codec.networks.guide(latents, torch.zeros(1))
    assert (guide - given["c_latent"]).abs().mean() < 0.25 * given["c_latent"].std()
