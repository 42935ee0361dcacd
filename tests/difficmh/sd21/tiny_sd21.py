"""A capsule of the paper's model with tiny networks and random weights, written as a real one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difficmh.sd21.capsule_writer import CapsuleContents, write_capsule
from difficmh.sd21.checkpoint import PARTS, TAGGER_PREFIX
from difficmh.sd21.config import DrawingConfig, Sd21Config
from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import Denoiser, DenoiserConfig
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.tables import capsule_tables
from difficmh.sd21.text import TextConditioner, TextConfig
from difficmh.sd21.unet import UNetConfig
from difficmh.sd21.vae import LatentAutoencoder, VaeConfig
from tests.difficmh.sd21.official_names import official_control, official_text, official_unet, official_vae
from tests.difficmh.sd21.tiny_lfgcm import TINY, tiny_lfgcm
from tests.difficmh.sd21.tiny_tokenizer import write_tokenizer
from tests.difficmh.taggers.small_ram import CONFIG as TAGGER
from tests.difficmh.taggers.small_ram import TAGS, official_state, random_network

CONFIG = Sd21Config(
    tile=128,
    lfgcm=TINY,
    denoiser=DenoiserConfig(
        UNetConfig(widths=(32, 64), blocks_per_level=1, head_channels=16, context_width=8),
        ControlConfig(ratio=0.5, head_channels=8),
    ),
    vae=VaeConfig(widths=(32,) * 4, blocks_per_level=1, tile=256),
    text=TextConfig(width=8, heads=2, blocks=2),
    tagger=TAGGER,
    drawing=DrawingConfig(full_steps=2, reference_steps=3),
)


def make_tiny_sd21(directory: Path, seed: int = 0, **options: Any) -> Path:
    """Writes a capsule below `directory`; `options` are those of `write_capsule`."""
    tokenizer = write_tokenizer(directory / "tokenizer")
    lfgcm = tiny_lfgcm(seed)
    lfgcm.hyper_enc.h_a9.weight.mul_(100)  # else all symbols of z were 0
    contents = CapsuleContents(
        name="sd21-tiny",
        config=CONFIG.to_dict(),
        parts=_parts(lfgcm, seed),
        tables=capsule_tables(lfgcm),
        vocabulary=TAGS.vocabulary(),
        tags=TAGS,
        companions={f"tokenizer/{file.name}": file for file in tokenizer.iterdir()},
    )
    write_capsule(contents, directory / "sd21", **options)
    return directory / "sd21"


def _parts(lfgcm: Lfgcm, seed: int) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(seed)
    denoiser = Denoiser(CONFIG.denoiser)
    denoiser.initialize_control()
    for conv in (*denoiser.control.enc_out, denoiser.control.mid_out, *denoiser.control.dec_out):
        nn.init.normal_(conv.weight, std=0.1)
    text = TextConditioner(CONFIG.text, lambda prompt: [])
    return {
        "lfgcm": {f"{PARTS['lfgcm'].prefix}{name}": tensor for name, tensor in lfgcm.state_dict().items()},
        "unet": official_unet(denoiser.unet),
        "control": official_control(denoiser.control),
        "vae": official_vae(LatentAutoencoder(CONFIG.vae)),
        "text": official_text(text),
        "tagger": {f"{TAGGER_PREFIX}{name}": t for name, t in _floats(official_state(random_network())).items()},
    }


def _floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the buffers that the released file stores as integers: a capsule has floats alone."""
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and "attn_mask" not in name}
