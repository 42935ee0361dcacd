"""The diffusion networks of the parity fixtures: sizes from their JSON, weights loaded by official names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difficmh.sd21 import ldm_keys
from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import Denoiser, DenoiserConfig
from difficmh.sd21.text import TextConditioner, TextConfig, Tokenize
from difficmh.sd21.unet import UNetConfig
from difficmh.sd21.vae import LatentAutoencoder, VaeConfig
from tests.difficmh.parity_fixtures import facts, tensors


def unet_config() -> UNetConfig:
    """Sizes of the small UNet."""
    given = facts("cddm_small")["unet"]
    return UNetConfig(
        latent_channels=given["in_channels"],
        widths=tuple(given["model_channels"] * factor for factor in given["channel_mult"]),
        blocks_per_level=given["num_res_blocks"],
        head_channels=given["num_head_channels"],
        context_width=given["context_dim"],
    )


def denoiser(tag: str) -> Denoiser:
    """UNet and control module of one of the ratios, `r100`, `r050` or `r020`."""
    given = facts("cddm_small")["control"][tag]
    control = ControlConfig(given["control_model_ratio"], given["num_head_channels"], given["control_scale"])
    with torch.device("meta"):
        model = Denoiser(DenoiserConfig(unet_config(), control))
    weights = tensors("cddm_small_unet") | tensors(f"cddm_small_control_{tag}")
    ldm_keys.load_strictly(model.unet, ldm_keys.unet_state(weights, model))
    ldm_keys.load_strictly(model.control, ldm_keys.control_state(weights, model.control))
    return model.eval().requires_grad_(False)


def autoencoder() -> LatentAutoencoder:
    """The small autoencoder."""
    given = facts("vae_small")
    sizes = given["ddconfig"]
    config = VaeConfig(
        latent_channels=sizes["z_channels"],
        widths=tuple(sizes["ch"] * factor for factor in sizes["ch_mult"]),
        blocks_per_level=sizes["num_res_blocks"],
        scale=given["scale_factor"],
    )
    with torch.device("meta"):
        model = LatentAutoencoder(config)
    ldm_keys.load_strictly(model.vae, ldm_keys.vae_state(tensors("vae_small"), model))
    return model.eval().requires_grad_(False)


def text_conditioner(tokenize: Tokenize) -> TextConditioner:
    """The small text tower; its table of tokens holds the fixture's rows and zeros elsewhere."""
    sizes = facts("text_small")["text_cfg"]
    config = TextConfig(sizes["width"], sizes["heads"], sizes["layers"], sizes["context_length"], sizes["vocab_size"])
    with torch.device("meta"):
        model = TextConditioner(config, tokenize)
    ldm_keys.load_strictly(model.encoder, ldm_keys.text_state(_text_weights(config.vocabulary), model))
    return model.eval().requires_grad_(False)


def _text_weights(vocabulary: int) -> dict[str, Tensor]:
    weights = tensors("text_small")
    rows = weights.pop("cond_stage_model.model.token_embedding.rows")
    used = weights.pop("used_token_ids") if "used_token_ids" in weights else tensors("text_small_io")["used_token_ids"]
    table = torch.zeros(vocabulary, rows.shape[1])
    table[used.long()] = rows
    return weights | {"cond_stage_model.model.token_embedding.weight": table}


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape."""
    assert a.shape == b.shape
    return float((a.double() - b.double()).abs().max())


def control_facts(tag: str) -> dict[str, Any]:
    """What the fixture says of one control module."""
    given: dict[str, Any] = facts("cddm_small")["control"][tag]
    return given
