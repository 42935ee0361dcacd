"""All files of a released model in the official layout, with tiny networks: what `models fetch` starts from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from difficmh.sd21.checkpoint import PARTS, SCHEDULE, TAGGER_PREFIX
from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.sources import Source
from difficmh.sd21.text import TextConditioner
from difficmh.sd21.vae import LatentAutoencoder
from tests.difficmh.sd21.official_files import EMPTY, lightning_content
from tests.difficmh.sd21.official_names import official_control, official_text, official_unet, official_vae
from tests.difficmh.sd21.tiny_lfgcm import tiny_lfgcm
from tests.difficmh.sd21.tiny_sd21 import CONFIG
from tests.difficmh.sd21.tiny_tokenizer import write_tokenizer
from tests.difficmh.taggers.small_ram import TAGS, official_state, random_network

LICENCES = ("Diff-ICMH", "RAM", "RAM-NOTICE", "Stable-Diffusion-2")


def released_state() -> dict[str, Tensor]:
    """Every tensor of a checkpoint as the official code leaves it: prefixes, old names, buffers nobody needs."""
    return dict(_released_state())


@cache
def _released_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    denoiser = Denoiser(CONFIG.denoiser)
    for conv in (*denoiser.control.enc_out, denoiser.control.mid_out, *denoiser.control.dec_out):
        nn.init.normal_(conv.weight, std=0.1)
    text = official_text(TextConditioner(CONFIG.text, lambda _: []))
    width = CONFIG.text.width
    last = f"cond_stage_model.model.transformer.resblocks.{CONFIG.text.blocks - 1}.ln_1.weight"
    text |= {last: torch.ones(width), "cond_stage_model.model.text_projection": torch.ones(width, width)}
    state = official_unet(denoiser.unet) | official_control(denoiser.control) | text
    state |= official_vae(LatentAutoencoder(CONFIG.vae))
    state |= {f"{PARTS['lfgcm'].prefix}{old_name(name)}": t for name, t in released_lfgcm().state_dict().items()}
    state |= {f"{TAGGER_PREFIX}{name}": tensor for name, tensor in official_state(random_network()).items()}
    state |= {name: torch.ones(4) for name in SCHEDULE} | {name: torch.zeros(0, dtype=torch.int32) for name in EMPTY}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@cache
def released_lfgcm() -> Lfgcm:
    """The latent codec in the files."""
    return tiny_lfgcm()


def old_name(name: str) -> str:
    """The name that compressai before 1.2.7 had for a tensor of the bottleneck."""
    for new, old in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
        name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
    return name


def write_released(folder: Path, state: dict[str, Tensor] | None = None) -> dict[str, Source]:
    """Writes the files and returns them as sources by role."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(lightning_content(released_state() if state is None else state), folder / "model.ckpt")
    (folder / "names.txt").write_text("\n".join(TAGS.names))
    (folder / "thresholds.txt").write_text("\n".join(map(str, TAGS.thresholds)) + "\n")
    write_tokenizer(folder / "tokenizer")
    files = {"checkpoint": "model.ckpt", "tag_names": "names.txt", "tag_thresholds": "thresholds.txt"}
    files |= {f"tokenizer/{name}": f"tokenizer/{name}" for name in ("vocab.json", "merges.txt")}
    for name in LICENCES:
        (folder / f"{name}.txt").write_text(f"licence of {name}")
        files[f"licences/{name}.txt"] = f"{name}.txt"
    return {role: Source(str(folder / file)) for role, file in files.items()}
