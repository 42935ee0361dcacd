"""Capsules of the paper's model that load, and those that must not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import difficmh
from difficmh.capsule import INDEX, read_config, read_manifest, write_manifest
from difficmh.errors import CapsuleError
from difficmh.sd21 import loading
from difficmh.sd21.config import Sd21Config
from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.loading import load_networks, load_part
from difficmh.sd21.networks import Sd21Networks
from tests.difficmh.sd21.tiny_sd21 import CONFIG, make_tiny_sd21
from tests.difficmh.tiny_capsule import photograph


@pytest.fixture
def spoiled(sd21_capsule: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(sd21_capsule, tmp_path / "copy"))


def seal(capsule: Path) -> None:
    """As if it had been written like this."""
    decoding = read_manifest(capsule)["decoding"]
    write_manifest(capsule, [name for name in decoding if (capsule / name).exists()])


def load_all(capsule: Path) -> None:
    """What only generative decodes need, too."""
    networks = difficmh.load(capsule).networks
    assert isinstance(networks, Sd21Networks)
    networks.diffusion()


def test_networks_of_the_configured_sizes(sd21_capsule: Path) -> None:
    networks = load_networks(sd21_capsule, CONFIG)
    assert Sd21Config.from_dict(read_config(sd21_capsule)["codec"]) == CONFIG
    assert networks.diffusion().denoiser.config == CONFIG.denoiser
    assert not networks.diffusion().denoiser.training
    assert {p.dtype for p in networks.diffusion().denoiser.parameters()} == {torch.float32}
    assert networks.vae.vae.use_slicing


def test_only_the_denoiser_runs_in_half_precision(sd21_capsule: Path) -> None:
    codec = difficmh.load(sd21_capsule, dtype="bfloat16")
    networks = load_networks(sd21_capsule, CONFIG, dtype="bfloat16")
    assert {p.dtype for p in networks.diffusion().denoiser.parameters()} == {torch.bfloat16}
    others = [*networks.lfgcm.parameters(), *networks.vae.parameters()]
    assert {p.dtype for p in others} == {torch.float32}
    (stream,) = codec.compress([photograph(64, 64)], tags=[["bee"]])
    plain = difficmh.load(sd21_capsule)
    assert plain.compress([photograph(64, 64)], tags=[["bee"]]) == [stream]
    fast, exact = (one.decompress([stream], mode="full")[0] for one in (codec, plain))
    assert 0 < (fast - exact).abs().mean() < 0.05
    with pytest.raises(ValueError, match="int8"):
        difficmh.load(sd21_capsule, dtype="int8")


def test_only_the_denoiser_is_compiled_and_only_on_request(sd21_capsule: Path) -> None:
    networks = difficmh.load(sd21_capsule, compiled=True).networks
    assert isinstance(networks, Sd21Networks)
    assert networks.diffusion().denoiser._compiled_call_impl is not None
    assert networks.lfgcm._compiled_call_impl is None
    assert networks.vae.vae._compiled_call_impl is None
    with pytest.raises(ValueError, match="lite are not compiled"):
        difficmh.load("lite", compiled=True)


def test_a_compiled_denoiser_does_not_depend_on_the_sizes_before(
    sd21_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants: list[bool] = []

    def backend(module: torch.fx.GraphModule, inputs: list[object]) -> Callable[..., object]:
        variants.append(any(isinstance(each, torch.SymInt) for each in inputs))
        return module.forward

    def compile_without_inductor(module: nn.Module, **options: bool) -> None:
        usual(module, backend=backend, **options)

    usual = Denoiser.compile
    monkeypatch.setattr(Denoiser, "compile", compile_without_inductor)
    codec = difficmh.load(sd21_capsule, compiled=True)
    for size in ((64, 64), (64, 128), (128, 128), (64, 128)):
        codec.decompress(codec.compress([photograph(*size)], tags=[["bee"]]), mode="full", steps=1)
    assert variants == [False] * 3


def test_stored_in_half_precision_it_still_codes_in_float32(tmp_path: Path, sd21_capsule: Path) -> None:
    small = difficmh.load(make_tiny_sd21(tmp_path, dtype="bfloat16"))
    assert {p.dtype for p in small.networks.diffusion().denoiser.parameters()} == {torch.float32}
    (stream,) = small.compress([photograph(64, 64)], tags=[[]])
    assert difficmh.load(small.capsule).read(stream).latents.y_hat.any()
    with pytest.raises(difficmh.BitstreamError, match="another model"):
        difficmh.load(sd21_capsule).read(stream)


@pytest.mark.parametrize("content", [None, {}, {"tile": 128}, {**CONFIG.to_dict(), "colour": 1}])
def test_a_configuration_that_describes_no_codec(spoiled: Path, content: object) -> None:
    config = read_config(spoiled)
    (spoiled / "config.json").write_text(json.dumps({**config, "codec": content}))
    seal(spoiled)
    with pytest.raises(CapsuleError, match="describes no codec"):
        difficmh.load(spoiled)


def test_a_family_that_is_not_known(spoiled: Path) -> None:
    config = read_config(spoiled)
    (spoiled / "config.json").write_text(json.dumps({**config, "family": "sd99"}))
    seal(spoiled)
    with pytest.raises(CapsuleError, match="'sd99'"):
        difficmh.load(spoiled)


@pytest.mark.parametrize("section", ["lfgcm", "vae", "text"])
def test_sizes_that_do_not_fit_the_weights(spoiled: Path, section: str) -> None:
    config = read_config(spoiled)
    changes = {"lfgcm": {"side_channels": 8}, "vae": {"widths": [32, 32, 32, 64]}, "text": {"width": 16}}
    config["codec"][section] |= changes[section]
    (spoiled / "config.json").write_text(json.dumps(config))
    seal(spoiled)
    with pytest.raises(CapsuleError):
        load_all(spoiled)


@pytest.mark.parametrize("part", ["lfgcm", "unet", "control", "vae", "text", "tokenizer/vocab.json"])
def test_a_part_that_is_not_there(spoiled: Path, part: str) -> None:
    file = spoiled / (part if "/" in part else f"{part}-00001-of-00001.safetensors")
    file.unlink()
    with pytest.raises(CapsuleError, match=file.name):
        difficmh.load(spoiled)
    seal(spoiled)
    with pytest.raises(CapsuleError):
        load_all(spoiled)


def test_compression_and_previews_load_no_diffusion_part(spoiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(loading, "load_part", lambda capsule, part: loaded.append(part) or load_part(capsule, part))
    codec = difficmh.load(spoiled)
    (stream,) = codec.compress([photograph(64, 64)], tags=[["cow"]])
    codec.decompress([stream], mode="preview")
    assert loaded == ["lfgcm", "vae"]
    for _ in range(2):
        codec.decompress([stream], mode="full", steps=1)
    assert loaded == ["lfgcm", "vae", "unet", "control", "text"]


def test_an_altered_byte(spoiled: Path) -> None:
    file = spoiled / "vae-00001-of-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CapsuleError, match="vae-00001"):
        difficmh.load(spoiled)


def test_an_altered_byte_of_the_tagger(spoiled: Path) -> None:
    """Decoding does not read it, so that loading does not; tagging would give other scores."""
    file = spoiled / "tagger-00001-of-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    codec = difficmh.load(spoiled)
    with pytest.raises(CapsuleError, match=r"tagger-00001-of-00001\.safetensors is not the file"):
        codec.tag([photograph(64, 64)])


def test_decoding_needs_no_tagger(spoiled: Path, sd21_capsule: Path) -> None:
    codec = difficmh.load(sd21_capsule)
    (stream,) = codec.compress([photograph(64, 64)], tags=[["cow"]])
    (spoiled / "tagger-00001-of-00001.safetensors").unlink()
    index = json.loads((spoiled / INDEX).read_text())
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if not f.startswith("tagger")}
    (spoiled / INDEX).write_text(json.dumps(index))
    without = difficmh.load(spoiled)
    assert torch.equal(without.decompress([stream], mode="preview")[0], codec.decompress([stream], mode="preview")[0])
    with pytest.raises(CapsuleError, match="tagger"):
        without.tag([photograph(64, 64)])


def test_missing_packages_are_named(sd21_capsule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("difficmh.sd21.loading", "difficmh.sd21.vae"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        CapsuleError, match=r"needs the package diffusers: pip install '\.\[sd21\]' in the project's folder"
    ):
        difficmh.load(sd21_capsule)


def test_the_fingerprint_covers_what_decodes(sd21_capsule: Path) -> None:
    decoding = read_manifest(sd21_capsule)["decoding"]
    parts = {name.split("-")[0] for name in decoding if name.endswith("-of-00001.safetensors")}
    assert parts == {"lfgcm", "unet", "control", "vae", "text"}
