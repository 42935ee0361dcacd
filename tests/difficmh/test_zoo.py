"""Capsules that are sealed and still no codec, and devices that are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import difficmh
from difficmh.capsule import BUILT_IN, write_manifest
from difficmh.codec import Codec
from difficmh.errors import CapsuleError
from difficmh.limits import Limits, read_limits
from difficmh.vocabulary import Tag, Vocabulary


@pytest.fixture
def capsule(tiny_capsule: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_capsule, tmp_path / "copy"))


@pytest.mark.parametrize(
    "content", ["[]", "null", "{}", '{"format": 1}', '{"format": 1, "codec": null}', '{"format": 1, "codec": {}}']
)
def test_a_configuration_that_describes_no_codec(capsule: Path, content: str) -> None:
    (capsule / "config.json").write_text(content)
    write_manifest(capsule)
    with pytest.raises(CapsuleError, match="config"):
        difficmh.load(capsule)


def test_a_configuration_that_does_not_fit_the_weights(capsule: Path) -> None:
    content = json.loads((capsule / "config.json").read_text())
    content["codec"]["latent_channels"] += 4
    (capsule / "config.json").write_text(json.dumps(content))
    write_manifest(capsule)
    with pytest.raises(CapsuleError, match=r"model\.safetensors does not fit"):
        difficmh.load(capsule)


@pytest.mark.parametrize("weight", [60_000.0, float("nan")])
def test_weights_that_are_too_large_for_exact_coding(capsule: Path, weight: float) -> None:
    weights = load_file(capsule / "model.safetensors")
    weights["entropy.h_s.mix_32.weight"].fill_(weight)
    save_file(weights, capsule / "model.safetensors")
    write_manifest(capsule)
    with pytest.raises(CapsuleError, match=r"model\.safetensors does not fit.*h_s\.mix_32: weights too large"):
        difficmh.load(capsule)


def test_a_vocabulary_that_the_denoiser_was_not_trained_for(capsule: Path) -> None:
    Vocabulary((Tag("car", 6000, 0.5),)).save(capsule / "tags.json")
    write_manifest(capsule)
    with pytest.raises(CapsuleError, match="trained for 3 tags, and the vocabulary has 1"):
        difficmh.load(capsule)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tables.safetensors", "tags.json"])
def test_one_altered_byte_in_any_file_that_decodes(capsule: Path, name: str) -> None:
    content = bytearray((capsule / name).read_bytes())
    content[-3] ^= 1
    (capsule / name).write_bytes(content)
    with pytest.raises(CapsuleError, match=name):
        difficmh.load(capsule)


SPOILED = ("5", "[5]", "[[]]", '"config.json"')
MANIFESTS = [f'{{"format": 1, "fingerprint": "0", "files": {{}}, "decoding": {decoding}}}' for decoding in SPOILED]


@pytest.mark.parametrize(
    "content", ['{"format": 1}', '{"format": 1, "fingerprint": "0", "files": []}', "[1]", *MANIFESTS]
)
def test_a_manifest_that_is_none(capsule: Path, content: str) -> None:
    (capsule / "manifest.json").write_text(content)
    with pytest.raises(CapsuleError, match="no model capsule"):
        difficmh.load(capsule)


def test_a_manifest_that_leaves_weights_out(capsule: Path) -> None:
    manifest = json.loads((capsule / "manifest.json").read_text())
    del manifest["files"]["model.safetensors"]
    (capsule / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CapsuleError, match=r"does not list model\.safetensors"):
        difficmh.load(capsule)


def test_lite_leaves_no_choice_of_precision(tiny_capsule: Path) -> None:
    assert difficmh.load(tiny_capsule, dtype="float32").name == "tiny"
    with pytest.raises(ValueError, match="float32, not bfloat16"):
        difficmh.load(tiny_capsule, dtype="bfloat16")


@pytest.mark.parametrize("device", ["tpu", "meta", "cpu:x", ""])
def test_what_is_no_device(tiny_capsule: Path, device: str) -> None:
    with pytest.raises(ValueError, match="neither cpu nor cuda"):
        difficmh.load(tiny_capsule, device)


def test_a_gpu_that_is_not_there(tiny_capsule: Path) -> None:
    with pytest.raises(CapsuleError, match="no such CUDA device"):
        difficmh.load(tiny_capsule, f"cuda:{torch.cuda.device_count()}")


def test_all_public_names_are_there(tiny_capsule: Path) -> None:
    assert all(hasattr(difficmh, name) for name in difficmh.__all__)
    assert isinstance(difficmh.load(tiny_capsule), difficmh.Codec)
    assert issubclass(difficmh.AnalyzerError, difficmh.DifficmhError)
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = difficmh.Decoder


def test_limits_are_told_without_networks(lite: Codec) -> None:
    networks = lite.networks
    expected = Limits(lite.qualities, networks.default_quality, networks.max_effort)
    assert read_limits(BUILT_IN / "lite") == expected


def test_a_configuration_without_limits(capsule: Path) -> None:
    (capsule / "config.json").write_text('{"codec": {}}')
    with pytest.raises(CapsuleError, match="describes no codec"):
        read_limits(capsule)


def test_an_altered_tagger_is_no_tagger(capsule: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(CapsuleError, match="lists no tagger"):
        difficmh.load(capsule).tag([image])
    shutil.copy(BUILT_IN / "lite" / "tagger.safetensors", capsule)
    write_manifest(capsule)
    content = bytearray((capsule / "tagger.safetensors").read_bytes())
    content[-3] ^= 1
    (capsule / "tagger.safetensors").write_bytes(content)
    with pytest.raises(CapsuleError, match=r"tagger\.safetensors is not the file"):
        difficmh.load(capsule).tag([image])
