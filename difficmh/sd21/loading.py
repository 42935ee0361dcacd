"""From the capsule of the paper's model to its networks on a device, each part loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from difficmh import limits
from difficmh.capsule import CONFIG, INDEX, verify_tagger
from difficmh.errors import CapsuleError
from difficmh.lazily import lazily
from difficmh.sd21.checkpoint import PARTS, TAGGER_PREFIX, without_prefix
from difficmh.sd21.config import Sd21Config
from difficmh.sd21.denoiser import Denoiser, DenoiserConfig
from difficmh.sd21.ldm_keys import control_state, load_strictly, text_state, unet_state, vae_state
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.sd21.networks import Diffusion, Sd21Networks
from difficmh.sd21.text import TextConditioner, TextConfig, load_tokenizer
from difficmh.sd21.vae import LatentAutoencoder, VaeConfig
from difficmh.surroundings import while_making_networks
from difficmh.taggers.ram import RamTagger, load_network
from difficmh.taggers.ram_head import RamConfig
from difficmh.taggers.ram_tags import TagList

TORCH_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in limits.DTYPES["sd21"]}
"""Precisions of the diffusion part."""

TOKENIZER = "tokenizer"

Network = TypeVar("Network", bound=nn.Module)


def read_codec(capsule: Path, content: Mapping[str, Any]) -> Sd21Config:
    """The configuration in a capsule's `config.json`. Raises CapsuleError where it describes no codec."""
    try:
        return Sd21Config.from_dict(content["codec"])
    except (KeyError, TypeError, ValueError) as error:
        raise CapsuleError(f"{capsule / CONFIG} describes no codec of this version: {error!r}") from error


def load_networks(
    capsule: Path,
    config: Sd21Config,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    *,
    compiled: bool = False,
) -> Sd21Networks:
    """All networks but the tagger, in evaluation mode and ready for exact coding.

    `dtype` is that of the weights and the arithmetic of UNet and control module; None is the one they are stored in on
    a GPU, and float32 on a CPU. The rest is float32 whatever it is stored in. `compiled` puts both through
    torch.compile. Raises ValueError for another dtype and CapsuleError for weights or tags that are missing or do not
    fit; for those of the diffusion part, and the tokenizer, where a generative decode first needs them.
    """
    if dtype is not None and dtype not in TORCH_DTYPES:
        raise ValueError(f"the denoiser runs in {', '.join(TORCH_DTYPES)}, not {dtype!r}")
    if dtype is None and torch.device(device).type == "cpu":
        dtype = "float32"
    return Sd21Networks(
        config=config,
        lfgcm=_lfgcm(capsule, config.lfgcm).to(device),
        vae=_ready(_vae(capsule, config.vae), device, torch.float32),
        tags=TagList.load(capsule),
        diffusion=lazily(lambda: _diffusion(capsule, config, device, TORCH_DTYPES[dtype] if dtype else None, compiled)),
    )


def load_tagger(capsule: Path, config: RamConfig, device: torch.device | str = "cpu") -> RamTagger:
    """RAM++ from a capsule that has it. Raises CapsuleError, also for a file that is not the one it was sealed with."""
    verify_tagger(capsule)
    weights = without_prefix(load_part(capsule, "tagger"), TAGGER_PREFIX)
    return RamTagger(load_network(config, weights), TagList.load(capsule), device)


def load_part(capsule: Path, part: str) -> dict[str, Tensor]:
    """The tensors of a part, as stored, on the CPU, from a capsule that may hold others. Raises CapsuleError."""
    try:
        files = set(json.loads((capsule / INDEX).read_text())["weight_map"].values())
        tensors: dict[str, Tensor] = {}
        for file in sorted(name for name in files if name.rpartition("-of-")[0].rpartition("-")[0] == part):
            opener: Any = safe_open
            with opener(capsule / file, framework="pt", device="cpu") as shard:
                tensors |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CapsuleError(f"{capsule} holds no readable part {part!r}: {error}") from error
    if not tensors:
        raise CapsuleError(f"{capsule} holds no part {part!r}")
    return tensors


def _lfgcm(capsule: Path, config: LfgcmConfig) -> Lfgcm:
    model = Lfgcm(config)
    weights = without_prefix(load_part(capsule, "lfgcm"), PARTS["lfgcm"].prefix)
    try:
        model.load_state_dict(weights)
        model.freeze()
    except (RuntimeError, ValueError) as error:
        raise CapsuleError(f"{capsule}: the latent codec does not fit its configuration: {error}") from error
    return model.eval().requires_grad_(False)


@while_making_networks()
def _diffusion(
    capsule: Path, config: Sd21Config, device: torch.device | str, dtype: torch.dtype | None, compiled: bool
) -> Diffusion:
    denoiser = _ready(_denoiser(capsule, config.denoiser), device, dtype)
    if compiled:
        # For each size apart: torch's default makes sizes after the first symbolic, and roundings depend on the order.
        denoiser.compile(dynamic=False)
    return Diffusion(denoiser, _ready(_text(capsule, config.text), device, torch.float32))


def _denoiser(capsule: Path, config: DenoiserConfig) -> Denoiser:
    with torch.device("meta"):
        model = Denoiser(config)
    load_strictly(model.unet, unet_state(load_part(capsule, "unet"), model))
    load_strictly(model.control, control_state(_control_weights(capsule, config), model.control))
    return model


def _control_weights(capsule: Path, config: DenoiserConfig) -> dict[str, Tensor]:
    """With the scales of the 25 convolutions, which a capsule may leave out: its configuration has them."""
    weights = load_part(capsule, "control")
    name = f"{PARTS['control'].prefix}scale_list"
    blocks = len(config.unet.widths) * (config.unet.blocks_per_level + 1)
    return {name: torch.full((2 * blocks + 1,), config.control.scale), **weights}


def _vae(capsule: Path, config: VaeConfig) -> LatentAutoencoder:
    with torch.device("meta"):
        model = LatentAutoencoder(config)
    load_strictly(model.vae, vae_state(load_part(capsule, "vae"), model))
    # Both save memory alone: slicing changes nothing, and tiling nothing up to tiles of `config.tile` pixels.
    model.save_memory(slicing=True, tiling=True)
    return model


def _text(capsule: Path, config: TextConfig) -> TextConditioner:
    tokenize = load_tokenizer(capsule / TOKENIZER, config.positions)
    with torch.device("meta"):
        model = TextConditioner(config, tokenize)
    load_strictly(model.encoder, text_state(load_part(capsule, "text"), model))
    return model


def _ready(model: Network, device: torch.device | str, dtype: torch.dtype | None) -> Network:
    """On the device, in a precision (None: as stored), laid out for convolutions."""
    model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)
