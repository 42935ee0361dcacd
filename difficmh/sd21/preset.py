"""From fetched files to the capsule of a released model.

    model.ckpt ─┬─ control, lfgcm ──────────────────────────┐
                └─ unet, vae, text, tagger ─(or files of their own)─┴─► checked on the meta device ─► capsule
    lfgcm ─► integer CDF tables      tag lists ─► vocabulary, numbers      tokenizer, licences ─► companions

The checkpoint is mapped, and the capsule written shard by shard: an 11 GB file is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.errors import CapsuleError
from difficmh.sd21.capsule_writer import CapsuleContents, write_capsule
from difficmh.sd21.checkpoint import (
    PARTS,
    TAGGER_PREFIX,
    Shapes,
    read_parts,
    read_tagger,
    with_prefix,
    without_prefix,
)
from difficmh.sd21.config import Sd21Config
from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.fetch import Fetched
from difficmh.sd21.ldm_keys import control_state, load_strictly, text_state, unet_state, vae_state
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.plan import CHECKPOINT, PRESETS, STABLE_DIFFUSION, TAGGER
from difficmh.sd21.tables import capsule_tables
from difficmh.sd21.text import TextConditioner, load_tokenizer
from difficmh.sd21.vae import LatentAutoencoder
from difficmh.taggers.ram import official_shapes
from difficmh.taggers.ram_tags import TagList

FROZEN = ("unet", "vae", "text")
"""Parts of Stable Diffusion, which training left as they were."""

State = Mapping[str, Tensor]


def assemble(name: str, files: Mapping[str, Fetched], directory: Path, dtype: str = "float32") -> str:
    """Writes the capsule of a released model from its files by role (`plan.py`). Returns the fingerprint.

    Raises CapsuleError, and writes nothing, where files are not what the model needs: another checkpoint, weights too
    large for the exact arithmetic, tags of another number, no CLIP tokenizer.
    """
    config = Sd21Config(rate=PRESETS[name])
    tags = TagList.read(files["tag_names"].path, files["tag_thresholds"].path)
    if len(tags.names) != config.tagger.tags:
        raise CapsuleError(f"the tag list has {len(tags.names)} tags, and the tagger knows {config.tagger.tags}")
    load_tokenizer(files["tokenizer/vocab.json"].path.parent, config.text.positions)
    parts = released_parts(config, files)
    check_parts(config, parts)
    contents = CapsuleContents(
        name=name,
        config=config.to_dict(),
        parts=parts,
        tables=trained_tables(config, parts["lfgcm"]),
        vocabulary=tags.vocabulary(),
        tags=tags,
        companions={role: file.path for role, file in files.items() if "/" in role},
        sources=files,
    )
    return write_capsule(contents, directory, dtype=dtype)


def released_parts(config: Sd21Config, files: Mapping[str, Fetched]) -> dict[str, dict[str, Tensor]]:
    """Every part under its official names, views of mapped files. Raises CapsuleError.

    Stable Diffusion and the tagger come from files of their own where there are such.
    """
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Lfgcm(config.lfgcm).state_dict().items()}
    tagger = with_prefix(official_shapes(config.tagger), TAGGER_PREFIX)
    frozen: dict[str, Shapes | None] = dict.fromkeys(FROZEN)
    own: dict[str, Shapes | None] = {"control": None, "lfgcm": with_prefix(shapes, PARTS["lfgcm"].prefix)}
    own |= frozen if STABLE_DIFFUSION not in files else {}
    own |= {"tagger": tagger} if TAGGER not in files else {}
    parts = dict(read_parts(files[CHECKPOINT].path, own))
    if STABLE_DIFFUSION in files:
        parts |= dict(read_parts(files[STABLE_DIFFUSION].path, frozen))
    if TAGGER in files:
        parts["tagger"] = read_tagger(files[TAGGER].path, tagger)
    return parts


def check_parts(config: Sd21Config, parts: Mapping[str, State]) -> None:
    """Loads Stable Diffusion and the control module strictly, on the meta device. Raises CapsuleError."""
    unet, vae, text, control = (
        {name: torch.empty_like(tensor, device="meta") for name, tensor in parts[part].items()}
        for part in ("unet", "vae", "text", "control")
    )
    with torch.device("meta"):
        denoiser, autoencoder = Denoiser(config.denoiser), LatentAutoencoder(config.vae)
        tower = TextConditioner(config.text, lambda _: [])
    scales = {f"{PARTS['control'].prefix}scale_list": denoiser.control.get_buffer("scale_list")}
    load_strictly(denoiser.unet, unet_state(unet, denoiser))
    load_strictly(denoiser.control, control_state({**scales, **control}, denoiser.control))
    load_strictly(autoencoder.vae, vae_state(vae, autoencoder))
    load_strictly(tower.encoder, text_state(text, tower))


def trained_tables(config: Sd21Config, weights: State) -> dict[str, NDArray[np.int32]]:
    """The integer tables that the trained densities of a latent codec mean.

    Raises CapsuleError for weights that its exact arithmetic cannot take: better now than when a stream is to be read.
    """
    model: Any = Lfgcm(config.lfgcm)
    try:
        model.load_state_dict(without_prefix(weights, PARTS["lfgcm"].prefix))
        model.freeze()
        return capsule_tables(model)
    except (RuntimeError, ValueError) as error:
        raise CapsuleError(f"the latent codec cannot be used: {error}") from error
