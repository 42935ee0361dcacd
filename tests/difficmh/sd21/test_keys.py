"""Official names map one to one onto our modules, at full size and without its weights."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difficmh.errors import CapsuleError
from difficmh.sd21 import ldm_keys
from difficmh.sd21.control import ControlConfig, ControlModule
from difficmh.sd21.denoiser import Denoiser, DenoiserConfig
from difficmh.sd21.text import TextConditioner, TextConfig
from difficmh.sd21.unet import UNetConfig
from difficmh.sd21.vae import LatentAutoencoder, VaeConfig
from tests.difficmh.parity_fixtures import FOLDER

KEYS = FOLDER.parent / "spec" / "keys-full.json.gz"
needs_keys = pytest.mark.skipif(not KEYS.is_file(), reason=f"no list of official names in {KEYS}")


@cache
def listing() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(KEYS.read_bytes()))
    return content


def official() -> dict[str, Tensor]:
    """The full-size checkpoint, on the meta device."""
    return {name: torch.empty(entry["shape"], device="meta") for name, entry in listing()["keys"].items()}


@cache
def full_size() -> tuple[Denoiser, LatentAutoencoder, TextConditioner]:
    with torch.device("meta"):
        return (
            Denoiser(DenoiserConfig()),
            LatentAutoencoder(VaeConfig()),
            TextConditioner(TextConfig(), lambda text: []),
        )


def states(checkpoint: dict[str, Tensor]) -> list[tuple[nn.Module, dict[str, Tensor]]]:
    """Each module with the state that the checkpoint gives it."""
    denoiser, autoencoder, text = full_size()
    return [
        (denoiser.unet, ldm_keys.unet_state(checkpoint, denoiser)),
        (denoiser.control, ldm_keys.control_state(checkpoint, denoiser.control)),
        (autoencoder.vae, ldm_keys.vae_state(checkpoint, autoencoder)),
        (text.encoder, ldm_keys.text_state(checkpoint, text)),
    ]


@needs_keys
def test_every_official_tensor_has_its_place() -> None:
    for module, state in states(official()):
        ldm_keys.load_strictly(module, state)
        assert all(value.is_meta for value in state.values())


@needs_keys
def test_parameter_counts_are_the_official_ones() -> None:
    denoiser, autoencoder, _ = full_size()
    for prefix, module in (
        (ldm_keys.UNET, denoiser.unet),
        (ldm_keys.CONTROL, denoiser.control),
        (ldm_keys.VAE, autoencoder),
    ):
        found = sum(parameter.numel() for parameter in module.parameters())
        assert found == listing()["stats"][prefix]["params"], prefix


@needs_keys
@pytest.mark.parametrize("prefix", [ldm_keys.UNET, ldm_keys.CONTROL, ldm_keys.VAE, ldm_keys.TEXT])
def test_a_missing_tensor_is_an_error(prefix: str) -> None:
    checkpoint = official()
    del checkpoint[next(name for name in checkpoint if name.startswith(prefix) and name.endswith(".bias"))]
    with pytest.raises(CapsuleError, match="lacks"):
        states(checkpoint)


@needs_keys
@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.label_emb.0.0.weight",
        "model.diffusion_model.input_blocks.4.0.extra.weight",
        "control_model.control_model.input_blocks.12.0.in_layers.0.weight",
        "control_model.hint_block.0.weight",
        "first_stage_model.loss.logvar",
        "cond_stage_model.model.transformer.resblocks.24.ln_1.weight",
        "cond_stage_model.model.token_type.weight",
    ],
)
def test_a_tensor_without_a_place_is_an_error(name: str) -> None:
    with pytest.raises(CapsuleError, match=r"no place|of which"):
        states(official() | {name: torch.empty(3, device="meta")})


@needs_keys
def test_another_shape_is_an_error() -> None:
    name = "model.diffusion_model.out.2.bias"
    with pytest.raises(CapsuleError, match=r"other shapes for conv_out\.bias"):
        states(official() | {name: torch.empty(5, device="meta")})


def test_a_checkpoint_of_something_else_is_an_error() -> None:
    with torch.device("meta"):
        control = ControlModule(UNetConfig(widths=(32, 64), head_channels=16), ControlConfig())
    with pytest.raises(CapsuleError, match="no tensor under control_model"):
        ldm_keys.control_state({"weight": torch.zeros(1)}, control)
    with pytest.raises(CapsuleError, match="do not fit"):
        ldm_keys.load_strictly(control, {"mid_out.weight": torch.zeros(1)})
